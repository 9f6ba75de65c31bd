// Added tokens: strings that are cut out of the text before the BPE sees it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::text {

// Finds the longest of a set of strings at a place in the text.
class TokenTrie {
 public:
  TokenTrie() { root_.fill(0); }

  struct Match {
    int32_t id = -1;
    size_t length = 0;
  };

  void add(std::string_view text, int32_t id);  // text is not empty
  bool empty() const { return nodes_.empty(); }
  // The longest string that starts at `position`; length 0 if none does.
  Match longest_at(std::string_view text, size_t position) const;

 private:
  struct Node {
    int32_t id = -1;
    std::vector<std::pair<uint8_t, uint32_t>> children;  // byte -> node + 1
  };
  uint32_t child(uint32_t node, uint8_t byte) const;  // 0 if none

  std::array<uint32_t, 256> root_;  // first byte -> node + 1
  std::vector<Node> nodes_;
};

}  // namespace tandem::text
