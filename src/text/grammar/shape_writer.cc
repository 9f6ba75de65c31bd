#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "text/grammar/format_pattern.h"
#include "text/grammar/number_pattern.h"
#include "text/grammar/value_grammar.h"

namespace tandem::text {

// One table's shapes as rules, each written when something first refers to it.
class ShapeWriter {
 public:
  ShapeWriter(ValueGrammar& grammar, const ShapeTable& table)
      : grammar_(grammar),
        ebnf_(grammar.ebnf_),
        table_(table),
        finite_(finite_shapes(table)),
        names_(table.shapes.size()) {}

  base::Result<std::string> run() {
    std::string name = rule(table_.root);
    while (!open_.empty()) {
      const ShapeId id = open_.back();
      open_.pop_back();
      const std::string body = std::visit(*this, table_.at(id).form);
      if (!error_.message.empty()) return tl::unexpected<base::Error>(error_);
      ebnf_.define(names_[static_cast<size_t>(id)], body);
    }
    return name;
  }

  std::string operator()(const NothingShape&) {
    TANDEM_CHECK_MSG(false, "a shape without values is written");
    return "";
  }
  std::string operator()(const AnyShape&) { return grammar_.any_value(); }
  std::string operator()(const NullShape&) { return ebnf_literal("null"); }
  std::string operator()(const BooleanShape&) {
    return ebnf_literal("true") + " | " + ebnf_literal("false");
  }
  std::string operator()(const NumberShape& number) {
    const auto pattern = number_pattern(number);
    TANDEM_CHECK(pattern.has_value());
    return pattern_ebnf(*pattern);
  }
  std::string operator()(const ConstantShape& constant) {
    return grammar_.constant(*constant.value);
  }

  std::string operator()(const StringShape& string) {
    if (string.pattern != nullptr) return with_pattern(string);
    if (string.format) {
      std::string body;
      for (const FormatPart& part : format_parts(*string.format))
        body += bounded(part.pattern, part.max_chars) + " ";
      return grammar_.quoted(body);
    }
    if (string.min_length == 0 && string.max_length < 0) return grammar_.any_string();
    if (string.max_length == 0) return grammar_.quoted(ebnf_literal(""));
    const std::string character =
        grammar_.notation_.is_json() ? json_char_pattern() : call_char_pattern();
    ebnf_.spend(string.min_length * kWideCost);
    return grammar_.quoted(
        bounded(repeat_pattern(character, string.min_length, -1), string.max_length));
  }

  std::string operator()(const ChoiceShape& choice) {
    std::vector<std::string> alternatives;
    for (const ShapeId id : choice.shapes) {
      if (!finite(id)) continue;
      std::string name = rule(id);
      if (std::ranges::find(alternatives, name) == alternatives.end())
        alternatives.push_back(std::move(name));
    }
    return any_of(alternatives);
  }

  std::string operator()(const ArrayShape& array) {
    std::vector<ShapeId> prefix = array.prefix;
    const auto stop = std::ranges::find_if(prefix, [this](ShapeId id) { return !finite(id); });
    const bool cut = stop != prefix.end();
    prefix.erase(stop, prefix.end());
    std::optional<ShapeId> items = array.items;
    if (cut || (items && !finite(*items))) items.reset();
    const auto num_prefix = static_cast<int64_t>(prefix.size());
    const int64_t most = array.max_items < 0 ? -1 : array.max_items;
    std::string tail = array_tail(items, array.min_items, most, num_prefix);
    for (int64_t i = num_prefix - 1; i >= 0; --i) {
      if (most >= 0 && i >= most) {
        tail = "\"\"";
        continue;
      }
      const std::string element = rule(prefix[static_cast<size_t>(i)]) + " " + tail;
      const std::string joined = i == 0 ? element : grammar_.separator() + " " + element;
      tail =
          array.min_items > i ? ebnf_.rule("more", joined) : ebnf_.rule("more", joined + " | \"\"");
    }
    return grammar_.list("[", tail, "]");
  }

  std::string operator()(const ObjectShape& object) {
    std::vector<ObjectShape::Property> properties = object.properties;
    // The model has seen calls with their arguments in this order.
    if (!grammar_.notation_.is_json())
      std::ranges::stable_sort(properties, {}, [](const ObjectShape::Property& property) {
        std::string lower = property.name;
        for (char& c : lower)
          if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
        return lower;
      });
    const std::string others = other_members(object);
    const std::string comma = grammar_.separator() + " ";
    std::string first =
        others.empty() ? "\"\"" : fmt::format("({} ({}{})*)?", others, comma, others);
    std::string next = others.empty() ? "\"\"" : fmt::format("({}{})*", comma, others);
    for (size_t i = properties.size(); i-- > 0;) {
      const ObjectShape::Property& property = properties[i];
      if (!finite(property.shape)) continue;
      const std::string member =
          grammar_.pair(grammar_.key_literal(property.name), rule(property.shape)) + " " + next;
      const std::string rest = property.required ? "" : " | ";
      first = ebnf_.rule("first", member + (property.required ? "" : rest + first));
      next = ebnf_.rule("next", comma + member + (property.required ? "" : rest + next));
    }
    return grammar_.list("{", first, "}");
  }

 private:
  bool finite(ShapeId id) const { return finite_[static_cast<size_t>(id)]; }

  std::string rule(ShapeId id) {
    std::string& name = names_[static_cast<size_t>(id)];
    if (name.empty()) {
      name = ebnf_.reserve("shape");
      open_.push_back(id);
    }
    return name;
  }

  // Counting is cheaper than an automaton with a state for each character.
  std::string bounded(const std::string& pattern, int64_t max_chars) {
    std::string body = pattern_ebnf(pattern);
    if (max_chars < 0) return body;
    const std::string name = ebnf_.reserve("text");
    ebnf_.define(fmt::format("{}[max_chars={}]", name, max_chars), body);
    return name;
  }

  std::string with_pattern(const StringShape& string) {
    const RegexForm form = grammar_.notation_.is_json() ? RegexForm::kJsonString : RegexForm::kText;
    auto element = regex_ebnf(ebnf_, *string.pattern, form, RegexMatch::kSearch, string.where);
    if (element) return grammar_.quoted(*element);
    error_ = std::move(element.error());
    return "";
  }

  // Elements after the first `count`, which are there.
  std::string array_tail(std::optional<ShapeId> items, int64_t min, int64_t max, int64_t count) {
    if (!items || (max >= 0 && max <= count)) return "\"\"";
    const std::string element = rule(*items);
    const std::string more = fmt::format("({} {})", grammar_.separator(), element);
    const int64_t least = std::max<int64_t>(min - count, 0);
    const int64_t most = max < 0 ? -1 : max - count;
    if (count > 0) return repeat(more, least, most);
    const std::string all = fmt::format(
        "{} {}", element,
        most == 1 ? "\"\""
                  : repeat(more, std::max<int64_t>(least - 1, 0), most < 0 ? -1 : most - 1));
    return least == 0 ? fmt::format("({})?", all) : all;
  }

  // A member that is none of the listed properties; empty when there are none.
  std::string other_members(const ObjectShape& object) {
    if (!object.others || !finite(*object.others)) return "";
    std::vector<std::string> names;
    for (const ObjectShape::Property& property : object.properties) names.push_back(property.name);
    const auto key = grammar_.other_key(names);
    if (!key) return "";
    return ebnf_.rule("other", grammar_.pair(*key, rule(*object.others)));
  }

  ValueGrammar& grammar_;
  Ebnf& ebnf_;
  const ShapeTable& table_;
  std::vector<bool> finite_;
  std::vector<std::string> names_;  // of the shapes' rules; empty: not needed yet
  std::vector<ShapeId> open_;       // named, not written
  base::Error error_;
};

base::Result<std::string> ValueGrammar::write(const ShapeTable& table) {
  return ShapeWriter(*this, table).run();
}

}  // namespace tandem::text
