// Attention against ops/reference, with everything that must not be read poisoned, and the promise
// that a row's bits do not depend on the rows beside it.
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/e4m3.h"
#include "tests/gpu/attention_run.h"

namespace tandem::ops::test {
namespace {

class GpuAttention : public testing::TestWithParam<Heads> {};

// 12B, 31B and E4B groups, both types; the demo pair's sizes; groups that are no power of two.
INSTANTIATE_TEST_SUITE_P(Shapes, GpuAttention,
                         testing::Values(Heads{2, 1, 32}, Heads{4, 4, 32}, Heads{6, 2, 64},
                                         Heads{8, 1, 64}, Heads{5, 1, 128}, Heads{16, 8, 256},
                                         Heads{8, 2, 256}, Heads{8, 1, 256}, Heads{16, 1, 512},
                                         Heads{8, 1, 512}, Heads{4, 2, 512}, Heads{3, 1, 512},
                                         Heads{4, 4, 32, true}, Heads{6, 2, 64, true},
                                         Heads{5, 1, 128, true}, Heads{16, 8, 256, true},
                                         Heads{8, 1, 256, true}, Heads{16, 1, 512, true},
                                         Heads{4, 2, 512, true}, Heads{3, 1, 512, true}),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(GpuAttention, PagesOfSeveralLengthsAndRowCounts) {
  Cache cache(GetParam(), {16, 0, 0, {1, 5, 64, 70, 300, 513}});
  cache.write_random(3);
  std::vector<RowSpec> rows = {{0, 0}};  // one key
  for (const RowSpec& row : consecutive(1, 2, 3)) rows.push_back(row);
  rows.push_back({2, 63});                                               // exactly one segment
  for (const RowSpec& row : consecutive(3, 62, 8)) rows.push_back(row);  // across its border
  for (const RowSpec& row : consecutive(4, 295, 5)) rows.push_back(row);
  for (const RowSpec& row : consecutive(5, 509, 4)) rows.push_back(row);  // across 512
  expect_like_reference(cache, rows);
}

TEST_P(GpuAttention, RingWithAWindowThatWraps) {
  Cache cache(GetParam(), {8, 96, 70, {3, 69, 71, 150, 401}});
  cache.write_random(4);
  std::vector<RowSpec> rows = consecutive(0, 0, 3);
  for (const RowSpec& row : consecutive(1, 66, 3)) rows.push_back(row);
  for (const RowSpec& row : consecutive(2, 68, 3)) rows.push_back(row);  // the window fills up
  for (const RowSpec& row : consecutive(3, 142, 8)) rows.push_back(row);
  for (const RowSpec& row : consecutive(4, 396, 5)) rows.push_back(row);
  expect_like_reference(cache, rows);
}

// A few keys decide everything: those at the edges of rows' ranges and of segments, visible or not.
// Each visible one adds 1 / count of a distinct value, so that one key too many or too few shows.
TEST_P(GpuAttention, NoKeyTooManyAndNoneTooFew) {
  for (const int window : {0, 130}) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    Cache cache(GetParam(), {16, window == 0 ? 0 : 192, window, {540}});
    std::vector<RowSpec> rows = consecutive(0, 508, 8);
    std::vector<bool> planted(540);
    for (const int key :
         {0, 63, 64, 127, 128, 191, 192, 255, 256, 319, 320, 383, 384, 447, 448, 511, 512})
      planted[static_cast<size_t>(key)] = true;
    for (int i = -2; i < 10; ++i) {
      planted[static_cast<size_t>(508 + i)] = true;
      if (window > 0) planted[static_cast<size_t>(508 - window + 1 + i)] = true;
    }
    const int dim = GetParam().head_dim;
    const float component = std::sqrt(30.0F / static_cast<float>(dim));
    std::mt19937 random(23);
    std::uniform_real_distribution<float> uniform(1.0F, 3.0F);
    for (int p = 0; p < 540; ++p) {
      const bool chosen = planted[static_cast<size_t>(p)];
      cache.write(
          0, p, [&](int, int c) { return chosen ? component * (c % 3 == 0 ? 1.0F : -1.0F) : 0.0F; },
          [&](int, int) { return chosen ? uniform(random) * (p % 2 == 0 ? 1.0F : -1.0F) : 99.0F; });
    }
    Tensor q(DType::kBF16, {8, GetParam().num_heads, dim});
    for (int64_t r = 0; r < 8; ++r)
      for (int64_t c = 0; c < q.cols(); ++c)
        store(q, r, c, component * (c % dim % 3 == 0 ? 1.0F : -1.0F));
    expect_near(run(cache, rows, q), cache, rows, q);
  }
}

TEST_P(GpuAttention, RowsWithoutKeysAndPaddingAreZero) {
  Cache cache(GetParam(), {16, 0, 0, {40, 7}});
  cache.write_random(6);
  const std::vector<RowSpec> rows = {{0, -1}, {0, -3}, {0, 12}, {1, -1}};
  const Tensor q = random_queries(GetParam(), rows.size(), 2);
  const auto got = run(cache, rows, q);
  const auto columns = static_cast<size_t>(q.cols());
  for (size_t i = 0; i < 8 * columns; ++i)
    ASSERT_TRUE(i / columns == 2 || got[i] == 0)
        << "row " << i / columns << " column " << i % columns << ": got bits " << got[i];
  expect_near(got, cache, rows, q);
}

// Alone, in tiles cut elsewhere, among 64 rows of three sequences, with more segments than needed.
TEST_P(GpuAttention, BitsOfARowDoNotDependOnItsCompany) {
  for (const int window : {0, 100}) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    Cache cache(GetParam(), {16, window == 0 ? 0 : 176, window, {300, 600, 40}});
    cache.write_random(8);
    std::vector<RowSpec> rows = consecutive(0, 252, 8);  // across 256
    for (const RowSpec& row : consecutive(1, 536, 48)) rows.push_back(row);
    for (const RowSpec& row : consecutive(2, 32, 8)) rows.push_back(row);
    ASSERT_EQ(rows.size(), size_t{64});
    const Tensor q = random_queries(GetParam(), rows.size(), 9);
    const auto all = run(cache, rows, q);
    const auto columns = static_cast<size_t>(q.cols());
    const auto compare = [&](const std::vector<uint16_t>& got, size_t first, size_t count,
                             const std::string& how) {
      for (size_t i = 0; i < count * columns; ++i)
        ASSERT_EQ(got[i], all[first * columns + i])
            << how << ": row " << first + i / columns << " column " << i % columns;
    };
    Options three;
    three.max_tile_rows = 3;
    three.extra_segments = 5;
    compare(run(cache, rows, q, three), 0, 64, "tiles of 3");
    Options ordered;
    ordered.dependent = false;
    compare(run(cache, rows, q, ordered), 0, 64, "no dependent launch");
    Options early;
    early.early_plan = true;
    compare(run(cache, rows, q, early), 0, 64, "early plan");
    for (const size_t r : {0, 3, 4, 7, 8, 25, 55, 56, 63}) {
      Tensor one(DType::kBF16, {1, GetParam().num_heads, GetParam().head_dim});
      std::memcpy(one.view().data, q.view().row<BFloat16>(static_cast<int64_t>(r)), columns * 2);
      Options options;
      options.extra_segments = static_cast<int>(r % 4);
      compare(run(cache, {rows[r]}, one, options), r, 1, "alone");
    }
  }
}

// One tile, whose items are listed in their own way: neighbours, rows that are none (more keys may
// then be fresh than there are rows) and one that sees nothing.
TEST_P(GpuAttention, OneTileHasTheBitsOfSeveral) {
  const std::vector<std::vector<int>> last_keys = {{299},
                                                   {127, 128},
                                                   {-1, 280, 281},
                                                   {252, 253, 254, 255, 256, 257, 258},
                                                   {120, 121, 122, 123, 124, 125, 126, 127, 128},
                                                   {3, 10, 20, 30, 40, 250, 251, 252, 299},
                                                   {9, 130, 131, 299}};
  for (const int window : {0, 300}) {
    Cache cache(GetParam(), {16, window == 0 ? 0 : 416, window, {7, 300}});
    cache.write_random(21);
    for (const std::vector<int>& keys : last_keys) {
      std::vector<RowSpec> rows;
      for (const int key : keys) rows.push_back({1, key});
      const Tensor q = random_queries(GetParam(), rows.size(), 22);
      const auto several = run(cache, rows, q);
      for (const bool early : {false, true})
        for (const bool fresh : {false, true}) {
          const Options one{.early_plan = early, .has_fresh_keys = fresh, .empty_tile = false};
          EXPECT_TRUE(run(cache, rows, q, one) == several)
              << "window " << window << ", rows from " << keys[0] << ", early plan " << early
              << ", fresh keys " << fresh;
        }
    }
  }
}

// Tiles as long as they may be, which have kernels of their own where heads share a KV head.
TEST_P(GpuAttention, LongestTilesHaveTheBitsOfShortOnes) {
  for (const int window : {0, 100}) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    Cache cache(GetParam(), {16, window == 0 ? 0 : 176, window, {300, 600, 20}});
    cache.write_random(24);
    std::vector<RowSpec> rows = consecutive(0, 250, cuda::kTileRows);  // across 256
    for (const RowSpec& row : consecutive(1, 590, cuda::kTileRows)) rows.push_back(row);
    for (const RowSpec& row : consecutive(2, 0, cuda::kTileRows)) rows.push_back(row);
    const Tensor q = random_queries(GetParam(), rows.size(), 25);
    const auto longest = run(cache, rows, q, {.empty_tile = false});
    expect_near(longest, cache, rows, q);
    EXPECT_TRUE(run(cache, rows, q, {.early_plan = true, .empty_tile = false}) == longest);
    for (const int most : {1, 2, 4, 5})
      EXPECT_TRUE(run(cache, rows, q, {.max_tile_rows = most}) == longest) << "tiles of " << most;
  }
}

// The operand of an FP8 projection: the same values, quantized.
TEST_P(GpuAttention, QuantizedOperand) {
  Cache cache(GetParam(), {16, 0, 0, {90}});
  cache.write_random(10);
  const std::vector<RowSpec> rows = consecutive(0, 80, 2);
  const Tensor q = random_queries(GetParam(), rows.size(), 11);
  Options options;
  options.input_scale = 0.0123F;
  const auto plain = run(cache, rows, q);
  const auto quantized = run(cache, rows, q, options);
  for (size_t i = 0; i < static_cast<size_t>(2 * q.cols()); ++i) {
    const float value = core::to_float(BFloat16{plain[i]}) / options.input_scale;
    const float e4m3 = core::e4m3_to_float(core::float_to_e4m3(value));
    ASSERT_EQ(core::e4m3_to_float(static_cast<uint8_t>(quantized[i])), e4m3) << "element " << i;
  }
}

}  // namespace
}  // namespace tandem::ops::test
