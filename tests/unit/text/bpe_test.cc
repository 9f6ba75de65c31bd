#include "text/bpe.h"

#include <gtest/gtest.h>

#include <random>

#include "text/utf8.h"

namespace tandem::text {
namespace {

using Ids = std::vector<int32_t>;

// Random merges over a small alphabet: every pair of tokens may merge into a new one.
MergeTable random_merges(std::mt19937& random, int32_t alphabet, int32_t num_merges) {
  MergeTable merges;
  for (int32_t merged = alphabet; merged < alphabet + num_merges; ++merged) {
    std::uniform_int_distribution<int32_t> part(0, merged - 1);
    merges.append(part(random), part(random), merged);
  }
  return merges;
}

// The rule itself, one merge at a time over the whole list.
Ids merge_slowly(const MergeTable& merges, Ids symbols) {
  while (true) {
    uint32_t best = MergeTable::kNoRank;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const uint32_t rank = merges.rank(symbols[i], symbols[i + 1]);
      if (rank < best) best = rank, at = i;
    }
    if (best == MergeTable::kNoRank) return symbols;
    symbols[at] = merges.merged(best);
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

TEST(SymbolMerger, HeapAndScanFollowTheRule) {
  std::mt19937 random(7);
  SymbolMerger merger;
  for (int round = 0; round < 2000; ++round) {
    const int32_t alphabet = 2 + round % 3;
    const MergeTable merges = random_merges(random, alphabet, 1 + round % 40);
    Ids symbols(static_cast<size_t>(round % 90));
    for (int32_t& symbol : symbols)
      symbol = static_cast<int32_t>(random() % static_cast<uint32_t>(alphabet));
    const Ids expected = merge_slowly(merges, symbols);
    Ids by_heap = symbols, by_scan = symbols;
    MergeStats stats;
    merger.merge_by_heap(merges, by_heap, stats);
    merger.merge_by_scan(merges, by_scan, stats);
    ASSERT_EQ(by_heap, expected) << round;
    ASSERT_EQ(by_scan, expected) << round;
  }
}

TEST(MergeTable, LastRankOfAPairCountsAndNegativeIdsAreHoles) {
  MergeTable merges;
  merges.append(1, 2, 3);
  merges.append(2, 1, -1);
  merges.append(1, 2, 3);
  EXPECT_EQ(merges.rank(1, 2), 2u);
  EXPECT_EQ(merges.rank(2, 1), MergeTable::kNoRank);
  EXPECT_EQ(merges.size(), 3u);
  EXPECT_EQ(MergeTable().rank(0, 0), MergeTable::kNoRank);
}

TEST(TokenTable, FindsWhatWasAdded) {
  TokenTable table;
  for (int32_t id = 0; id < 5000; ++id)
    EXPECT_EQ(table.add(3 * id, "token" + std::to_string(id)), TokenTable::AddResult::kAdded);
  EXPECT_EQ(table.add(6, "x"), TokenTable::AddResult::kDuplicateId);
  EXPECT_EQ(table.add(7, "token2"), TokenTable::AddResult::kDuplicateText);
  EXPECT_EQ(table.size(), 3 * 4999 + 1);
  EXPECT_EQ(table.num_tokens(), 5000u);
  for (int32_t id = 0; id < 5000; ++id) {
    EXPECT_EQ(table.find("token" + std::to_string(id)), 3 * id);
    EXPECT_EQ(table.text(3 * id), "token" + std::to_string(id));
    EXPECT_FALSE(table.contains(3 * id + 1));
  }
  EXPECT_EQ(table.find("token"), std::nullopt);
  EXPECT_EQ(TokenTable().find(""), std::nullopt);
}

TEST(Utf8, RoundTripAndReplacement) {
  for (uint32_t scalar = 0; scalar < 0x110000; scalar += scalar < 0x3000 ? 1 : 37) {
    if (scalar >= 0xD800 && scalar <= 0xDFFF) continue;
    std::string text;
    append_scalar(text, scalar);
    const Utf8Scalar decoded = decode_scalar(text, 0);
    ASSERT_TRUE(decoded.valid && decoded.value == scalar && decoded.length == text.size());
    for (size_t size = 1; size < text.size(); ++size)
      ASSERT_TRUE(is_partial_scalar(text.substr(0, size)));
    ASSERT_FALSE(is_partial_scalar(text));
  }
  const std::string fffd(kReplacementCharacter);
  // Left: bytes; right: what Python's decode("utf-8", "replace") gives for them.
  EXPECT_EQ(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"),
            fffd + fffd + fffd + fffd + "A");
  EXPECT_EQ(replace_invalid_utf8("\xC0\xAF\xF4\x90\x80\x80\xED\xBF\xBF"),
            fffd + fffd + fffd + fffd + fffd + fffd + fffd + fffd + fffd);
  EXPECT_FALSE(is_valid_utf8("plain text and then \x80"));
  EXPECT_TRUE(is_valid_utf8("plain text and then \xC3\xA9"));
}

}  // namespace
}  // namespace tandem::text
