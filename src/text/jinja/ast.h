// A parsed template. Immutable after parsing and shared by concurrent renders.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/operators.h"
#include "text/jinja/value.h"

namespace tandem::text::jinja {

using NameId = uint32_t;
struct FilterEntry;
struct TestEntry;
struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<Stmt>;

enum class ExprKind : uint8_t {
  kLiteral,
  kName,
  kList,
  kTuple,
  kDict,    // children: key, value, key, value, ...
  kNegate,  // also used for unary +, with op kAdd
  kNot,
  kBinary,
  kConcat,   // a ~ b ~ c
  kCompare,  // children: operands; ops: between them
  kAnd,
  kOr,
  kTernary,  // children: condition, then, [else]
  kAttribute,
  kItem,
  kSlice,   // children: value, start, stop, step; absent parts are None
  kCall,    // children: callee, arguments...
  kFilter,  // children: input, arguments...
  kTest     // children: input, arguments...
};

struct Expr {
  ExprKind kind = ExprKind::kLiteral;
  Op op = Op::kAdd;
  int depth = 1;  // of the tree below, at most kMaxDepth
  uint32_t line = 0;
  NameId name = 0;  // of a variable
  Value literal;    // of a literal; the attribute's name as a string
  std::vector<ExprPtr> children;
  std::vector<std::pair<std::string, ExprPtr>> named;  // keyword arguments
  std::vector<Op> ops;
  const FilterEntry* filter = nullptr;
  const TestEntry* test = nullptr;
};

// What an assignment or a for loop writes to.
struct Target {
  enum class Kind : uint8_t { kName, kAttribute, kTuple } kind = Kind::kName;
  NameId name = 0;
  std::string attribute;  // of a namespace
  std::vector<Target> items;
};

enum class StmtKind : uint8_t {
  kText,
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kWith,  // also {% generation %}, with no bindings
  kFilterBlock,
  kBreak,
  kContinue
};

struct Branch {
  ExprPtr condition;  // null for else
  std::unique_ptr<Body> body;
};

struct MacroParam {
  NameId name = 0;
  std::string spelling;
  ExprPtr fallback;  // null when there is no default
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  uint32_t line = 0;
  NameId name = 0;  // of a macro
  RopePtr text;
  Target target;
  ExprPtr expr;       // output, iterable, assigned value, or the filters of a captured block
  ExprPtr condition;  // of `for ... if`
  std::vector<Branch> branches;
  std::vector<MacroParam> params;
  std::vector<std::pair<Target, ExprPtr>> bindings;  // of with
  std::unique_ptr<Body> body;
  std::unique_ptr<Body> else_body;
};

// Spellings of variables, numbered.
class NameTable {
 public:
  NameId intern(std::string_view name);
  // kNone when the template never mentions the name.
  static constexpr NameId kNone = ~NameId{0};
  NameId find(std::string_view name) const;
  const RopePtr& spelling(NameId id) const { return spellings_[id]; }

 private:
  std::unordered_map<std::string, NameId> ids_;
  std::vector<RopePtr> spellings_;
};

struct Ast {
  NameTable names;
  NameId loop = 0;      // "loop"
  NameId captured = 0;  // stands for the text of a block inside its filter expression
  Body body;
};

// Throws SyntaxError.
Ast parse_template(std::string_view source);

}  // namespace tandem::text::jinja
