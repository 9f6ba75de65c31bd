#include "text/grammar/value_grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "text/grammar/number_pattern.h"

namespace tandem::text {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxTrieBytes = 4096;

const CharSet& key_characters() {
  static const CharSet kSet({{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
  return kSet;
}

bool is_bare_key(std::string_view name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) {
    return c == '-' || c == '.' || c == '$' || key_characters().has(static_cast<unsigned char>(c));
  });
}

}  // namespace

ValueGrammar::ValueGrammar(Ebnf& ebnf, Notation notation) : ebnf_(ebnf), notation_(notation) {
  if (notation_.is_json())
    space_ = ebnf_.rule("space", pattern_ebnf(fmt::format("(?:|[ ]|{}[ {}]{{0,32}})",
                                                          pattern_char('\n'), pattern_char('\t'))));
}

// A string around what `element` produces.
std::string ValueGrammar::quoted(const std::string& element) const {
  const std::string quote =
      notation_.is_json() ? ebnf_literal("\"") : fmt::format("Token({})", *notation_.quote_id);
  return fmt::format("{0} {1} {0}", quote, element);
}

std::string ValueGrammar::literal_string(std::string_view text) const {
  if (notation_.is_json())
    return ebnf_literal(
        ordered_json(text).dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  return quoted(ebnf_literal(text));
}

std::string ValueGrammar::key_literal(std::string_view name) const {
  if (!notation_.is_json() && is_bare_key(name)) return ebnf_literal(name);
  return literal_string(name);
}

std::string ValueGrammar::space() const {
  return notation_.is_json() ? fmt::format(" {} ", space_) : std::string(1, ' ');
}

std::string ValueGrammar::separator() const {
  return fmt::format("\",\"{}", space());
}

std::string ValueGrammar::any_string() {
  const std::string character = notation_.is_json() ? json_char_pattern() : call_char_pattern();
  return ebnf_.rule("string", quoted(pattern_ebnf(character + "*")));
}

std::string ValueGrammar::list(const std::string& open, const std::string& elements,
                               const std::string& close) {
  return ebnf_literal(open) + space() + elements + space() + ebnf_literal(close);
}

std::string ValueGrammar::pair(const std::string& key, const std::string& value) const {
  return fmt::format("{} \":\"{}{}", key, space(), value);
}

std::string ValueGrammar::any_value() {
  if (!any_value_.empty()) return any_value_;
  any_value_ = ebnf_.reserve("value");
  const std::string item = any_value_;
  const std::string array =
      ebnf_.rule("array", list("[", fmt::format("({0} ({1} {0})*)?", item, separator()), "]"));
  const std::string number = ebnf_.rule("number", pattern_ebnf(*number_pattern({})));
  ebnf_.define(any_value_, any_of({any_object(), array, any_string(), number, ebnf_literal("true"),
                                   ebnf_literal("false"), ebnf_literal("null")}));
  return any_value_;
}

std::string ValueGrammar::any_object() {
  const std::string key = notation_.is_json() ? any_string() : *other_key({});
  const std::string member = ebnf_.rule("member", pair(key, any_value()));
  return ebnf_.rule("object",
                    list("{", fmt::format("({0} ({1} {0})*)?", member, separator()), "}"));
}

// Characters of names are letters, digits and underscores here, so that a name is compared with the
// others character by character: a tree of them, with a way out where they differ.
std::optional<std::string> ValueGrammar::other_key(const std::vector<std::string>& names) {
  if (names.empty() && notation_.is_json()) return any_string();
  struct Node {
    std::map<char, Node> next;
    bool is_name = false;
  };
  Node root;
  size_t size = 0;
  for (const std::string& name : names) {
    const bool reachable = std::ranges::all_of(
        name, [](char c) { return key_characters().has(static_cast<unsigned char>(c)); });
    if (!reachable) continue;
    size += name.size();
    if (size > kMaxTrieBytes) return std::nullopt;
    Node* node = &root;
    for (const char c : name) node = &node->next[c];
    node->is_name = true;
  }
  const auto write = [](const auto& self, const Node& node, bool at_start) -> std::string {
    CharSet others = key_characters();
    std::vector<std::string> choices;
    for (const auto& [c, next] : node.next) {
      others = others - CharSet::of(std::string_view(&c, 1));
      choices.push_back(pattern_char(static_cast<unsigned char>(c)) + self(self, next, false));
    }
    if (!others.empty()) choices.push_back(others.pattern() + key_characters().pattern() + "*");
    if (!node.is_name && !at_start) choices.emplace_back();
    return fmt::format("(?:{})", fmt::join(choices, "|"));
  };
  const std::string element = pattern_ebnf(write(write, root, true));
  return ebnf_.rule("key", notation_.is_json() ? quoted(element) : element);
}

std::string ValueGrammar::constant(const ordered_json& value) {
  if (value.is_string()) return literal_string(value.get_ref<const std::string&>());
  if (!value.is_structured()) return ebnf_literal(value.dump());
  std::vector<std::string> elements;
  for (const auto& [key, item] : value.items())
    elements.push_back(value.is_array() ? constant(item) : pair(key_literal(key), constant(item)));
  const std::string text = fmt::format("{}", fmt::join(elements, fmt::format(" {} ", separator())));
  return value.is_array() ? list("[", text, "]") : list("{", text, "}");
}

}  // namespace tandem::text
