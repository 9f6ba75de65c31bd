// Runs a parsed template once. Not shared between threads; the Ast is.
#pragma once

#include <ctime>
#include <memory>
#include <utility>
#include <vector>

#include "text/jinja/ast.h"
#include "text/jinja/builtins.h"
#include "text/jinja/limits.h"
#include "text/jinja/loop_state.h"
#include "text/jinja/print.h"
#include "text/jinja/value.h"

namespace tandem::text::jinja {

struct Scope {
  std::vector<std::pair<NameId, Value>> variables;
  std::shared_ptr<Scope> parent;

  void set(NameId name, Value value);
};

struct Macro {
  const Stmt* definition = nullptr;
  std::weak_ptr<Scope> scope;  // where it was defined; weak, since that scope holds the macro
};

class Interpreter {
 public:
  Interpreter(const Ast& ast, std::vector<std::pair<NameId, Value>> globals, int64_t fuel,
              std::time_t now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // Throws TemplateError; line() then says where.
  Rope run();
  uint32_t line() const { return line_; }

  // For the builtins.
  Meter& meter() { return meter_; }
  std::time_t now() const { return now_; }
  RopePtr text_of(const Value& value) { return to_text(value, meter_); }
  Value new_namespace(Namespace attributes);
  // `value.name` and `value[key]`, each falling back to the other as jinja2 does.
  Value get_attribute(const Value& value, const RopePtr& name);
  Value get_item(const Value& value, const Value& key);
  // The items a for loop sees; a generator is used up.
  SequencePtr iterate(const Value& value);
  Value call(const Value& callee, const Arguments& arguments);

 private:
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };
  class ScopeGuard;

  Flow exec_body(const Body& body, Rope& out);
  Flow exec(const Stmt& stmt, Rope& out);
  Flow exec_if(const Stmt& stmt, Rope& out);
  Flow exec_for(const Stmt& stmt, Rope& out);
  Flow exec_captured(const Stmt& stmt, Rope& out);
  Flow exec_with(const Stmt& stmt, Rope& out);
  void exec_output(const Stmt& stmt, Rope& out);
  void define_macro(const Stmt& stmt);
  void assign(const Target& target, Value value);
  LoopState::Accept make_accept(const Stmt& stmt);

  Value eval(const Expr& expr);
  Value eval_kind(const Expr& expr);
  Value eval_name(const Expr& expr);
  Value eval_items(const Expr& expr);
  Value eval_dict(const Expr& expr);
  Value eval_negate(const Expr& expr);
  Value eval_concat(const Expr& expr);
  Value eval_compare(const Expr& expr);
  Value eval_logic(const Expr& expr);
  Value eval_ternary(const Expr& expr);
  Value eval_call(const Expr& expr);
  Arguments eval_arguments(const Expr& expr);
  const Value* find_variable(NameId name) const;

  Value call_macro(const Macro& macro, const Arguments& arguments);
  void bind_macro_arguments(const Stmt& definition, const Arguments& arguments);
  Value call_loop_method(LoopState& loop, std::string_view name, const Arguments& arguments);

  const Ast& ast_;
  Meter meter_;
  std::time_t now_;
  std::shared_ptr<Scope> scope_;
  // Every namespace made, to break reference cycles at the end.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  uint32_t line_ = 0;
  int eval_depth_ = 0;
  int call_depth_ = 0;
};

}  // namespace tandem::text::jinja
