#include "text/grammar/answer_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/grammar/schema_reader.h"
#include "text/grammar/value_grammar.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxGrammarBytes = size_t{512} << 10;
constexpr int64_t kMaxCost = 2048;
constexpr size_t kMaxChoices = 1000;
constexpr size_t kMaxChoiceBytes = size_t{64} << 10;

Ebnf new_ebnf(std::string prefix = "") {
  return {kMaxGrammarBytes, kMaxCost, std::move(prefix)};
}

tl::unexpected<base::Error> too_large(const std::string& where) {
  return base::unsupported(
      "{}: expected a smaller grammar: fewer or simpler patterns, lengths and properties", where);
}

base::Result<GrammarText> finished(const Ebnf& ebnf, const std::string& where) {
  if (ebnf.overflowed()) return too_large(where);
  return GrammarText{ebnf.text()};
}

base::Status check_triggers(const std::vector<std::string>& triggers, const std::string& where) {
  if (triggers.empty()) return base::invalid("{}: expected at least one trigger", where);
  for (size_t i = 0; i < triggers.size(); ++i) {
    if (triggers[i].empty() || !is_valid_utf8(triggers[i]))
      return base::invalid("{}: expected triggers of some text", where);
    for (size_t j = 0; j < triggers.size(); ++j)
      if (i != j && triggers[j].find(triggers[i]) != std::string::npos)
        return base::unsupported("{}: expected triggers none of which is a part of another", where);
  }
  return {};
}

std::string token(int32_t id) {
  return fmt::format("Token({})", id);
}

}  // namespace

base::Result<GrammarText> json_schema_grammar(const ordered_json& schema,
                                              const std::string& where) {
  Ebnf ebnf = new_ebnf();
  TANDEM_ASSIGN_OR_RETURN(const ShapeTable table, read_schema(schema, where));
  ValueGrammar values(ebnf, {});
  TANDEM_ASSIGN_OR_RETURN(const std::string value, values.write(table));
  ebnf.define("root", value);
  return finished(ebnf, where);
}

GrammarText json_object_grammar() {
  Ebnf ebnf = new_ebnf();
  ValueGrammar values(ebnf, {});
  ebnf.define("root", values.any_object());
  return {ebnf.text()};
}

base::Result<GrammarText> regex_grammar(const std::string& pattern, const std::string& where) {
  Ebnf ebnf = new_ebnf();
  TANDEM_ASSIGN_OR_RETURN(const Regex regex, parse_regex(pattern, where));
  TANDEM_ASSIGN_OR_RETURN(const std::string element,
                          regex_ebnf(ebnf, regex, RegexForm::kText, RegexMatch::kWhole, where));
  ebnf.define("root", element);
  return finished(ebnf, where);
}

base::Result<GrammarText> choice_grammar(const std::vector<std::string>& choices,
                                         const std::string& where) {
  size_t size = 0;
  for (const std::string& choice : choices) {
    size += choice.size();
    if (choice.empty()) return base::invalid("{}: expected texts, got an empty one", where);
    if (!is_valid_utf8(choice)) return base::invalid("{}: expected UTF-8", where);
  }
  if (choices.empty() || choices.size() > kMaxChoices || size > kMaxChoiceBytes)
    return base::invalid("{}: expected 1 to {} texts of at most {} bytes together, got {} of {}",
                         where, kMaxChoices, kMaxChoiceBytes, choices.size(), size);
  Ebnf ebnf = new_ebnf();
  std::vector<std::string> literals;
  for (const std::string& choice : choices) literals.push_back(ebnf_literal(choice));
  ebnf.define("root", any_of(literals));
  return finished(ebnf, where);
}

base::Result<GrammarText> tagged_grammar(const std::vector<TaggedValue>& values,
                                         const std::vector<std::string>& triggers,
                                         const std::string& where) {
  TANDEM_RETURN_IF_ERROR(check_triggers(triggers, where));
  Ebnf ebnf = new_ebnf();
  ValueGrammar writer(ebnf, {});
  std::vector<std::vector<std::string>> rests(triggers.size());
  for (const TaggedValue& value : values) {
    const auto trigger = std::ranges::find_if(
        triggers, [&](const std::string& text) { return value.begin.starts_with(text); });
    if (trigger == triggers.end() || !is_valid_utf8(value.begin) || !is_valid_utf8(value.end))
      return base::invalid("{}: expected a begin that starts with one of the triggers", where);
    TANDEM_ASSIGN_OR_RETURN(const ShapeTable table, read_schema(*value.schema, value.where));
    TANDEM_ASSIGN_OR_RETURN(std::string rest, writer.write(table));
    const std::string_view head = std::string_view(value.begin).substr(trigger->size());
    if (!head.empty()) rest = ebnf_literal(head) + " " + rest;
    if (!value.end.empty()) rest += " " + ebnf_literal(value.end);
    rests[static_cast<size_t>(trigger - triggers.begin())].push_back(ebnf.rule("tag", rest));
  }
  std::vector<std::string> pairs;
  for (size_t i = 0; i < triggers.size(); ++i) {
    if (rests[i].empty())
      return base::invalid("{}: expected a value for each trigger, got none for one", where);
    pairs.push_back(
        fmt::format("({}, {})", ebnf_literal(triggers[i]), ebnf.rule("trigger", any_of(rests[i]))));
  }
  ebnf.define("root",
              fmt::format("TagDispatch({}, loop_after_dispatch=true)", fmt::join(pairs, ", ")));
  return finished(ebnf, where);
}

base::Result<GrammarText> tool_call_grammar(const ToolCallRules& rules, const Tokenizer& tokenizer,
                                            const std::vector<int32_t>& end_ids) {
  const auto begin = tokenizer.token_to_id("<|tool_call>");
  const auto end = tokenizer.token_to_id("<tool_call|>");
  const auto quote = tokenizer.token_to_id("<|\"|>");
  if (!begin || !end || !quote)
    return base::unsupported(
        "tool_choice: expected a vocabulary with the tokens of tool calls; this model has none");
  Ebnf ebnf = new_ebnf("tandem_");
  ValueGrammar values(ebnf, {quote});
  std::vector<std::string> calls;
  for (const CallableTool& tool : rules.tools) {
    std::string arguments = "\"{}\"";
    if (tool.parameters != nullptr) {
      auto table = read_schema(*tool.parameters, tool.where);
      if (table) table = objects_only(std::move(*table), tool.where);
      if (!table && tool.strict) return tl::unexpected<base::Error>(std::move(table.error()));
      if (table) {
        TANDEM_ASSIGN_OR_RETURN(arguments, values.write(*table));
      } else {
        arguments = values.any_object();
      }
    }
    calls.push_back(ebnf.rule("call", ebnf_literal("call:" + tool.name) + " " + arguments));
  }
  const std::string call = ebnf.rule("calls", any_of(calls) + " " + token(*end));
  std::string body = fmt::format("({} {}){}", token(*begin), call, rules.many ? "+" : "");
  if (rules.use == ToolCallRules::Use::kFree)
    body = fmt::format("TokenTagDispatch(({}, {}), loop_after_dispatch={}, excludes=({},))", *begin,
                       call, rules.many, fmt::join(end_ids, ", "));
  ebnf.define("tandem_calls", body);
  if (ebnf.overflowed()) return too_large("tools");
  return GrammarText{ebnf.text(), "tandem_calls"};
}

GrammarText either(GrammarText a, const GrammarText& b) {
  a.ebnf += b.ebnf + fmt::format("tandem_either ::= {} | {}\n", a.root, b.root);
  a.root = "tandem_either";
  return a;
}

GrammarText after_thought(GrammarText answer, Thought thought, const Tokenizer& tokenizer,
                          const std::vector<int32_t>& end_ids) {
  const auto begin = tokenizer.token_to_id("<|channel>");
  const auto end = tokenizer.token_to_id("<channel|>");
  if (thought == Thought::kNone || !begin || !end) return answer;
  // A thought ends with its own token and no other way: the answer always follows.
  std::vector<int32_t> excluded = end_ids;
  excluded.insert(excluded.end(), {*begin, *end});
  if (const auto call = tokenizer.token_to_id("<|tool_call>")) excluded.push_back(*call);
  const std::string rest =
      fmt::format("ExcludeToken({})* {}", fmt::join(excluded, ", "), token(*end));
  answer.ebnf += fmt::format("tandem_thought ::= {}\n", rest);
  answer.ebnf +=
      thought == Thought::kOpen
          ? fmt::format("tandem_answer ::= tandem_thought {}\n", answer.root)
          : fmt::format("tandem_answer ::= ({} tandem_thought)? {}\n", token(*begin), answer.root);
  answer.root = "tandem_answer";
  return answer;
}

}  // namespace tandem::text
