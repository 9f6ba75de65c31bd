#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/builtins.h"
#include "text/jinja/limits.h"

namespace tandem::text::jinja {

NameId NameTable::intern(std::string_view name) {
  const auto [entry, inserted] =
      ids_.emplace(std::string(name), static_cast<NameId>(spellings_.size()));
  if (inserted) spellings_.push_back(std::make_shared<const Rope>(std::string(name), true));
  return entry->second;
}

NameId NameTable::find(std::string_view name) const {
  const auto entry = ids_.find(std::string(name));
  return entry == ids_.end() ? kNone : entry->second;
}

Parser::Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {
  ast_.loop = ast_.names.intern("loop");
  ast_.captured = ast_.names.intern("(block)");
}

Parser::Nesting::Nesting(Parser& parser) : parser_(parser) {
  if (parser_.nesting_ >= kMaxDepth) {
    parser_.fail(fmt::format("expected at most {} nested levels", kMaxDepth));
  }
  ++parser_.nesting_;
}

const Token& Parser::look_ahead(size_t distance) const {
  return tokens_[std::min(position_ + distance, tokens_.size() - 1)];
}

bool Parser::skip_operator(std::string_view symbol) {
  if (!current().is_operator(symbol)) return false;
  take();
  return true;
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  take();
  return true;
}

void Parser::expect_operator(std::string_view symbol) {
  if (!skip_operator(symbol)) fail_expected(fmt::format("'{}'", symbol));
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_expected(fmt::format("'{}'", name));
}

std::string Parser::expect_any_name(std::string_view what) {
  if (current().kind != TokenKind::kName) fail_expected(what);
  return take().text;
}

void Parser::fail(const std::string& message) const {
  throw SyntaxError(current().line, message);
}

void Parser::fail_unsupported(const std::string& message) const {
  throw SyntaxError(current().line, message, true);
}

void Parser::fail_expected(std::string_view what) const {
  const Token& token = current();
  switch (token.kind) {
    case TokenKind::kEnd:
      fail(fmt::format("expected {}, got the end of the template", what));
    case TokenKind::kBlockEnd:
    case TokenKind::kVariableEnd:
      fail(fmt::format("expected {}, got the end of the tag", what));
    default:
      fail(fmt::format("expected {}, got '{}'", what, token.text));
  }
}

Ast Parser::run() {
  ast_.body = parse_body({});
  check_called_names();
  return std::move(ast_);
}

Body Parser::parse_body(std::initializer_list<std::string_view> end_tags) {
  const Nesting nesting(*this);
  Body body;
  while (true) {
    switch (current().kind) {
      case TokenKind::kData: {
        Stmt stmt = make_stmt(StmtKind::kText);
        stmt.text = std::make_shared<const Rope>(take().text, true);
        body.push_back(std::move(stmt));
        break;
      }
      case TokenKind::kVariableBegin: {
        take();
        Stmt stmt = make_stmt(StmtKind::kOutput);
        stmt.expr = parse_tuple(true);
        if (current().kind != TokenKind::kVariableEnd) fail_expected("'}}'");
        take();
        body.push_back(std::move(stmt));
        break;
      }
      case TokenKind::kBlockBegin: {
        const std::string& tag = look_ahead().text;
        if (std::find(end_tags.begin(), end_tags.end(), tag) != end_tags.end()) return body;
        take();
        parse_tag(body);
        break;
      }
      default:
        if (end_tags.size() != 0) {
          fail(fmt::format("expected '{}', got the end of the template", *(end_tags.end() - 1)));
        }
        return body;
    }
  }
}

void Parser::parse_tag(Body& body) {
  const std::string tag = current().text;
  if (current().kind != TokenKind::kName) fail_expected("the name of a tag");
  if (tag == "if") return body.push_back(parse_if());
  if (tag == "for") return body.push_back(parse_for());
  if (tag == "set") return body.push_back(parse_set());
  if (tag == "macro") return body.push_back(parse_macro());
  if (tag == "with") return body.push_back(parse_with());
  if (tag == "filter") return body.push_back(parse_filter_block());
  if (tag == "generation") return body.push_back(parse_generation());
  if (tag == "break") return body.push_back(parse_loop_control(StmtKind::kBreak));
  if (tag == "continue") return body.push_back(parse_loop_control(StmtKind::kContinue));
  constexpr std::string_view kKnown[] = {"call",       "include", "import", "from",
                                         "extends",    "block",   "do",     "trans",
                                         "autoescape", "debug",   "print",  "pluralize"};
  if (std::find(std::begin(kKnown), std::end(kKnown), tag) != std::end(kKnown)) {
    fail_unsupported(fmt::format("the tag '{}' is not supported", tag));
  }
  fail(fmt::format("unknown tag '{}'", tag));
}

void Parser::expect_block_end() {
  if (current().kind != TokenKind::kBlockEnd) fail_expected("'%}'");
  take();
}

void Parser::end_tag(std::string_view name) {
  take();  // {%
  expect_name(name);
  expect_block_end();
}

Stmt Parser::make_stmt(StmtKind kind) const {
  Stmt stmt;
  stmt.kind = kind;
  stmt.line = current().line;
  return stmt;
}

NameId Parser::assign_name(const std::string& name) {
  constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False", "None"};
  if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved)) {
    fail(fmt::format("cannot assign to '{}'", name));
  }
  assigned_.insert(name);
  return ast_.names.intern(name);
}

Stmt Parser::parse_if() {
  Stmt stmt = make_stmt(StmtKind::kIf);
  take();
  while (true) {
    Branch branch;
    branch.condition = parse_tuple(false);
    expect_block_end();
    branch.body = std::make_unique<Body>(parse_body({"elif", "else", "endif"}));
    stmt.branches.push_back(std::move(branch));
    take();  // {%
    if (!skip_name("elif")) break;
  }
  if (skip_name("else")) {
    expect_block_end();
    Branch branch;
    branch.body = std::make_unique<Body>(parse_body({"endif"}));
    stmt.branches.push_back(std::move(branch));
    take();
  }
  expect_name("endif");
  expect_block_end();
  return stmt;
}

Stmt Parser::parse_for() {
  Stmt stmt = make_stmt(StmtKind::kFor);
  take();
  stmt.target = parse_target(false, "in");
  expect_name("in");
  stmt.expr = parse_tuple(false, "recursive");
  if (skip_name("if")) stmt.condition = parse_expression();
  if (current().is_name("recursive")) fail_unsupported("recursive loops are not supported");
  expect_block_end();
  ++loops_;
  stmt.body = std::make_unique<Body>(parse_body({"else", "endfor"}));
  --loops_;
  if (look_ahead().is_name("else")) {
    end_tag("else");
    stmt.else_body = std::make_unique<Body>(parse_body({"endfor"}));
  }
  end_tag("endfor");
  return stmt;
}

Stmt Parser::parse_set() {
  Stmt stmt = make_stmt(StmtKind::kSet);
  take();
  stmt.target = parse_target(true, {});
  if (skip_operator("=")) {
    stmt.expr = parse_tuple(true);
    expect_block_end();
    return stmt;
  }
  stmt.kind = StmtKind::kSetBlock;
  if (current().is_operator("|")) {
    ExprPtr input = make_expr(ExprKind::kName);
    input->name = ast_.captured;
    stmt.expr = parse_filters(std::move(input));
  }
  expect_block_end();
  stmt.body = std::make_unique<Body>(parse_body({"endset"}));
  end_tag("endset");
  return stmt;
}

Stmt Parser::parse_macro() {
  Stmt stmt = make_stmt(StmtKind::kMacro);
  take();
  stmt.name = assign_name(expect_any_name("the name of a macro"));
  expect_operator("(");
  while (!skip_operator(")")) {
    if (!stmt.params.empty()) {
      expect_operator(",");
      if (skip_operator(")")) break;
    }
    MacroParam param;
    param.spelling = expect_any_name("the name of a parameter");
    param.name = assign_name(param.spelling);
    if (skip_operator("=")) {
      param.fallback = parse_expression();
    } else if (!stmt.params.empty() && stmt.params.back().fallback != nullptr) {
      fail("a parameter without default follows one with a default");
    }
    stmt.params.push_back(std::move(param));
  }
  expect_block_end();
  const int outer_loops = std::exchange(loops_, 0);
  stmt.body = std::make_unique<Body>(parse_body({"endmacro"}));
  loops_ = outer_loops;
  end_tag("endmacro");
  return stmt;
}

Stmt Parser::parse_with() {
  Stmt stmt = make_stmt(StmtKind::kWith);
  take();
  while (current().kind != TokenKind::kBlockEnd) {
    if (!stmt.bindings.empty()) expect_operator(",");
    Target target = parse_single_target(false);
    expect_operator("=");
    stmt.bindings.emplace_back(std::move(target), parse_expression());
  }
  expect_block_end();
  stmt.body = std::make_unique<Body>(parse_body({"endwith"}));
  end_tag("endwith");
  return stmt;
}

Stmt Parser::parse_filter_block() {
  Stmt stmt = make_stmt(StmtKind::kFilterBlock);
  take();
  ExprPtr input = make_expr(ExprKind::kName);
  input->name = ast_.captured;
  stmt.expr = parse_filters(parse_filter(std::move(input)));
  expect_block_end();
  stmt.body = std::make_unique<Body>(parse_body({"endfilter"}));
  end_tag("endfilter");
  return stmt;
}

Stmt Parser::parse_generation() {
  Stmt stmt = make_stmt(StmtKind::kWith);
  take();
  expect_block_end();
  stmt.body = std::make_unique<Body>(parse_body({"endgeneration"}));
  end_tag("endgeneration");
  return stmt;
}

Stmt Parser::parse_loop_control(StmtKind kind) {
  Stmt stmt = make_stmt(kind);
  if (loops_ == 0) fail(fmt::format("'{}' outside of a loop", current().text));
  take();
  expect_block_end();
  return stmt;
}

Target Parser::parse_single_target(bool allow_attribute) {
  if (skip_operator("(")) {
    const Nesting nesting(*this);
    Target target = parse_target(false, {});
    expect_operator(")");
    return target;
  }
  const std::string name = expect_any_name("a name to assign to");
  Target target;
  if (allow_attribute && skip_operator(".")) {
    target.kind = Target::Kind::kAttribute;
    target.name = ast_.names.intern(name);
    target.attribute = expect_any_name("the name of an attribute");
    return target;
  }
  target.name = assign_name(name);
  return target;
}

Target Parser::parse_target(bool allow_attribute, std::string_view end_name) {
  Target first = parse_single_target(allow_attribute);
  if (!current().is_operator(",")) return first;
  Target tuple;
  tuple.kind = Target::Kind::kTuple;
  tuple.items.push_back(std::move(first));
  while (skip_operator(",")) {
    const bool ends = current().is_operator("=") || current().is_operator(")") ||
                      (!end_name.empty() && current().is_name(end_name));
    if (ends) break;
    tuple.items.push_back(parse_single_target(false));
  }
  return tuple;
}

void Parser::check_called_names() {
  for (const auto& [name, line] : called_) {
    if (assigned_.contains(name) || find_function(name) != nullptr) continue;
    throw SyntaxError(line, fmt::format("the function '{}' is not supported", name), true);
  }
}

Ast parse_template(std::string_view source) {
  return Parser(tokenize(source)).run();
}

}  // namespace tandem::text::jinja
