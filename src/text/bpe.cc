#include "text/bpe.h"

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

constexpr uint32_t kListStart = UINT32_MAX;

uint32_t hash_join(uint32_t left, uint32_t right) {
  const uint64_t key = (static_cast<uint64_t>(left) << 32 | right) * 0x9E3779B97F4A7C15u;
  return static_cast<uint32_t>((key ^ key >> 29) * 0xBF58476D1CE4E5B9u >> 43);  // 21 bits
}

}  // namespace

void SymbolMerger::merge(const MergeTable& merges, std::vector<int32_t>& symbols,
                         MergeStats& stats) {
  ++stats.num_pieces;
  stats.num_symbols += symbols.size();
  if (symbols.size() < 2) return;
  if (symbols.size() <= kScanLength) {
    merge_by_scan(merges, symbols, stats);
  } else {
    merge_by_heap(merges, symbols, stats);
  }
}

void SymbolMerger::merge_by_scan(const MergeTable& merges, std::vector<int32_t>& symbols,
                                 MergeStats& stats) {
  size_t count = symbols.size();
  ranks_.assign(count, MergeTable::kNoRank);
  for (size_t i = 0; i + 1 < count; ++i) ranks_[i] = merges.rank(symbols[i], symbols[i + 1]);
  while (count > 1) {
    stats.num_steps += count;
    const auto end = ranks_.begin() + static_cast<ptrdiff_t>(count) - 1;
    const auto best = std::min_element(ranks_.begin(), end);
    if (*best == MergeTable::kNoRank) break;
    const auto at = static_cast<size_t>(best - ranks_.begin());
    symbols[at] = merges.merged(*best);
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
    ranks_.erase(ranks_.begin() + static_cast<ptrdiff_t>(at) + 1);
    --count;
    ranks_[at] = at + 1 < count ? merges.rank(symbols[at], symbols[at + 1]) : MergeTable::kNoRank;
    if (at > 0) ranks_[at - 1] = merges.rank(symbols[at - 1], symbols[at]);
  }
}

void SymbolMerger::push(const MergeTable& merges, const std::vector<int32_t>& symbols,
                        uint32_t position) {
  const uint32_t right = next_[position];
  uint32_t& rank = ranks_[position];
  rank =
      right < symbols.size() ? merges.rank(symbols[position], symbols[right]) : MergeTable::kNoRank;
  if (rank != MergeTable::kNoRank) heap_.push_back(static_cast<uint64_t>(rank) << 32 | position);
}

void SymbolMerger::merge_by_heap(const MergeTable& merges, std::vector<int32_t>& symbols,
                                 MergeStats& stats) {
  TANDEM_CHECK_LT(symbols.size(), size_t{UINT32_MAX});
  const auto count = static_cast<uint32_t>(symbols.size());
  ranks_.assign(count, MergeTable::kNoRank);
  next_.resize(count);
  previous_.resize(count);
  heap_.clear();
  for (uint32_t i = 0; i < count; ++i) {
    next_[i] = i + 1;
    previous_[i] = i == 0 ? kListStart : i - 1;
  }
  for (uint32_t i = 0; i < count; ++i) push(merges, symbols, i);
  const auto later = std::greater<uint64_t>();
  std::make_heap(heap_.begin(), heap_.end(), later);
  const auto push_sorted = [&](uint32_t position) {
    const size_t before = heap_.size();
    push(merges, symbols, position);
    if (heap_.size() > before) std::push_heap(heap_.begin(), heap_.end(), later);
  };
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    const auto rank = static_cast<uint32_t>(heap_.back() >> 32);
    const auto position = static_cast<uint32_t>(heap_.back());
    heap_.pop_back();
    ++stats.num_steps;
    if (ranks_[position] != rank) continue;  // the pair this entry saw is gone
    const uint32_t absorbed = next_[position];
    symbols[position] = merges.merged(rank);
    ranks_[absorbed] = MergeTable::kNoRank;
    next_[position] = next_[absorbed];
    if (next_[position] < count) previous_[next_[position]] = position;
    push_sorted(position);
    if (previous_[position] != kListStart) push_sorted(previous_[position]);
  }
  uint32_t kept = 0;
  for (uint32_t i = 0; i < count; i = next_[i]) symbols[kept++] = symbols[i];
  symbols.resize(kept);
}

void BpeModel::set_initial_token(uint32_t scalar, int32_t id) {
  int32_t& page = page_of_[scalar / 256];
  if (page == kNoPage) {
    page = static_cast<int32_t>(pages_.size());
    pages_.emplace_back().fill(-1);
  }
  pages_[static_cast<size_t>(page)][scalar % 256] = id;
}

int32_t BpeModel::initial_token(uint32_t scalar) const {
  const int32_t page = page_of_[scalar / 256];
  return page == kNoPage ? -1 : pages_[static_cast<size_t>(page)][scalar % 256];
}

bool BpeModel::may_join(uint32_t left, uint32_t right) const {
  const uint32_t bit = hash_join(left, right);
  return (joins_[bit / 64] >> (bit % 64) & 1) != 0;
}

void BpeModel::set_merges(MergeTable merges, const TokenTable& tokens) {
  merges_ = std::move(merges);
  for (uint32_t rank = 0; rank < merges_.size(); ++rank) {
    const std::string_view text = tokens.text(merges_.merged(rank));
    if (text.empty()) continue;
    Utf8Scalar left = decode_scalar(text, 0);
    for (size_t position = left.length; position < text.size();) {
      const Utf8Scalar right = decode_scalar(text, position);
      const uint32_t bit = hash_join(left.value, right.value);
      joins_[bit / 64] |= uint64_t{1} << (bit % 64);
      position += right.length;
      left = right;
    }
  }
}

void BpeModel::encode(std::string_view text, std::vector<int32_t>& ids, MergeStats& stats) const {
  SymbolMerger merger;
  std::vector<int32_t> piece;
  const auto flush = [&] {
    if (piece.empty()) return;
    merger.merge(merges_, piece, stats);
    ids.insert(ids.end(), piece.begin(), piece.end());
    piece.clear();
  };
  uint32_t left = 0;
  for (size_t position = 0; position < text.size();) {
    const Utf8Scalar scalar = decode_scalar(text, position);
    const int32_t id = initial_token(scalar.value);
    if (id < 0 || !may_join(left, scalar.value)) flush();
    if (id >= 0) {
      piece.push_back(id);
    } else {
      for (uint32_t i = 0; i < scalar.length; ++i)
        ids.push_back(byte_ids_[static_cast<uint8_t>(text[position + i])]);
    }
    left = scalar.value;
    position += scalar.length;
  }
  flush();
}

}  // namespace tandem::text
