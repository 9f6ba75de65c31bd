// What may follow an expression: attributes, subscripts, calls, filters and tests.
#include <fmt/format.h>

#include "text/jinja/builtins.h"
#include "text/jinja/parser.h"

namespace tandem::text::jinja {

ExprPtr Parser::parse_postfix(ExprPtr expr) {
  while (true) {
    if (current().is_operator(".")) {
      expr = parse_dot(std::move(expr));
    } else if (current().is_operator("[")) {
      expr = parse_subscript(std::move(expr));
    } else if (current().is_operator("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr Parser::parse_dot(ExprPtr value) {
  take();
  const Token name = current();
  if (name.kind == TokenKind::kInteger) {
    ExprPtr item = make_expr(ExprKind::kItem);
    adopt(*item, std::move(value));
    adopt(*item, parse_number());
    return item;
  }
  ExprPtr attribute = make_expr(ExprKind::kAttribute);
  expect_any_name("the name of an attribute");
  if (name.text.starts_with("__")) {
    fail_unsupported(fmt::format("the attribute '{}' is not supported", name.text));
  }
  attribute->literal = Value::text(name.text);
  adopt(*attribute, std::move(value));
  return attribute;
}

ExprPtr Parser::parse_subscript(ExprPtr value) {
  take();
  const auto absent = [this] {
    ExprPtr none = make_expr(ExprKind::kLiteral);
    none->literal = None{};
    return none;
  };
  const auto at_bound_end = [this] {
    return current().is_operator(":") || current().is_operator("]") || current().is_operator(",");
  };
  ExprPtr start = current().is_operator(":") ? absent() : parse_expression();
  ExprPtr result;
  if (skip_operator(":")) {
    result = make_expr(ExprKind::kSlice);
    adopt(*result, std::move(value));
    adopt(*result, std::move(start));
    adopt(*result, at_bound_end() ? absent() : parse_expression());
    const bool has_step = skip_operator(":");
    adopt(*result, !has_step || at_bound_end() ? absent() : parse_expression());
  } else {
    result = make_expr(ExprKind::kItem);
    adopt(*result, std::move(value));
    adopt(*result, std::move(start));
  }
  if (current().is_operator(",")) fail_unsupported("a tuple as subscript is not supported");
  expect_operator("]");
  return result;
}

ExprPtr Parser::parse_call(ExprPtr callee) {
  if (callee->kind == ExprKind::kName) {
    called_.emplace_back(ast_.names.spelling(callee->name)->text(), callee->line);
  } else if (callee->kind == ExprKind::kAttribute) {
    const std::string& method = callee->literal.str();
    if (!is_supported_method(method)) {
      fail_unsupported(fmt::format("the method '{}' is not supported", method));
    }
  }
  ExprPtr call = make_expr(ExprKind::kCall);
  adopt(*call, std::move(callee));
  parse_arguments(*call);
  return call;
}

void Parser::parse_arguments(Expr& call) {
  expect_operator("(");
  bool first = true;
  while (!skip_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (skip_operator(")")) break;
    }
    first = false;
    if (current().is_operator("*") || current().is_operator("**")) {
      fail_unsupported("unpacking arguments with * is not supported");
    }
    if (current().kind == TokenKind::kName && look_ahead().is_operator("=")) {
      std::string name = take().text;
      take();
      ExprPtr value = parse_expression();
      call.depth = std::max(call.depth, value->depth + 1);
      check_depth(call);
      for (const auto& [other, unused] : call.named) {
        if (other == name) fail(fmt::format("the argument '{}' is given twice", name));
      }
      call.named.emplace_back(std::move(name), std::move(value));
      continue;
    }
    if (!call.named.empty()) fail("a positional argument follows a named one");
    adopt(call, parse_expression());
  }
}

ExprPtr Parser::parse_filters(ExprPtr expr) {
  while (true) {
    if (skip_operator("|")) {
      expr = parse_filter(std::move(expr));
    } else if (current().is_name("is")) {
      expr = parse_test(std::move(expr));
    } else if (current().is_operator("(")) {
      expr = parse_call(std::move(expr));
    } else {
      return expr;
    }
  }
}

ExprPtr Parser::parse_filter(ExprPtr input) {
  ExprPtr filter = make_expr(ExprKind::kFilter);
  std::string name = expect_any_name("the name of a filter");
  while (skip_operator(".")) name.append(".").append(expect_any_name("the name of a filter"));
  filter->filter = find_filter(name);
  if (filter->filter == nullptr) {
    fail_unsupported(fmt::format("the filter '{}' is not supported", name));
  }
  adopt(*filter, std::move(input));
  if (current().is_operator("(")) parse_arguments(*filter);
  check_named_builtin(name, *filter);
  return filter;
}

// map('upper') and selectattr('a', 'defined') name a filter or test: known at load time.
void Parser::check_named_builtin(const std::string& filter_name, const Expr& filter) const {
  const bool by_attribute = filter_name == "selectattr" || filter_name == "rejectattr";
  const bool is_map = filter_name == "map";
  if (!by_attribute && !is_map && filter_name != "select" && filter_name != "reject") return;
  const size_t position = by_attribute ? 2 : 1;  // behind the input and the attribute
  if (filter.children.size() <= position) return;
  const Expr& named = *filter.children[position];
  if (named.kind != ExprKind::kLiteral || !named.literal.is_string()) return;
  const std::string& name = named.literal.str();
  const bool known = is_map ? find_filter(name) != nullptr : find_test(name) != nullptr;
  if (known) return;
  throw SyntaxError(named.line,
                    fmt::format("the {} '{}' is not supported", is_map ? "filter" : "test", name),
                    true);
}

bool Parser::at_test_argument() const {
  switch (current().kind) {
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return true;
    case TokenKind::kName:
      return !current().is_name("else") && !current().is_name("or") && !current().is_name("and");
    default:
      return current().is_operator("[") || current().is_operator("{");
  }
}

ExprPtr Parser::parse_test(ExprPtr input) {
  take();
  ExprPtr test = make_expr(ExprKind::kTest);
  const bool negated = skip_name("not");
  const std::string name = expect_any_name("the name of a test");
  test->test = find_test(name);
  if (test->test == nullptr) {
    fail_unsupported(fmt::format("the test '{}' is not supported", name));
  }
  adopt(*test, std::move(input));
  if (current().is_operator("(")) {
    parse_arguments(*test);
  } else if (at_test_argument()) {
    if (current().is_name("is")) fail("tests cannot be chained with 'is'");
    const Nesting nesting(*this);
    adopt(*test, parse_postfix(parse_primary()));
  }
  return negated ? make_unary(ExprKind::kNot, std::move(test)) : std::move(test);
}

}  // namespace tandem::text::jinja
