#include <fmt/format.h>

#include "text/jinja/interpreter.h"

namespace tandem::text::jinja {

// Enters a new scope inside `parent` and goes back at the end.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter& interpreter, std::shared_ptr<Scope> parent)
      : interpreter_(interpreter), outer_(std::move(interpreter.scope_)) {
    interpreter_.scope_ = std::make_shared<Scope>();
    interpreter_.scope_->parent = std::move(parent);
  }
  explicit ScopeGuard(Interpreter& interpreter) : ScopeGuard(interpreter, interpreter.scope_) {}
  ~ScopeGuard() { interpreter_.scope_ = std::move(outer_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Interpreter& interpreter_;
  std::shared_ptr<Scope> outer_;
};

void Scope::set(NameId name, Value value) {
  for (auto& [other, existing] : variables) {
    if (other == name) {
      existing = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(const Ast& ast, std::vector<std::pair<NameId, Value>> globals,
                         int64_t fuel, std::time_t now)
    : ast_(ast), meter_(fuel), now_(now), scope_(std::make_shared<Scope>()) {
  scope_->variables = std::move(globals);
}

Interpreter::~Interpreter() {
  for (const auto& space : namespaces_) space->attributes.clear();
}

Rope Interpreter::run() {
  const ScopeGuard scope(*this);
  Rope out;
  exec_body(ast_.body, out);
  return out;
}

Interpreter::Flow Interpreter::exec_body(const Body& body, Rope& out) {
  for (const Stmt& stmt : body) {
    const Flow flow = exec(stmt, out);
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec(const Stmt& stmt, Rope& out) {
  const DepthGuard depth(eval_depth_, kMaxEvalDepth);
  meter_.spend(1);
  line_ = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kText:
      append_text(out, *stmt.text, meter_);
      return Flow::kNormal;
    case StmtKind::kOutput:
      exec_output(stmt, out);
      return Flow::kNormal;
    case StmtKind::kIf:
      return exec_if(stmt, out);
    case StmtKind::kFor:
      return exec_for(stmt, out);
    case StmtKind::kSet:
      assign(stmt.target, eval(*stmt.expr));
      return Flow::kNormal;
    case StmtKind::kSetBlock:
    case StmtKind::kFilterBlock:
      return exec_captured(stmt, out);
    case StmtKind::kMacro:
      define_macro(stmt);
      return Flow::kNormal;
    case StmtKind::kWith:
      return exec_with(stmt, out);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

void Interpreter::exec_output(const Stmt& stmt, Rope& out) {
  append_text(out, *text_of(eval(*stmt.expr)), meter_);
}

Interpreter::Flow Interpreter::exec_if(const Stmt& stmt, Rope& out) {
  for (const Branch& branch : stmt.branches) {
    if (branch.condition == nullptr || truthy(eval(*branch.condition))) {
      return exec_body(*branch.body, out);
    }
  }
  return Flow::kNormal;
}

LoopState::Accept Interpreter::make_accept(const Stmt& stmt) {
  if (stmt.condition == nullptr) return {};
  // The condition sees the loop's target, but neither `loop` nor what the body assigns.
  return [this, &stmt, parent = scope_](const Value& item) {
    const ScopeGuard scope(*this, parent);
    assign(stmt.target, item);
    return truthy(eval(*stmt.condition));
  };
}

Interpreter::Flow Interpreter::exec_for(const Stmt& stmt, Rope& out) {
  SequencePtr items = iterate(eval(*stmt.expr));
  auto loop = std::make_shared<LoopState>(std::move(items), make_accept(stmt));
  Flow flow = Flow::kNormal;
  // As in jinja2: `else` comes when no pass reached its end, by `continue` and `break` as well.
  bool reached_end = false;
  {
    const ScopeGuard scope(*this);
    while (loop->advance()) {
      meter_.spend(1);
      scope_->variables.clear();
      scope_->set(ast_.loop, loop);
      assign(stmt.target, loop->current());
      flow = exec_body(*stmt.body, out);
      if (flow == Flow::kBreak) break;
      reached_end |= flow == Flow::kNormal;
    }
  }
  if (!reached_end && stmt.else_body != nullptr) {
    const ScopeGuard scope(*this);
    return exec_body(*stmt.else_body, out);
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_captured(const Stmt& stmt, Rope& out) {
  Value result;
  {
    const ScopeGuard scope(*this);
    Rope captured;
    const Flow flow = exec_body(*stmt.body, captured);
    if (flow != Flow::kNormal) return flow;
    result = Value::text(std::move(captured));
    if (stmt.expr != nullptr) {
      scope_->set(ast_.captured, std::move(result));
      result = eval(*stmt.expr);
    }
  }
  if (stmt.kind == StmtKind::kSetBlock) {
    assign(stmt.target, std::move(result));
  } else {
    append_text(out, *text_of(result), meter_);
  }
  return Flow::kNormal;
}

Interpreter::Flow Interpreter::exec_with(const Stmt& stmt, Rope& out) {
  std::vector<Value> values;
  values.reserve(stmt.bindings.size());
  for (const auto& [target, expr] : stmt.bindings) values.push_back(eval(*expr));
  const ScopeGuard scope(*this);
  for (size_t i = 0; i < values.size(); ++i) assign(stmt.bindings[i].first, std::move(values[i]));
  return exec_body(*stmt.body, out);
}

void Interpreter::define_macro(const Stmt& stmt) {
  auto macro = std::make_shared<Macro>();
  macro->definition = &stmt;
  macro->scope = scope_;
  scope_->set(stmt.name, std::shared_ptr<const Macro>(std::move(macro)));
}

void Interpreter::assign(const Target& target, Value value) {
  switch (target.kind) {
    case Target::Kind::kName:
      return scope_->set(target.name, std::move(value));
    case Target::Kind::kAttribute: {
      const Value* space = find_variable(target.name);
      if (space == nullptr || !space->is(Kind::kNamespace)) {
        throw TemplateError(fmt::format("cannot assign attribute '{}': '{}' is not a namespace",
                                        target.attribute,
                                        ast_.names.spelling(target.name)->text()));
      }
      return space->as<std::shared_ptr<Namespace>>()->set(target.attribute, std::move(value));
    }
    case Target::Kind::kTuple: {
      const SequencePtr items = iterate(value);
      if (items->size() != target.items.size()) {
        throw TemplateError(fmt::format("expected {} values to unpack, got {}", target.items.size(),
                                        items->size()));
      }
      for (size_t i = 0; i < target.items.size(); ++i) assign(target.items[i], items->at(i));
      return;
    }
  }
}

Value Interpreter::call_macro(const Macro& macro, const Arguments& arguments) {
  const std::shared_ptr<Scope> parent = macro.scope.lock();
  if (parent == nullptr) throw TemplateError("a macro is called outside of its defining block");
  if (call_depth_ >= kMaxDepth) {
    throw TemplateError(fmt::format("macros call each other more than {} levels deep", kMaxDepth));
  }
  const DepthGuard depth(call_depth_, kMaxDepth);
  const ScopeGuard scope(*this, parent);
  bind_macro_arguments(*macro.definition, arguments);
  Rope out;
  exec_body(*macro.definition->body, out);
  return Value::text(std::move(out));
}

void Interpreter::bind_macro_arguments(const Stmt& definition, const Arguments& arguments) {
  const std::string& name = ast_.names.spelling(definition.name)->text();
  if (arguments.positional.size() > definition.params.size()) {
    throw TemplateError(fmt::format("macro '{}' takes not more than {} argument(s)", name,
                                    definition.params.size()));
  }
  std::vector<bool> used(arguments.named.size(), false);
  for (size_t i = 0; i < definition.params.size(); ++i) {
    const MacroParam& param = definition.params[i];
    const Value* given = i < arguments.positional.size() ? &arguments.positional[i] : nullptr;
    for (size_t k = 0; k < arguments.named.size(); ++k) {
      if (arguments.named[k].first != param.spelling) continue;
      if (given != nullptr) {
        throw TemplateError(
            fmt::format("macro '{}' got two values for '{}'", name, param.spelling));
      }
      given = &arguments.named[k].second;
      used[k] = true;
    }
    if (given != nullptr) {
      scope_->set(param.name, *given);
    } else if (param.fallback != nullptr) {
      scope_->set(param.name, eval(*param.fallback));
    } else {
      scope_->set(param.name, Value::undefined(ast_.names.spelling(param.name)));
    }
  }
  for (size_t k = 0; k < used.size(); ++k) {
    if (!used[k]) {
      throw TemplateError(
          fmt::format("macro '{}' takes no argument '{}'", name, arguments.named[k].first));
    }
  }
}

}  // namespace tandem::text::jinja
