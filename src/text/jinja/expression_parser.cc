#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "text/jinja/builtins.h"
#include "text/jinja/limits.h"
#include "text/jinja/parser.h"

namespace tandem::text::jinja {

ExprPtr Parser::make_expr(ExprKind kind) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = current().line;
  return expr;
}

void Parser::check_depth(const Expr& expr) const {
  if (expr.depth > kMaxDepth) {
    fail(fmt::format("expected an expression of at most {} levels", kMaxDepth));
  }
}

void Parser::adopt(Expr& parent, ExprPtr child) {
  parent.depth = std::max(parent.depth, child->depth + 1);
  check_depth(parent);
  parent.children.push_back(std::move(child));
}

ExprPtr Parser::make_unary(ExprKind kind, ExprPtr operand) {
  ExprPtr expr = make_expr(kind);
  adopt(*expr, std::move(operand));
  return expr;
}

ExprPtr Parser::make_binary(ExprKind kind, Op op, ExprPtr left, ExprPtr right) {
  ExprPtr expr = make_expr(kind);
  expr->op = op;
  adopt(*expr, std::move(left));
  adopt(*expr, std::move(right));
  return expr;
}

ExprPtr Parser::parse_expression() {
  const Nesting nesting(*this);
  ExprPtr expr = parse_or();
  while (skip_name("if")) {
    ExprPtr ternary = make_expr(ExprKind::kTernary);
    adopt(*ternary, parse_or());
    adopt(*ternary, std::move(expr));
    if (skip_name("else")) adopt(*ternary, parse_expression());
    expr = std::move(ternary);
  }
  return expr;
}

ExprPtr Parser::parse_tuple(bool with_condition, std::string_view end_name) {
  const auto parse_item = [&] { return with_condition ? parse_expression() : parse_or(); };
  ExprPtr first = parse_item();
  if (!current().is_operator(",")) return first;
  ExprPtr tuple = make_expr(ExprKind::kTuple);
  adopt(*tuple, std::move(first));
  while (skip_operator(",")) {
    const TokenKind kind = current().kind;
    if (kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd ||
        current().is_operator(")") || (!end_name.empty() && current().is_name(end_name))) {
      break;
    }
    adopt(*tuple, parse_item());
  }
  return tuple;
}

ExprPtr Parser::parse_or() {
  ExprPtr left = parse_and();
  while (skip_name("or")) left = make_binary(ExprKind::kOr, Op::kAdd, std::move(left), parse_and());
  return left;
}

ExprPtr Parser::parse_and() {
  ExprPtr left = parse_not();
  while (skip_name("and")) {
    left = make_binary(ExprKind::kAnd, Op::kAdd, std::move(left), parse_not());
  }
  return left;
}

ExprPtr Parser::parse_not() {
  if (!skip_name("not")) return parse_compare();
  const Nesting nesting(*this);
  return make_unary(ExprKind::kNot, parse_not());
}

bool Parser::take_compare_op(Op& op) {
  constexpr std::pair<std::string_view, Op> kOps[] = {
      {"==", Op::kEqual},        {"!=", Op::kNotEqual}, {"<=", Op::kLessEqual},
      {">=", Op::kGreaterEqual}, {"<", Op::kLess},      {">", Op::kGreater}};
  for (const auto& [symbol, candidate] : kOps) {
    if (skip_operator(symbol)) {
      op = candidate;
      return true;
    }
  }
  if (skip_name("in")) {
    op = Op::kIn;
    return true;
  }
  if (current().is_name("not") && look_ahead().is_name("in")) {
    take();
    take();
    op = Op::kNotIn;
    return true;
  }
  return false;
}

ExprPtr Parser::parse_compare() {
  ExprPtr left = parse_sum();
  Op op = Op::kEqual;
  if (!take_compare_op(op)) return left;
  ExprPtr compare = make_expr(ExprKind::kCompare);
  adopt(*compare, std::move(left));
  do {
    compare->ops.push_back(op);
    adopt(*compare, parse_sum());
  } while (take_compare_op(op));
  return compare;
}

ExprPtr Parser::parse_sum() {
  ExprPtr left = parse_concat();
  while (current().is_operator("+") || current().is_operator("-")) {
    const Op op = take().text == "+" ? Op::kAdd : Op::kSubtract;
    left = make_binary(ExprKind::kBinary, op, std::move(left), parse_concat());
  }
  return left;
}

ExprPtr Parser::parse_concat() {
  ExprPtr first = parse_product();
  if (!current().is_operator("~")) return first;
  ExprPtr concat = make_expr(ExprKind::kConcat);
  adopt(*concat, std::move(first));
  while (skip_operator("~")) adopt(*concat, parse_product());
  return concat;
}

ExprPtr Parser::parse_product() {
  constexpr std::pair<std::string_view, Op> kOps[] = {
      {"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}};
  ExprPtr left = parse_power();
  while (true) {
    const auto* op = std::find_if(std::begin(kOps), std::end(kOps), [this](const auto& entry) {
      return current().is_operator(entry.first);
    });
    if (op == std::end(kOps)) return left;
    take();
    left = make_binary(ExprKind::kBinary, op->second, std::move(left), parse_power());
  }
}

ExprPtr Parser::parse_power() {
  ExprPtr left = parse_unary(true);
  while (skip_operator("**")) {
    left = make_binary(ExprKind::kBinary, Op::kPower, std::move(left), parse_unary(true));
  }
  return left;
}

ExprPtr Parser::parse_unary(bool with_filter) {
  const Nesting nesting(*this);
  ExprPtr expr;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Op op = take().text == "-" ? Op::kSubtract : Op::kAdd;
    expr = make_unary(ExprKind::kNegate, parse_unary(false));
    expr->op = op;
  } else {
    expr = parse_primary();
  }
  expr = parse_postfix(std::move(expr));
  return with_filter ? parse_filters(std::move(expr)) : std::move(expr);
}

ExprPtr Parser::parse_primary() {
  switch (current().kind) {
    case TokenKind::kName:
      return parse_name();
    case TokenKind::kString:
      return parse_string();
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return parse_number();
    default:
      break;
  }
  if (current().is_operator("[")) return parse_list();
  if (current().is_operator("{")) return parse_dict();
  if (!skip_operator("(")) fail_expected("an expression");
  if (current().is_operator(")")) {
    take();
    return make_expr(ExprKind::kTuple);
  }
  ExprPtr expr = parse_tuple(true);
  expect_operator(")");
  return expr;
}

ExprPtr Parser::parse_name() {
  ExprPtr expr = make_expr(ExprKind::kLiteral);
  const std::string name = take().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    expr->literal = name == "true" || name == "True";
    return expr;
  }
  if (name == "none" || name == "None") {
    expr->literal = None{};
    return expr;
  }
  for (const std::string_view special : {"caller", "varargs", "kwargs", "self", "super"}) {
    if (name == special && !assigned_.contains(name)) {
      fail_unsupported(fmt::format("the name '{}' is not supported", name));
    }
  }
  expr->kind = ExprKind::kName;
  expr->name = ast_.names.intern(name);
  return expr;
}

ExprPtr Parser::parse_number() {
  ExprPtr expr = make_expr(ExprKind::kLiteral);
  const Token token = take();
  const char* begin = token.text.data();
  const char* end = begin + token.text.size();
  if (token.kind == TokenKind::kFloat) {
    expr->literal = std::strtod(begin, nullptr);
    return expr;
  }
  Int number = 0;
  for (const char* digit = begin; digit != end; ++digit) {
    const bool overflow = __builtin_mul_overflow(number, Int{10}, &number) ||
                          __builtin_add_overflow(number, Int{*digit - '0'}, &number);
    if (overflow) fail(fmt::format("the number {} is too large", token.text));
  }
  expr->literal = number;
  return expr;
}

ExprPtr Parser::parse_string() {
  ExprPtr expr = make_expr(ExprKind::kLiteral);
  std::string text = take().text;
  while (current().kind == TokenKind::kString) text += take().text;
  expr->literal = Value::text(Rope(std::move(text), true));
  return expr;
}

ExprPtr Parser::parse_list() {
  ExprPtr list = make_expr(ExprKind::kList);
  take();
  while (!skip_operator("]")) {
    if (!list->children.empty()) {
      expect_operator(",");
      if (skip_operator("]")) break;
    }
    adopt(*list, parse_expression());
  }
  return list;
}

ExprPtr Parser::parse_dict() {
  ExprPtr dict = make_expr(ExprKind::kDict);
  take();
  while (!skip_operator("}")) {
    if (!dict->children.empty()) {
      expect_operator(",");
      if (skip_operator("}")) break;
    }
    adopt(*dict, parse_expression());
    expect_operator(":");
    adopt(*dict, parse_expression());
  }
  return dict;
}

}  // namespace tandem::text::jinja
