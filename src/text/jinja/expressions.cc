#include <fmt/format.h>

#include "text/jinja/interpreter.h"

namespace tandem::text::jinja {

const Value* Interpreter::find_variable(NameId name) const {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    for (const auto& [other, value] : scope->variables) {
      if (other == name) return &value;
    }
  }
  return nullptr;
}

Value Interpreter::eval(const Expr& expr) {
  const DepthGuard depth(eval_depth_, kMaxEvalDepth);
  meter_.spend(1);
  const uint32_t outer_line = std::exchange(line_, expr.line);
  Value value = eval_kind(expr);
  line_ = outer_line;  // not restored on an error: line() then tells where it happened
  return value;
}

Value Interpreter::eval_kind(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kLiteral:
      return expr.literal;
    case ExprKind::kName:
      return eval_name(expr);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return eval_items(expr);
    case ExprKind::kDict:
      return eval_dict(expr);
    case ExprKind::kNegate:
      return eval_negate(expr);
    case ExprKind::kNot:
      return !truthy(eval(*expr.children[0]));
    case ExprKind::kBinary: {
      const Value left = eval(*expr.children[0]);
      return arithmetic(expr.op, left, eval(*expr.children[1]), meter_);
    }
    case ExprKind::kConcat:
      return eval_concat(expr);
    case ExprKind::kCompare:
      return eval_compare(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return eval_logic(expr);
    case ExprKind::kTernary:
      return eval_ternary(expr);
    case ExprKind::kAttribute:
      return get_attribute(eval(*expr.children[0]), expr.literal.rope_ptr());
    case ExprKind::kItem: {
      const Value value = eval(*expr.children[0]);
      return get_item(value, eval(*expr.children[1]));
    }
    case ExprKind::kSlice: {
      const Value value = eval(*expr.children[0]);
      const Value start = eval(*expr.children[1]);
      const Value stop = eval(*expr.children[2]);
      return slice_value(value, start, stop, eval(*expr.children[3]), meter_);
    }
    case ExprKind::kCall:
      return eval_call(expr);
    case ExprKind::kFilter: {
      const Value input = eval(*expr.children[0]);
      return expr.filter->apply(*this, input, eval_arguments(expr));
    }
    case ExprKind::kTest: {
      const Value input = eval(*expr.children[0]);
      return expr.test->apply(*this, input, eval_arguments(expr));
    }
  }
  return Value();
}

Value Interpreter::eval_name(const Expr& expr) {
  if (const Value* value = find_variable(expr.name)) return *value;
  const RopePtr& spelling = ast_.names.spelling(expr.name);
  if (const Function* function = find_function(spelling->text())) return *function;
  return Value::undefined(spelling);
}

Value Interpreter::eval_items(const Expr& expr) {
  std::vector<Value> items;
  items.reserve(expr.children.size());
  for (const ExprPtr& child : expr.children) items.push_back(eval(*child));
  return make_sequence(expr.kind == ExprKind::kList ? SequenceKind::kList : SequenceKind::kTuple,
                       std::move(items));
}

Value Interpreter::eval_dict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i < expr.children.size(); i += 2) {
    Value key = eval(*expr.children[i]);
    if (key.is(Kind::kSequence) || key.is(Kind::kDict)) {
      throw TemplateError(fmt::format("a {} cannot be the key of a mapping", type_name(key)));
    }
    meter_.spend_items(dict.entries.size() / 8);
    dict.set(std::move(key), eval(*expr.children[i + 1]));
  }
  return make_dict(std::move(dict));
}

Value Interpreter::eval_negate(const Expr& expr) {
  Value value = eval(*expr.children[0]);
  if (expr.op == Op::kSubtract) return negate(value);
  return negate(negate(value));  // unary + : the same number, the same refusals
}

Value Interpreter::eval_concat(const Expr& expr) {
  Rope out;
  for (const ExprPtr& child : expr.children) append_text(out, *text_of(eval(*child)), meter_);
  return Value::text(std::move(out));
}

Value Interpreter::eval_compare(const Expr& expr) {
  Value left = eval(*expr.children[0]);
  for (size_t i = 0; i < expr.ops.size(); ++i) {
    Value right = eval(*expr.children[i + 1]);
    if (!compare(expr.ops[i], left, right, meter_)) return false;
    left = std::move(right);
  }
  return true;
}

Value Interpreter::eval_logic(const Expr& expr) {
  Value left = eval(*expr.children[0]);
  const bool decided = truthy(left) == (expr.kind == ExprKind::kOr);
  return decided ? left : eval(*expr.children[1]);
}

Value Interpreter::eval_ternary(const Expr& expr) {
  if (truthy(eval(*expr.children[0]))) return eval(*expr.children[1]);
  return expr.children.size() > 2 ? eval(*expr.children[2]) : Value();
}

Arguments Interpreter::eval_arguments(const Expr& expr) {
  Arguments arguments;
  arguments.positional.reserve(expr.children.size() - 1);
  for (size_t i = 1; i < expr.children.size(); ++i) {
    arguments.positional.push_back(eval(*expr.children[i]));
  }
  for (const auto& [name, child] : expr.named) arguments.named.emplace_back(name, eval(*child));
  return arguments;
}

Value Interpreter::eval_call(const Expr& expr) {
  const Expr& callee = *expr.children[0];
  if (callee.kind == ExprKind::kAttribute) {
    const std::string& name = callee.literal.str();
    const Value self = eval(*callee.children[0]);
    if (self.is(Kind::kLoop)) {
      return call_loop_method(*self.as<std::shared_ptr<LoopState>>(), name, eval_arguments(expr));
    }
    if (has_method(self, name)) return call_method(*this, self, name, eval_arguments(expr));
    const Value attribute = get_attribute(self, callee.literal.rope_ptr());
    return call(attribute, eval_arguments(expr));
  }
  const Value value = eval(callee);
  return call(value, eval_arguments(expr));
}

Value Interpreter::call(const Value& callee, const Arguments& arguments) {
  switch (callee.kind()) {
    case Kind::kMacro:
      return call_macro(*callee.as<std::shared_ptr<const Macro>>(), arguments);
    case Kind::kFunction:
      return call_function(*this, callee.as<Function>(), arguments);
    case Kind::kMethod: {
      const auto& method = callee.as<std::shared_ptr<const Method>>();
      if (!is_supported_method(method->name)) {
        throw TemplateError(fmt::format("the method '{}' is not supported", method->name));
      }
      return call_method(*this, method->self, method->name, arguments);
    }
    default:
      require_defined(callee);
      throw TemplateError(fmt::format("'{}' object is not callable", type_name(callee)));
  }
}

Value Interpreter::call_loop_method(LoopState& loop, std::string_view name,
                                    const Arguments& arguments) {
  if (!arguments.named.empty()) throw TemplateError("loop methods take no named arguments");
  if (name == "cycle") return loop.cycle(arguments.positional);
  if (name == "changed") {
    return loop.changed(arguments.positional,
                        [this](const Value& a, const Value& b) { return equals(a, b, meter_); });
  }
  throw TemplateError(fmt::format("loop has no method '{}'", name));
}

Value Interpreter::new_namespace(Namespace attributes) {
  meter_.spend_items(8 + attributes.attributes.size());
  namespaces_.push_back(std::make_shared<Namespace>(std::move(attributes)));
  return namespaces_.back();
}

}  // namespace tandem::text::jinja
