#include "text/grammar/ebnf.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace tandem::text {

std::string Ebnf::reserve(std::string_view hint) {
  return fmt::format("{}{}_{}", prefix_, hint, num_names_++);
}

void Ebnf::define(const std::string& name, std::string_view body) {
  if (text_.size() + name.size() + body.size() > max_bytes_) overflowed_ = true;
  if (overflowed_) return;
  text_ += fmt::format("{} ::= {}\n", name, body);
}

std::string Ebnf::rule(std::string_view hint, const std::string& body) {
  const auto place =
      std::ranges::lower_bound(known_, body, {}, [](const auto& entry) { return entry.first; });
  if (place != known_.end() && place->first == body) return place->second;
  std::string name = reserve(hint);
  define(name, body);
  if (!overflowed_) known_.insert(place, {body, name});
  return name;
}

std::string any_of(const std::vector<std::string>& alternatives) {
  TANDEM_CHECK(!alternatives.empty());
  if (alternatives.size() == 1) return alternatives.front();
  return fmt::format("({})", fmt::join(alternatives, " | "));
}

std::string repeat(const std::string& item, int64_t min, int64_t max) {
  if (min == 0 && max < 0) return item + "*";
  if (min == 1 && max < 0) return item + "+";
  if (min == 1 && max == 1) return item;
  if (max < 0) return fmt::format("{}{{{},}}", item, min);
  if (min == max) return fmt::format("{}{{{}}}", item, min);
  return fmt::format("{}{{{},{}}}", item, min, max);
}

}  // namespace tandem::text
