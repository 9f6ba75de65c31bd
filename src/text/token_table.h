// The strings of a vocabulary: one arena, id -> string and string -> id without per-token
// allocations (a quarter of a million tokens take about 8 MB).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text {

class TokenTable {
 public:
  // Vocabularies beyond this are refused by the loader.
  static constexpr int64_t kMaxTokens = int64_t{1} << 22;

  enum class AddResult { kAdded, kDuplicateText, kDuplicateId };

  void reserve(size_t num_tokens, size_t num_bytes);
  // id in [0, kMaxTokens); ids may come in any order and leave holes.
  AddResult add(int32_t id, std::string_view text);

  std::optional<int32_t> find(std::string_view text) const;
  // The text of `id`; empty for holes and for ids outside the table.
  std::string_view text(int32_t id) const;
  bool contains(int32_t id) const;
  int32_t size() const { return static_cast<int32_t>(spans_.size()); }  // largest id + 1
  size_t num_tokens() const { return num_tokens_; }

 private:
  struct Span {
    uint32_t offset = 0;
    uint32_t length = kHole;
  };
  // Most tokens fit into the prefix: finding one then touches a single cache line.
  struct Slot {
    uint64_t prefix = 0;  // the first eight bytes, zero-filled
    uint32_t length = 0;
    int32_t id = -1;
  };
  static constexpr uint32_t kHole = UINT32_MAX;

  size_t find_slot(std::string_view text) const;
  void grow();

  std::string arena_;
  std::vector<Span> spans_;  // [size()]
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  size_t num_tokens_ = 0;
};

}  // namespace tandem::text
