// What an answer may be: constrained content, tool calls, a thought in front of them. Written as
// one grammar, so that the tokens of thoughts and calls are held to it as well.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "text/tokenizer.h"

namespace tandem::text {

// A grammar's rules and the one that begins it.
struct GrammarText {
  std::string ebnf;
  std::string root = "root";
};

// Content alone. `where` begins messages.
base::Result<GrammarText> json_schema_grammar(const nlohmann::ordered_json& schema,
                                              const std::string& where);
GrammarText json_object_grammar();
base::Result<GrammarText> regex_grammar(const std::string& pattern, const std::string& where);
base::Result<GrammarText> choice_grammar(const std::vector<std::string>& choices,
                                         const std::string& where);
// A grammar of the user's, in GBNF; must have a rule `root`. Guarded against what would take long.
base::Result<GrammarText> user_grammar(const std::string& ebnf, const std::string& where);

// What must stand between `begin` and `end`.
struct TaggedValue {
  std::string begin;
  const nlohmann::ordered_json* schema = nullptr;
  std::string end;
  std::string where;  // of the schema
};
// Any text, in which a trigger is the beginning of one of the values. Every `begin` starts with
// exactly one trigger.
base::Result<GrammarText> tagged_grammar(const std::vector<TaggedValue>& values,
                                         const std::vector<std::string>& triggers,
                                         const std::string& where);

// One tool that may be called.
struct CallableTool {
  std::string name;
  const nlohmann::ordered_json* parameters = nullptr;  // a schema; null: no arguments
  bool strict = false;  // arguments must follow the schema; else they do where it can be held to
  std::string where;    // of the parameters
};

struct ToolCallRules {
  enum class Use {
    kForced,  // calls and nothing else
    kFree,    // calls among other text, whenever the model begins one
  };
  std::vector<CallableTool> tools;
  Use use = Use::kForced;
  bool many = true;  // more than one call
};
// Calls in the family's syntax. Refuses vocabularies that lack its tokens.
base::Result<GrammarText> tool_call_grammar(const ToolCallRules& rules, const Tokenizer& tokenizer,
                                            const std::vector<int32_t>& end_ids);

// One or the other; their rules have different names.
GrammarText either(GrammarText a, const GrammarText& b);

enum class Thought {
  kNone,  // the answer begins at once
  kMay,   // a thought may come first
  kOpen,  // the prompt has begun one
};
// A thought in front; nothing changes for kNone or a vocabulary without the tokens for it.
GrammarText after_thought(GrammarText answer, Thought thought, const Tokenizer& tokenizer,
                          const std::vector<int32_t>& end_ids);

}  // namespace tandem::text
