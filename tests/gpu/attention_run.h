// Runs attention on the device, with everything that must not be read poisoned, and holds it to
// ops/reference.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "ops/attention.h"
#include "ops/cuda/attention.h"
#include "tests/gpu/attention_support.h"
#include "tests/gpu/operand_layout.h"
#include "tests/gpu/support.h"

namespace tandem::ops::test {

struct Options {
  int max_tile_rows = cuda::kTileRows;
  int extra_segments = 0;
  float input_scale = 0.0F;
  bool dependent = true;
  bool early_plan = false;
  bool has_fresh_keys = true;
  bool empty_tile = true;  // behind the others
  bool draws = false;      // thread blocks draw the last items of long lists
};

inline int segments_needed(const Cache& cache, const Batch& batch) {
  int most = 1;
  for (const RowSpec& row : batch.rows) {
    const int window = cache.layout().window;
    const int keys =
        window == 0 ? row.last_key + 1 : std::min(row.last_key + 1, window + cuda::kTileRows - 1);
    most = std::max(most, cuda::attention_max_segments(cache.heads().head_dim, std::max(keys, 1)));
  }
  return most;
}

// The bits of an operand's values as a matrix [num_rows, num_heads * head_dim].
inline std::vector<uint16_t> unpack(const std::vector<uint8_t>& operand, bool fp8, int num_rows,
                                    int columns) {
  std::vector<uint16_t> matrix;
  for (int row = 0; row < num_rows; ++row)
    for (int column = 0; column < columns; ++column)
      matrix.push_back(tests::operand_bits(operand, fp8, num_rows / 8, row, column));
  return matrix;
}

// Of the queries that random_queries() makes, which stay below six standard deviations.
inline float query_scale(int head_dim) {
  return cuda::attention_query_scale(1, 12.0F / std::sqrt(static_cast<float>(head_dim)));
}

// Bits of the result [num_rows, num_heads * head_dim]; padding rows of q are NaN.
inline std::vector<uint16_t> run(const Cache& cache, const std::vector<RowSpec>& specs,
                                 const Tensor& q, const Options& options = {}) {
  const Batch batch(specs, options.max_tile_rows);
  const Heads& heads = cache.heads();
  const int columns = heads.num_heads * heads.head_dim;
  std::vector<uint16_t> q_bits(static_cast<size_t>(batch.num_rows() * columns), 0xffff);
  std::memcpy(q_bits.data(), q.view().data, specs.size() * static_cast<size_t>(columns) * 2);

  const auto q_device = tests::to_device(q_bits);
  const auto k = tests::to_device(cache.device_bytes(cache.k()));
  const auto v = tests::to_device(cache.device_bytes(cache.v()));
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
  const int num_tiles = static_cast<int>(batch.first_rows.size()) - (options.empty_tile ? 0 : 1);
  const cuda::QueryTiles tiles{num_tiles, first_rows.as<int32_t>(), tile_rows.as<int32_t>()};
  cuda::Attention job;
  job.has_fresh_keys = options.has_fresh_keys;
  job.num_heads = heads.num_heads;
  job.num_kv_heads = heads.num_kv_heads;
  job.head_dim = heads.head_dim;
  job.window = cache.layout().window;
  job.q = q_device.as<uint16_t>();
  job.query_scale = query_scale(heads.head_dim);
  job.kv = cache.device_layer(k.data(), v.data());
  job.places = {table.as<int32_t>(), static_cast<int>(cache.places().max_blocks),
                cache.layout().block_size, cache.layout().ring_len};
  job.workspace = workspace.data();
  job.max_segments = max_segments;
  const auto next_item = tests::to_device(std::vector<int32_t>{0});
  if (options.draws) job.next_item = next_item.as<int>();
  job.out = {out.as<uint16_t>(), batch.num_rows() / 8, options.input_scale};
  const auto launch = [&] {
    cuda::attention({nullptr, options.dependent}, rows, tiles, job);
    tests::synchronize();
    EXPECT_EQ(tests::to_host<int32_t>(next_item, 1)[0], 0);
    return unpack(tests::to_host<uint8_t>(out, static_cast<size_t>(batch.num_rows() * columns) * 2),
                  options.input_scale > 0, batch.num_rows(), columns);
  };
  const auto result = launch();
  // With a list that was made before.
  const auto list = tests::poisoned(cuda::attention_list_bytes());
  job.list = list.data();
  cuda::list_attention({}, rows, tiles, job);
  tests::synchronize();
  EXPECT_TRUE(launch() == result) << "listed";
  return result;
}

// The reference's result in FP32, with V as it is or with |V|.
inline Tensor expected(const Cache& cache, const std::vector<RowSpec>& specs, const Tensor& q,
                       bool absolute_values) {
  static core::ThreadPool pool(8);
  const Context context{Backend::kReference, &pool};
  const Tensor v = cache.values(absolute_values);
  const KvView kv = cache.view(v);
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
// Over E4M3 two codes have the bits of a BF16, and products keep some 13 bits below their largest
// term, which these bounds leave room for: measured 0.16 to 0.40 % of the result, root mean square,
// of which rounding it to BF16 is 0.17.
inline void expect_near(const std::vector<uint16_t>& got, const Cache& cache,
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
inline Tensor random_queries(const Heads& heads, size_t num_rows, uint32_t seed) {
  Tensor q(DType::kBF16, {static_cast<int64_t>(num_rows), heads.num_heads, heads.head_dim});
  q.fill_normal(seed, 2.0F / std::sqrt(static_cast<float>(heads.head_dim)));
  return q;
}

inline void expect_like_reference(const Cache& cache, const std::vector<RowSpec>& rows) {
  const Tensor q = random_queries(cache.heads(), rows.size(), 17);
  expect_near(run(cache, rows, q), cache, rows, q);
}

inline std::vector<RowSpec> consecutive(int sequence, int first_last_key, int count) {
  std::vector<RowSpec> rows;
  for (int i = 0; i < count; ++i) rows.push_back({sequence, first_last_key + i});
  return rows;
}

}  // namespace tandem::ops::test
