// Writes the rules of a grammar, within a bound on their size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::text {

class Ebnf {
 public:
  // No more text than this, and no more work to prepare it (kWideCost in regex.h says of what).
  // Names begin with `prefix`: grammars of different ones can be put together.
  Ebnf(size_t max_bytes, int64_t max_cost, std::string prefix)
      : prefix_(std::move(prefix)), max_bytes_(max_bytes), left_(max_cost) {}

  // A name that no rule has; its body is given later, or never when nothing refers to it.
  std::string reserve(std::string_view hint);
  void define(const std::string& name, std::string_view body);
  // A rule of its own for `body`; the same body twice is one rule. Returns the name.
  std::string rule(std::string_view hint, const std::string& body);

  void spend(int64_t cost) { left_ -= cost; }
  // Larger than allowed: nothing more is kept, and the grammar must not be used.
  bool overflowed() const { return overflowed_ || left_ < 0; }
  const std::string& text() const { return text_; }

 private:
  std::string prefix_;
  size_t max_bytes_;
  size_t num_names_ = 0;
  int64_t left_;
  bool overflowed_ = false;
  std::string text_;
  std::vector<std::pair<std::string, std::string>> known_;  // body, name; sorted
};

// The alternatives between `|`, in parentheses when there are many. At least one.
std::string any_of(const std::vector<std::string>& alternatives);
// `item{min,max}`; max < 0: no bound. `item` is one element or in parentheses.
std::string repeat(const std::string& item, int64_t min, int64_t max);

}  // namespace tandem::text
