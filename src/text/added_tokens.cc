#include "text/added_tokens.h"

#include "base/check.h"

namespace tandem::text {

uint32_t TokenTrie::child(uint32_t node, uint8_t byte) const {
  for (const auto& [key, next] : nodes_[node - 1].children) {
    if (key == byte) return next;
  }
  return 0;
}

void TokenTrie::add(std::string_view text, int32_t id) {
  TANDEM_CHECK(!text.empty());
  const auto new_node = [&] {
    nodes_.emplace_back();
    return static_cast<uint32_t>(nodes_.size());
  };
  uint32_t& first = root_[static_cast<uint8_t>(text[0])];
  if (first == 0) first = new_node();
  uint32_t node = first;
  for (const char c : text.substr(1)) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = child(node, byte);
    if (next == 0) {
      next = new_node();
      nodes_[node - 1].children.emplace_back(byte, next);
    }
    node = next;
  }
  nodes_[node - 1].id = id;
}

TokenTrie::Match TokenTrie::longest_at(std::string_view text, size_t position) const {
  Match best;
  uint32_t node = root_[static_cast<uint8_t>(text[position])];
  for (size_t length = 1; node != 0; ++length) {
    if (nodes_[node - 1].id >= 0) best = {nodes_[node - 1].id, length};
    if (position + length >= text.size()) break;
    node = child(node, static_cast<uint8_t>(text[position + length]));
  }
  return best;
}

}  // namespace tandem::text
