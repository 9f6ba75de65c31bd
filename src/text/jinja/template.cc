#include "text/jinja/template.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/ast.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/syntax_error.h"
#include "text/jinja/unicode.h"
#include "text/utf8.h"

namespace tandem::text::jinja {

namespace {

using base::ErrorCode;

bool mentions_literal(const Expr& expr, std::string_view text) {
  const bool holds_text = expr.kind == ExprKind::kLiteral || expr.kind == ExprKind::kAttribute;
  if (holds_text && expr.literal.is_string() && expr.literal.str() == text) return true;
  return std::any_of(expr.children.begin(), expr.children.end(),
                     [&](const ExprPtr& child) { return mentions_literal(*child, text); });
}

bool body_iterates(const Body& body, std::string_view attribute) {
  const auto inside = [&](const std::unique_ptr<Body>& inner) {
    return inner != nullptr && body_iterates(*inner, attribute);
  };
  return std::any_of(body.begin(), body.end(), [&](const Stmt& stmt) {
    if (stmt.kind == StmtKind::kFor && mentions_literal(*stmt.expr, attribute)) return true;
    if (inside(stmt.body) || inside(stmt.else_body)) return true;
    return std::any_of(stmt.branches.begin(), stmt.branches.end(),
                       [&](const Branch& branch) { return inside(branch.body); });
  });
}

}  // namespace

base::Result<Template> Template::parse(std::string_view source, std::string name) {
  if (source.size() > kMaxSourceBytes) {
    return base::invalid("{}: expected at most {} bytes of template, got {}", name, kMaxSourceBytes,
                         source.size());
  }
  if (!is_valid_utf8(source))
    return base::invalid("{}: expected UTF-8 text, got other bytes", name);
  Template result;
  try {
    result.ast_ = std::make_shared<const Ast>(parse_template(source));
  } catch (const SyntaxError& error) {
    const auto code = error.unsupported() ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument;
    return base::make_error(code, fmt::format("{}:{}: {}", name, error.line(), error.what()));
  }
  result.name_ = std::move(name);
  return result;
}

base::Result<Rope> Template::render(const Variables& variables,
                                    const RenderOptions& options) const {
  int64_t fuel_used = 0;
  return render(variables, options, fuel_used);
}

base::Result<Rope> Template::render(const Variables& variables, const RenderOptions& options,
                                    int64_t& fuel_used) const {
  std::vector<std::pair<NameId, Value>> globals;
  for (const auto& [name, value] : variables) {
    const NameId id = ast_->names.find(name);
    if (id != NameTable::kNone) globals.emplace_back(id, value);
  }
  Interpreter interpreter(*ast_, std::move(globals), options.fuel, options.now);
  try {
    Rope out = interpreter.run();
    fuel_used = options.fuel - interpreter.meter().left();
    return out;
  } catch (const TemplateError& error) {
    fuel_used = options.fuel - interpreter.meter().left();
    const auto code = error.unsupported() ? ErrorCode::kUnsupported : ErrorCode::kInvalidArgument;
    return base::make_error(code,
                            fmt::format("{}:{}: {}", name_, interpreter.line(), error.what()));
  }
}

bool Template::iterates_over(std::string_view attribute) const {
  return body_iterates(ast_->body, attribute);
}

}  // namespace tandem::text::jinja
