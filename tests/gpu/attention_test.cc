// Attention against ops/reference, with everything that must not be read poisoned, and the promise
// that a row's bits do not depend on the rows beside it.
#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/e4m3.h"
#include "ops/cuda/attention.h"
#include "tests/gpu/attention_support.h"
#include "tests/gpu/operand_layout.h"
#include "tests/gpu/support.h"

namespace tandem::ops::test {
namespace {

std::string name_of(const testing::TestParamInfo<Heads>& info) {
  return std::to_string(info.param.num_heads) + "_over_" + std::to_string(info.param.num_kv_heads) +
         "_of_" + std::to_string(info.param.head_dim);
}

struct Options {
  int max_tile_rows = cuda::kTileRows;
  int extra_segments = 0;
  float input_scale = 0.0F;
  bool dependent = true;
  bool early_plan = false;
  bool one_tile = false;  // without the empty one behind it
  bool has_fresh_keys = true;
};

int segments_needed(const Cache& cache, const Batch& batch) {
  int most = 1;
  for (const RowSpec& row : batch.rows) {
    const int window = cache.layout().window;
    const int keys = window == 0 ? row.last_key + 1 : std::min(row.last_key + 1, window + 7);
    most = std::max(most, cuda::attention_max_segments(cache.heads().head_dim, std::max(keys, 1)));
  }
  return most;
}

// The bits of an operand's values as a matrix [num_rows, num_heads * head_dim].
std::vector<uint16_t> unpack(const std::vector<uint8_t>& operand, bool fp8, int num_rows,
                             int columns) {
  std::vector<uint16_t> matrix;
  for (int row = 0; row < num_rows; ++row)
    for (int column = 0; column < columns; ++column)
      matrix.push_back(tests::operand_bits(operand, fp8, num_rows / 8, row, column));
  return matrix;
}

// Bits of the result [num_rows, num_heads * head_dim]; padding rows of q are NaN.
std::vector<uint16_t> run(const Cache& cache, const std::vector<RowSpec>& specs, const Tensor& q,
                          const Options& options = {}) {
  const Batch batch(specs, options.max_tile_rows);
  const Heads& heads = cache.heads();
  const int columns = heads.num_heads * heads.head_dim;
  std::vector<uint16_t> q_bits(static_cast<size_t>(batch.num_rows() * columns), 0xffff);
  std::memcpy(q_bits.data(), q.view().data, specs.size() * static_cast<size_t>(columns) * 2);

  const auto q_device = tests::to_device(q_bits);
  const auto k = tests::to_device(cache.device_order(cache.k()));
  const auto v = tests::to_device(cache.device_order(cache.v()));
  const auto table = tests::to_device(cache.table());
  const auto sequences = tests::to_device(batch.sequences);
  const auto last_keys = tests::to_device(batch.last_keys);
  const auto first_rows = tests::to_device(batch.first_rows);
  const auto tile_rows = tests::to_device(batch.tile_rows);
  const int max_segments = segments_needed(cache, batch) + options.extra_segments;
  const auto workspace = tests::poisoned(cuda::attention_workspace_bytes(
      batch.num_rows(), heads.num_heads, heads.head_dim, max_segments));
  const auto out = tests::poisoned(static_cast<size_t>(batch.num_rows() * columns) * 2);

  cuda::Rows rows;
  rows.num_rows = batch.num_rows();
  rows.last_keys = last_keys.as<int32_t>();
  rows.sequences = sequences.as<int32_t>();
  rows.early_plan = options.early_plan;
  const int num_tiles = options.one_tile ? 1 : static_cast<int>(batch.first_rows.size());
  const cuda::QueryTiles tiles{num_tiles, first_rows.as<int32_t>(), tile_rows.as<int32_t>()};
  cuda::Attention job;
  job.has_fresh_keys = options.has_fresh_keys;
  job.num_heads = heads.num_heads;
  job.num_kv_heads = heads.num_kv_heads;
  job.head_dim = heads.head_dim;
  job.window = cache.layout().window;
  job.q = q_device.as<uint16_t>();
  job.kv = {k.as<uint16_t>(), v.as<uint16_t>()};
  job.places = {table.as<int32_t>(), static_cast<int>(cache.places().max_blocks),
                cache.layout().block_size, cache.layout().ring_len};
  job.workspace = workspace.as<float>();
  job.max_segments = max_segments;
  job.out = {out.as<uint16_t>(), batch.num_rows() / 8, options.input_scale};
  cuda::attention({nullptr, options.dependent}, rows, tiles, job);
  tests::synchronize();
  return unpack(tests::to_host<uint8_t>(out, static_cast<size_t>(batch.num_rows() * columns) * 2),
                options.input_scale > 0, batch.num_rows(), columns);
}

// The reference's result in FP32, with V as it is or with |V|.
Tensor expected(const Cache& cache, const std::vector<RowSpec>& specs, const Tensor& q,
                bool absolute_values) {
  static core::ThreadPool pool(8);
  const Context context{Backend::kReference, &pool};
  Tensor v(DType::kBF16, {cache.v().rows(), cache.heads().num_kv_heads, cache.heads().head_dim});
  for (int64_t r = 0; r < v.rows(); ++r)
    for (int64_t c = 0; c < v.cols(); ++c)
      store(v, r, c, absolute_values ? std::fabs(cache.v().at(r, c)) : cache.v().at(r, c));
  KvView kv;
  kv.k = cache.k();
  kv.v = v;
  std::vector<int32_t> sequences, last_keys;
  for (const RowSpec& row : specs) {
    sequences.push_back(row.sequence);
    last_keys.push_back(row.last_key);
  }
  Tensor out(DType::kF32,
             {static_cast<int64_t>(specs.size()), cache.heads().num_heads, cache.heads().head_dim});
  attention(context, q, sequences, last_keys, cache.layout().window, cache.places(), kv, out);
  return out;
}

// Rounding a weight to BF16 changes it by one part in 2^8 at most, in the sum of values (bounded by
// the sum of their magnitudes, m) and in the total (bounded by the result); the result is rounded
// once more. 2^-10 m for sums in FP32 (scores up to 30 with an error of 2^-22 each step) and exp.
void expect_near(const std::vector<uint16_t>& got, const Cache& cache,
                 const std::vector<RowSpec>& specs, const Tensor& q) {
  const Tensor want = expected(cache, specs, q, false);
  const Tensor magnitudes = expected(cache, specs, q, true);
  const int dim = cache.heads().head_dim;
  int failures = 0;
  for (int64_t r = 0; r < want.rows(); ++r)
    for (int64_t c = 0; c < want.cols() && failures < 5; ++c) {
      const float value = core::to_float(BFloat16{got[static_cast<size_t>(r * want.cols() + c)]});
      const float bound = 0x1p-8F * (magnitudes.at(r, c) + 2.0F * std::fabs(want.at(r, c))) +
                          0x1p-10F * magnitudes.at(r, c);
      if (std::fabs(value - want.at(r, c)) <= bound) continue;
      ++failures;
      ADD_FAILURE() << "row " << r << " (last key " << specs[static_cast<size_t>(r)].last_key
                    << ") head " << c / dim << " column " << c % dim << ": expected "
                    << want.at(r, c) << " +- " << bound << ", got " << value;
    }
}

// Queries that give scores of standard deviation 2 with random keys.
Tensor random_queries(const Heads& heads, size_t num_rows, uint32_t seed) {
  Tensor q(DType::kBF16, {static_cast<int64_t>(num_rows), heads.num_heads, heads.head_dim});
  q.fill_normal(seed, 2.0F / std::sqrt(static_cast<float>(heads.head_dim)));
  return q;
}

void expect_like_reference(const Cache& cache, const std::vector<RowSpec>& rows) {
  const Tensor q = random_queries(cache.heads(), rows.size(), 17);
  expect_near(run(cache, rows, q), cache, rows, q);
}

std::vector<RowSpec> consecutive(int sequence, int first_last_key, int count) {
  std::vector<RowSpec> rows;
  for (int i = 0; i < count; ++i) rows.push_back({sequence, first_last_key + i});
  return rows;
}

class GpuAttention : public testing::TestWithParam<Heads> {};

// 12B, 31B and E4B groups, both types; the demo pair's sizes; groups that are no power of two.
INSTANTIATE_TEST_SUITE_P(Shapes, GpuAttention,
                         testing::Values(Heads{2, 1, 32}, Heads{4, 4, 32}, Heads{6, 2, 64},
                                         Heads{8, 1, 64}, Heads{5, 1, 128}, Heads{16, 8, 256},
                                         Heads{8, 2, 256}, Heads{8, 1, 256}, Heads{16, 1, 512},
                                         Heads{8, 1, 512}, Heads{4, 2, 512}, Heads{3, 1, 512}),
                         name_of);

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
  const std::vector<std::vector<int>> last_keys = {
      {299}, {127, 128}, {-1, 280, 281}, {252, 253, 254, 255, 256, 257, 258}, {9, 130, 131, 299}};
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
          const Options one{.early_plan = early, .one_tile = true, .has_fresh_keys = fresh};
          EXPECT_TRUE(run(cache, rows, q, one) == several)
              << "window " << window << ", rows from " << keys[0] << ", early plan " << early
              << ", fresh keys " << fresh;
        }
    }
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

// The 12B's window of 1,024 keys in a ring, at its real size: 9 or 10 segments.
TEST(GpuAttentionLong, SlidingWindowOf1024) {
  Cache cache({16, 8, 256}, {32, 1024 + 64, 1024, {1500}});
  cache.write_random(12);
  expect_like_reference(cache, consecutive(0, 1491, 5));
}

// Four sequences at once, each of which alone would leave most of the device idle.
TEST(GpuAttentionLong, BitsInABatchAreThoseAlone) {
  Cache cache({16, 8, 256}, {32, 1024 + 64, 1024, {1500, 1400, 1300, 1200}});
  cache.write_random(14);
  std::vector<RowSpec> rows;
  for (int s = 0; s < 4; ++s)
    for (const RowSpec& row : consecutive(s, 1480 - 100 * s, 8)) rows.push_back(row);
  const Tensor q = random_queries(cache.heads(), rows.size(), 15);
  const auto all = run(cache, rows, q);
  const auto columns = static_cast<size_t>(q.cols());
  for (const size_t r : {3, 12, 31}) {
    Tensor one(DType::kBF16, {1, 16, 256});
    std::memcpy(one.view().data, q.view().row<BFloat16>(static_cast<int64_t>(r)), columns * 2);
    const auto alone = run(cache, {rows[r]}, one);
    for (size_t i = 0; i < columns; ++i)
      ASSERT_EQ(alone[i], all[r * columns + i]) << "row " << r << " column " << i;
  }
}

// Rows 1 to 8 of a sequence, more segments than thread blocks: each block takes several, of
// different numbers of rows.
TEST(GpuAttentionLong, FullLayerBitsInABatchAreThoseAlone) {
  const std::vector<int> lengths = {2100, 1300, 2600, 700, 1900, 1500, 1024, 1281};
  Cache cache({16, 4, 512}, {32, 0, 0, lengths});
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
  const auto columns = static_cast<size_t>(q.cols());
  for (const size_t r : {2, 12, 35}) {
    Tensor one(DType::kBF16, {1, 16, 512});
    std::memcpy(one.view().data, q.view().row<BFloat16>(static_cast<int64_t>(r)), columns * 2);
    early.early_plan = r != 12;
    const auto alone = run(cache, {rows[r]}, one, early);
    for (size_t i = 0; i < columns; ++i)
      ASSERT_EQ(alone[i], all[r * columns + i]) << "row " << r << " column " << i;
  }
}

// As many rows as a pass can have, of as many sequences.
TEST(GpuAttentionLong, OneRowOfEachOf128Sequences) {
  std::vector<int> lengths;
  std::vector<RowSpec> rows;
  for (int s = 0; s < 128; ++s) {
    lengths.push_back(1 + s * 5);
    rows.push_back({s, s * 5});
  }
  Cache cache({4, 2, 64}, {16, 0, 0, lengths});
  cache.write_random(18);
  expect_like_reference(cache, rows);
}

TEST(GpuAttentionLong, FullLayerOverManySegments) {
  Cache cache({4, 1, 512}, {32, 0, 0, {9000}});
  cache.write_random(13);
  expect_like_reference(cache, consecutive(0, 8998, 2));
}

}  // namespace
}  // namespace tandem::ops::test
