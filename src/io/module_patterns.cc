#include "io/module_patterns.h"

#include <algorithm>

namespace tandem::io {
namespace {

constexpr std::string_view kRegexPrefix = "re:";

bool is_inside(std::string_view name, std::string_view parent) {
  return name.size() > parent.size() && name.starts_with(parent) && name[parent.size()] == '.';
}

// Whether `c` is in the set after '['; moves `next` past the ']'. Without a ']' it is a plain '['.
bool matches_set(std::string_view pattern, size_t begin, char c, size_t& next) {
  size_t i = begin + 1;
  const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (negated) ++i;
  const size_t close = pattern.find(']', i + 1);
  if (close == std::string_view::npos) {
    next = begin + 1;
    return c == '[';
  }
  bool found = false;
  while (i < close) {
    if (i + 2 < close && pattern[i + 1] == '-') {
      found = found || (pattern[i] <= c && c <= pattern[i + 2]);
      i += 3;
    } else {
      found = found || pattern[i] == c;
      ++i;
    }
  }
  next = close + 1;
  return found != negated;
}

// One regular-expression atom: a character, an escaped one, or "." for any.
struct Atom {
  char character = 0;
  bool any = false;
  char repeat = 0;  // '*', '+', '?' or 0 for exactly one
};

struct Regex {
  std::vector<Atom> atoms;
  bool to_end = false;
};

// Nothing when the expression uses more than this file understands.
std::vector<Atom> parse_atoms(std::string_view text, bool& understood) {
  std::vector<Atom> atoms;
  understood = true;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '*' || c == '+' || c == '?') {
      understood = understood && !atoms.empty() && atoms.back().repeat == 0;
      if (!atoms.empty()) atoms.back().repeat = c;
    } else if (c == '\\') {
      const char escaped = i + 1 < text.size() ? text[++i] : 'a';
      // \d, \w and other letters are classes, not characters.
      understood =
          understood && std::string_view(".-_*+?^$\\/").find(escaped) != std::string_view::npos;
      atoms.push_back({.character = escaped});
    } else if (std::string_view("[](){}|^$").find(c) != std::string_view::npos) {
      understood = false;
    } else {
      atoms.push_back({.character = c, .any = c == '.'});
    }
  }
  return atoms;
}

Regex parse_regex(std::string_view text, bool& understood) {
  Regex regex;
  if (text.starts_with('^')) text.remove_prefix(1);
  if (text.ends_with('$') && !text.ends_with("\\$")) {
    regex.to_end = true;
    text.remove_suffix(1);
  }
  regex.atoms = parse_atoms(text, understood);
  return regex;
}

}  // namespace

std::vector<std::string> module_spellings(std::string_view canonical_module) {
  std::vector<std::string> names;
  for (const std::string_view prefix :
       {"", "model.", "language_model.", "model.language_model.", "language_model.model."})
    names.push_back(std::string(prefix) + std::string(canonical_module));
  return names;
}

bool matches_wildcard(std::string_view pattern, std::string_view name) {
  size_t p = 0;
  size_t n = 0;
  size_t star = std::string_view::npos;  // place of the last '*', and how much it has taken
  size_t star_name = 0;
  while (n < name.size()) {
    size_t next = p + 1;
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_name = n;
    } else if (p < pattern.size() &&
               (pattern[p] == '?' || (pattern[p] == '[' ? matches_set(pattern, p, name[n], next)
                                                        : pattern[p] == name[n]))) {
      p = next;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

base::Status check_regex(std::string_view expression, const std::string& where) {
  bool understood = true;
  parse_regex(expression, understood);
  if (understood) return {};
  return base::unsupported(
      "{}: expected a name, or \"re:\" with literals, '.', '*', '+', '?', '^' and '$', got "
      "\"re:{}\"",
      where, expression);
}

bool matches_regex(std::string_view expression, std::string_view name) {
  bool understood = true;
  const Regex regex = parse_regex(expression, understood);
  // reach[i]: the atoms so far can match exactly the first i characters.
  std::vector<bool> reach(name.size() + 1, false);
  reach[0] = true;
  for (const Atom& atom : regex.atoms) {
    std::vector<bool> after(name.size() + 1, false);
    const bool repeats = atom.repeat == '*' || atom.repeat == '+';
    if (atom.repeat == '*' || atom.repeat == '?') after = reach;
    for (size_t i = 0; i < name.size(); ++i)
      if ((reach[i] || (repeats && after[i])) && (atom.any || atom.character == name[i]))
        after[i + 1] = true;
    reach = std::move(after);
  }
  return regex.to_end ? reach[name.size()]
                      : std::find(reach.begin(), reach.end(), true) != reach.end();
}

ModulePatterns ModulePatterns::modelopt(std::vector<std::string> entries) {
  ModulePatterns patterns;
  patterns.entries_ = std::move(entries);
  // Only compressed-tensors has expressions; here the prefix is part of a name.
  std::erase_if(patterns.entries_,
                [](const std::string& entry) { return entry.starts_with(kRegexPrefix); });
  return patterns;
}

base::Result<ModulePatterns> ModulePatterns::compressed(std::vector<std::string> entries,
                                                        const std::string& where) {
  for (const std::string& entry : entries)
    if (entry.starts_with(kRegexPrefix))
      TANDEM_RETURN_IF_ERROR(
          check_regex(std::string_view(entry).substr(kRegexPrefix.size()), where));
  ModulePatterns patterns;
  patterns.entries_ = std::move(entries);
  return patterns;
}

bool ModulePatterns::entry_matches(const std::string& entry, std::string_view name) const {
  if (entry.starts_with(kRegexPrefix))
    return matches_regex(std::string_view(entry).substr(kRegexPrefix.size()), name);
  if (entry == name || is_inside(name, entry)) return true;
  const std::string_view prefix = std::string_view(entry).substr(0, entry.size() - 1);
  const bool plain_prefix = entry.ends_with('*') && !prefix.empty() && !prefix.ends_with('.') &&
                            prefix.find_first_of("*?[") == std::string_view::npos;
  if (plain_prefix) return name == prefix || is_inside(name, prefix);
  return matches_wildcard(entry, name);
}

bool ModulePatterns::matches(std::string_view canonical_module) const {
  return !matching_entry(canonical_module).empty();
}

std::string ModulePatterns::matching_entry(std::string_view canonical_module) const {
  const auto names = module_spellings(canonical_module);
  for (const std::string& entry : entries_)
    for (const std::string& name : names)
      if (entry_matches(entry, name)) return entry;
  return {};
}

}  // namespace tandem::io
