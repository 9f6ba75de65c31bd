// Recursive descent over tokens; statements in parser.cc, expressions in expression_parser.cc.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"
#include "text/jinja/syntax_error.h"

namespace tandem::text::jinja {

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens);
  Ast run();

 private:
  // Bounds recursion of the parser itself.
  class Nesting {
   public:
    explicit Nesting(Parser& parser);
    ~Nesting() { --parser_.nesting_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Parser& parser_;
  };

  const Token& current() const { return tokens_[position_]; }
  const Token& look_ahead(size_t distance = 1) const;
  Token take() { return tokens_[position_ + 1 < tokens_.size() ? position_++ : position_]; }
  bool skip_operator(std::string_view symbol);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view symbol);
  void expect_name(std::string_view name);
  std::string expect_any_name(std::string_view what);
  [[noreturn]] void fail(const std::string& message) const;
  [[noreturn]] void fail_unsupported(const std::string& message) const;
  [[noreturn]] void fail_expected(std::string_view what) const;

  // parser.cc
  Body parse_body(std::initializer_list<std::string_view> end_tags);
  void parse_tag(Body& body);
  void expect_block_end();
  void end_tag(std::string_view name);
  Stmt parse_if();
  Stmt parse_for();
  Stmt parse_set();
  Stmt parse_macro();
  Stmt parse_with();
  Stmt parse_filter_block();
  Stmt parse_generation();
  Stmt parse_loop_control(StmtKind kind);
  Target parse_target(bool allow_attribute, std::string_view end_name);
  Target parse_single_target(bool allow_attribute);
  Stmt make_stmt(StmtKind kind) const;
  NameId assign_name(const std::string& name);
  void check_called_names();

  // expression_parser.cc
  ExprPtr parse_expression();
  ExprPtr parse_tuple(bool with_condition, std::string_view end_name = {});
  ExprPtr parse_or();
  ExprPtr parse_and();
  ExprPtr parse_not();
  ExprPtr parse_compare();
  bool take_compare_op(Op& op);
  ExprPtr parse_sum();
  ExprPtr parse_concat();
  ExprPtr parse_product();
  ExprPtr parse_power();
  ExprPtr parse_unary(bool with_filter);
  ExprPtr parse_primary();
  ExprPtr parse_name();
  ExprPtr parse_number();
  ExprPtr parse_string();
  ExprPtr parse_list();
  ExprPtr parse_dict();
  ExprPtr parse_postfix(ExprPtr expr);
  ExprPtr parse_dot(ExprPtr value);
  ExprPtr parse_subscript(ExprPtr value);
  ExprPtr parse_call(ExprPtr callee);
  void parse_arguments(Expr& call);
  ExprPtr parse_filters(ExprPtr expr);
  ExprPtr parse_filter(ExprPtr input);
  void check_named_builtin(const std::string& filter_name, const Expr& filter) const;
  ExprPtr parse_test(ExprPtr input);
  bool at_test_argument() const;
  ExprPtr make_expr(ExprKind kind) const;
  ExprPtr make_unary(ExprKind kind, ExprPtr operand);
  ExprPtr make_binary(ExprKind kind, Op op, ExprPtr left, ExprPtr right);
  void adopt(Expr& parent, ExprPtr child);
  void check_depth(const Expr& expr) const;

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int nesting_ = 0;
  int loops_ = 0;  // for loops around the current statement, within the macro
  Ast ast_;
  std::set<std::string> assigned_;                        // names some statement assigns
  std::vector<std::pair<std::string, uint32_t>> called_;  // names called like functions, lines
};

}  // namespace tandem::text::jinja
