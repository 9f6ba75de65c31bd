// Byte-pair encoding of normalised text: scalars become symbols, symbols merge by rank.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/merge_table.h"
#include "text/token_table.h"

namespace tandem::text {

// Work done, for tests that hold the cost to n log n without a clock.
struct MergeStats {
  uint64_t num_pieces = 0;
  uint64_t num_symbols = 0;
  uint64_t num_steps = 0;  // heap pops, or symbols looked at by the scan of a short piece
};

// Merges a run of symbols in place: lowest rank first, among equal ranks leftmost first.
class SymbolMerger {
 public:
  void merge(const MergeTable& merges, std::vector<int32_t>& symbols, MergeStats& stats);

  // Pieces up to this length are merged by scanning for the lowest rank, longer ones with a heap.
  static constexpr size_t kScanLength = 24;
  void merge_by_scan(const MergeTable& merges, std::vector<int32_t>& symbols, MergeStats& stats);
  void merge_by_heap(const MergeTable& merges, std::vector<int32_t>& symbols, MergeStats& stats);

 private:
  void push(const MergeTable& merges, const std::vector<int32_t>& symbols, uint32_t position);

  std::vector<uint32_t> ranks_;     // rank of the pair that starts at a symbol
  std::vector<uint32_t> next_;      // linked list over positions; symbols.size() ends it
  std::vector<uint32_t> previous_;  // UINT32_MAX starts it
  std::vector<uint64_t> heap_;      // rank << 32 | position, smallest first
};

class BpeModel {
 public:
  BpeModel() { byte_ids_.fill(-1); }

  void set_byte_token(uint8_t byte, int32_t id) { byte_ids_[byte] = id; }
  // The token a single scalar starts as; scalars without one become their UTF-8 bytes.
  void set_initial_token(uint32_t scalar, int32_t id);
  // Takes the merges; every merged token's text must be valid UTF-8.
  void set_merges(MergeTable merges, const TokenTable& tokens);

  // Appends the ids of `text`, which must be valid UTF-8.
  void encode(std::string_view text, std::vector<int32_t>& ids, MergeStats& stats) const;

  const MergeTable& merges() const { return merges_; }

 private:
  int32_t initial_token(uint32_t scalar) const;
  bool may_join(uint32_t left, uint32_t right) const;

  static constexpr uint32_t kNumPages = 0x110000 / 256;
  static constexpr uint32_t kNumFilterBits = 1u << 21;
  static constexpr int32_t kNoPage = -1;

  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_;
  std::vector<int32_t> page_of_ = std::vector<int32_t>(kNumPages, kNoPage);  // scalar / 256 -> page
  std::vector<std::array<int32_t, 256>> pages_;  // [page][scalar % 256] -> token or -1
  // One bit per hashed pair of neighbouring scalars inside any merged token. Where the bit is off
  // no merge can ever cross, so the text is cut there without changing the result.
  std::vector<uint64_t> joins_ = std::vector<uint64_t>(kNumFilterBits / 64);
};

}  // namespace tandem::text
