// The text normalisation of a tokenizer.json: literal replacements and a prefix, nothing else.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

// Every occurrence of `pattern`, left to right without overlap.
std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content);

class Normalizer {
 public:
  void add_replace(std::string pattern, std::string content);  // pattern is not empty
  void add_prepend(std::string content);                       // put before text that is not empty

  std::string apply(std::string_view text) const;
  // True if no text can hold `pattern` after apply().
  bool removes(std::string_view pattern) const;

 private:
  struct Step {
    std::string pattern;  // empty: prepend
    std::string content;
  };
  std::vector<Step> steps_;
};

}  // namespace tandem::text
