// Writes the rules of a grammar, within a bound on their size.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

class Ebnf {
 public:
  explicit Ebnf(size_t max_bytes) : max_bytes_(max_bytes) {}

  // A name that no rule has; its body is given later, or never when nothing refers to it.
  std::string reserve(std::string_view hint);
  void define(const std::string& name, std::string_view body);
  // A rule of its own for `body`; the same body twice is one rule. Returns the name.
  std::string rule(std::string_view hint, const std::string& body);

  // Larger than allowed: nothing more is kept, and the grammar must not be used.
  bool overflowed() const { return overflowed_; }
  size_t max_bytes() const { return max_bytes_; }
  const std::string& text() const { return text_; }

 private:
  size_t max_bytes_;
  size_t num_names_ = 0;
  bool overflowed_ = false;
  std::string text_;
  std::vector<std::pair<std::string, std::string>> known_;  // body, name; sorted
};

// The alternatives between `|`, in parentheses when there are many. At least one.
std::string any_of(const std::vector<std::string>& alternatives);
// `item{min,max}`; max < 0: no bound. `item` is one element or in parentheses.
std::string repeat(const std::string& item, long long min, long long max);

}  // namespace tandem::text
