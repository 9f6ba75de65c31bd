// Attention at real sizes and in batches, where thread blocks take several items each.
#include <cstring>
#include <string>
#include <vector>

#include "tests/gpu/attention_run.h"

namespace tandem::ops::test {
namespace {

// Over a cache of BF16, or of E4M3.
class GpuAttentionLong : public testing::TestWithParam<bool> {
 protected:
  static Heads heads(int num_heads, int num_kv_heads, int head_dim) {
    return {num_heads, num_kv_heads, head_dim, GetParam()};
  }
};
INSTANTIATE_TEST_SUITE_P(Caches, GpuAttentionLong, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "E4m3" : "Bf16");
});

// The 12B's window of 1,024 keys in a ring, at its real size: 9 or 10 segments.
TEST_P(GpuAttentionLong, SlidingWindowOf1024) {
  Cache cache(heads(16, 8, 256), {32, 1024 + 64, 1024, {1500}});
  cache.write_random(12);
  expect_like_reference(cache, consecutive(0, 1491, 5));
}

// Row `r` of the batch that gave `all`, as its only row.
void expect_bits_alone(const Cache& cache, const std::vector<RowSpec>& rows, const Tensor& q,
                       const std::vector<uint16_t>& all, size_t r, const Options& options = {}) {
  const auto columns = static_cast<size_t>(q.cols());
  Tensor one(DType::kBF16, {1, cache.heads().num_heads, cache.heads().head_dim});
  std::memcpy(one.view().data, q.view().row<BFloat16>(static_cast<int64_t>(r)), columns * 2);
  const auto alone = run(cache, {rows[r]}, one, options);
  for (size_t i = 0; i < columns; ++i)
    ASSERT_EQ(alone[i], all[r * columns + i]) << "row " << r << " column " << i;
}

// Four sequences at once, each of which alone would leave most of the device idle.
TEST_P(GpuAttentionLong, BitsInABatchAreThoseAlone) {
  Cache cache(heads(16, 8, 256), {32, 1024 + 64, 1024, {1500, 1400, 1300, 1200}});
  cache.write_random(14);
  std::vector<RowSpec> rows;
  for (int s = 0; s < 4; ++s)
    for (const RowSpec& row : consecutive(s, 1480 - 100 * s, 8)) rows.push_back(row);
  const Tensor q = random_queries(cache.heads(), rows.size(), 15);
  const auto all = run(cache, rows, q);
  for (const size_t r : {3, 12, 31}) expect_bits_alone(cache, rows, q, all, r);
}

// Lists of more than eight items for each thread block, which then draw some; each launch leaves
// the next one its beginning.
TEST_P(GpuAttentionLong, DrawnItemsHaveTheBitsOfShares) {
  const std::vector<int> lengths = {1500, 1400, 1345};
  Cache cache(heads(16, 8, 256), {32, 1024 + 64, 1024, lengths});
  cache.write_random(26);
  std::vector<RowSpec> rows;
  for (int s = 0; s < 3; ++s)
    for (const RowSpec& row : consecutive(s, lengths[static_cast<size_t>(s)] - 42, 42))
      rows.push_back(row);
  const Tensor q = random_queries(cache.heads(), rows.size(), 27);
  const auto shares = run(cache, rows, q, {.empty_tile = false});
  expect_near(shares, cache, rows, q);
  for (const int most : {1, 5, cuda::kTileRows})
    for (const bool early : {false, true})
      EXPECT_TRUE(
          run(cache, rows, q,
              {.max_tile_rows = most, .early_plan = early, .empty_tile = false, .draws = true}) ==
          shares)
          << "tiles of " << most << ", early plan " << early;
}

// Rows 1 to 8 of a sequence, more segments than thread blocks: each block takes several, of
// different numbers of rows.
TEST_P(GpuAttentionLong, FullLayerBitsInABatchAreThoseAlone) {
  const std::vector<int> lengths = {2900, 1900, 3500, 1100, 2600, 2100, 1500, 1700};
  Cache cache(heads(16, 4, 512), {32, 0, 0, lengths});
  cache.write_random(16);
  std::vector<RowSpec> rows;
  for (int s = 0; s < 8; ++s)
    for (const RowSpec& row : consecutive(s, lengths[static_cast<size_t>(s)] - s - 1, s + 1))
      rows.push_back(row);
  const Tensor q = random_queries(cache.heads(), rows.size(), 17);
  const auto all = run(cache, rows, q);
  expect_near(all, cache, rows, q);
  Options early;
  early.early_plan = true;
  EXPECT_TRUE(run(cache, rows, q, early) == all) << "early plan";
  early.draws = true;
  EXPECT_TRUE(run(cache, rows, q, early) == all) << "with a counter";
  // One row of each: items of 16 pairs, several for a thread block.
  std::vector<RowSpec> newest;
  Tensor newest_q(DType::kBF16, {8, 16, 512});
  std::vector<uint16_t> newest_bits;
  for (int s = 0, row = 0; s < 8; ++s) {
    row += s;  // the last row of s
    newest.push_back(rows[static_cast<size_t>(row)]);
    std::memcpy(newest_q.view().row<BFloat16>(s), q.view().row<BFloat16>(row), 8192 * 2);
    newest_bits.insert(newest_bits.end(), all.begin() + row * 8192, all.begin() + (row + 1) * 8192);
    ++row;
  }
  for (const bool empty : {false, true})
    EXPECT_TRUE(run(cache, newest, newest_q,
                    {.early_plan = true, .empty_tile = empty, .draws = true}) == newest_bits)
        << "one row of each, empty tile " << empty;
  for (const size_t r : {2, 12, 35}) {
    early.early_plan = r != 12;
    expect_bits_alone(cache, rows, q, all, r, early);
  }
}

// 5 to 40 segments of many rows, as each row alone has them.
TEST_P(GpuAttentionLong, ManyRowsOverManySegments) {
  const std::vector<int> lengths = {9960, 4360, 8300, 1200};
  Cache cache(heads(16, 2, 512), {32, 0, 0, lengths});
  cache.write_random(28);
  std::vector<RowSpec> rows;
  for (int s = 0; s < 4; ++s)
    for (const RowSpec& row : consecutive(s, lengths[static_cast<size_t>(s)] - 6, 5))
      rows.push_back(row);
  const Tensor q = random_queries(cache.heads(), rows.size(), 29);
  const auto all = run(cache, rows, q, {.early_plan = true, .draws = true});
  for (const size_t r : {0, 4, 7, 11, 19}) expect_bits_alone(cache, rows, q, all, r);
}

// As many rows as a pass can have, of as many sequences.
TEST_P(GpuAttentionLong, OneRowOfEachOf192Sequences) {
  std::vector<int> lengths;
  std::vector<RowSpec> rows;
  for (int s = 0; s < 192; ++s) {
    lengths.push_back(1 + s * 5);
    rows.push_back({s, s * 5});
  }
  Cache cache(heads(4, 2, 64), {16, 0, 0, lengths});
  cache.write_random(18);
  expect_like_reference(cache, rows);
}

TEST_P(GpuAttentionLong, FullLayerOverManySegments) {
  Cache cache(heads(4, 1, 512), {32, 0, 0, {9000}});
  cache.write_random(13);
  expect_like_reference(cache, consecutive(0, 8998, 2));
}

// More than 64 segments have a second kernel of their own, and where there is room for so many,
// rows with fewer have it too.
TEST_P(GpuAttentionLong, FarRowsHaveTheBitsOfNearOnes) {
  Cache cache(heads(4, 1, 512), {32, 0, 0, {18000, 300, 9000}});
  cache.write_random(31);
  expect_like_reference(cache, consecutive(0, 17998, 2));
  std::vector<RowSpec> rows = consecutive(2, 8990, 5);
  rows.push_back({1, 299});
  const Tensor q = random_queries(cache.heads(), rows.size(), 32);
  const auto near = run(cache, rows, q);
  for (const bool early : {false, true})
    EXPECT_TRUE(run(cache, rows, q, {.extra_segments = 100, .early_plan = early}) == near)
        << "early plan " << early;
}

}  // namespace
}  // namespace tandem::ops::test
