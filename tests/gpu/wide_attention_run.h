// Attention of prompts over made-up keys and queries, on the device and by ops/reference, with
// everything that must not be read poisoned.
#pragma once

#include <cmath>
#include <cstring>

#include "ops/cuda/wide_keys.h"
#include "tests/gpu/wide_attention_setup.h"
#include "tests/gpu/wide_support.h"

namespace tandem::ops::test {

inline constexpr float kScale = 0.02F;

// WidenKeys::blocks_of_tile.
inline int blocks_of(const Lists& lists) {
  int most = 1;
  for (size_t i = 0; i < lists.ends.size(); ++i) {
    const int blocks = (lists.ends[i] + cuda::kWidenedTogether - 1) / cuda::kWidenedTogether;
    const int tiles =
        (lists.ends[i] - lists.begins[i] + cuda::kWideTileRows - 1) / cuda::kWideTileRows;
    most = std::max(most, (blocks + tiles - 1) / tiles);
  }
  return most;
}

// E4M3 bytes of the result, row after row.
inline std::vector<uint8_t> run(const PassSetup& setup) {
  const Lists lists(setup);
  const Cache cache = device_cache(setup);
  const auto num_rows = static_cast<int>(lists.positions.size());
  const int columns = setup.heads.num_heads * setup.heads.head_dim;
  const auto q = tests::to_device(queries(setup));
  const auto k = tests::to_device(cache.device_order(cache.k()));
  const auto v = tests::to_device(cache.device_order(cache.v()));
  const auto chunk_k = tests::to_device(chunk_rows<1>(setup));
  const auto chunk_v = tests::to_device(chunk_rows<2>(setup));
  const auto table = tests::to_device(cache.table());
  const DeviceLists on_device(lists);
  tests::WideTestOperand out(num_rows, columns, kScale);
  cuda::WideAttention job;
  job.num_heads = setup.heads.num_heads;
  job.num_kv_heads = setup.heads.num_kv_heads;
  job.head_dim = setup.heads.head_dim;
  job.window = setup.window;
  job.q = q.as<uint16_t>();
  job.kv = cache.device_layer(k.data(), v.data());
  job.places = {table.as<int32_t>(), static_cast<int>(cache.places().max_blocks),
                cache.layout().block_size, cache.layout().ring_len};
  if (setup.in_chunk) job.chunk = {chunk_k.as<uint16_t>(), chunk_v.as<uint16_t>()};
  job.out = out.view();
  const Lists whole_tiles(setup, cuda::kWideTileRows);
  const auto widened_bytes =
      static_cast<size_t>(2 * lists.num_widened * setup.heads.num_kv_heads * setup.heads.head_dim);
  const auto widened_k = tests::poisoned(widened_bytes);
  const auto widened_v = tests::poisoned(widened_bytes);
  if (setup.widened) {
    const DeviceLists all(whole_tiles);
    cuda::widen_keys({}, all.rows(), all.tiles(),
                     {job.num_kv_heads, job.head_dim, job.kv, job.places, widened_k.as<uint16_t>(),
                      widened_v.as<uint16_t>(), blocks_of(whole_tiles)});
    tests::synchronize();
    job.widened = {widened_k.as<uint16_t>(), widened_v.as<uint16_t>()};
  }
  cuda::wide_attention({}, on_device.rows(), on_device.tiles(), job);
  out.read();
  EXPECT_TRUE(out.guard_intact());
  std::vector<uint8_t> bytes;
  for (int r = 0; r < num_rows; ++r)
    for (int c = 0; c < columns; ++c) bytes.push_back(out.byte(r, c));
  return bytes;
}

// The reference's result in FP32 of every `stride`th row, with V as it is or with |V|.
inline Tensor expected(const PassSetup& setup, int stride, bool absolute_values) {
  static core::ThreadPool pool(8);
  const Context context{Backend::kReference, &pool};
  const Lists lists(setup);
  const Cache cache = reference_cache(setup);
  const auto all_q = queries(setup);
  const int columns = setup.heads.num_heads * setup.heads.head_dim;
  std::vector<int32_t> sequences, last_keys;
  for (size_t r = 0; r < lists.positions.size(); r += static_cast<size_t>(stride)) {
    sequences.push_back(lists.sequences[r]);
    last_keys.push_back(lists.positions[r]);
  }
  const auto num_rows = static_cast<int64_t>(sequences.size());
  Tensor q(DType::kBF16, {num_rows, setup.heads.num_heads, setup.heads.head_dim});
  for (int64_t r = 0; r < num_rows; ++r)
    std::memcpy(q.view().row<BFloat16>(r), all_q.data() + r * stride * columns,
                static_cast<size_t>(columns) * 2);
  const Tensor v = cache.values(absolute_values);
  const KvView kv = cache.view(v);
  Tensor out(DType::kF32, {num_rows, setup.heads.num_heads, setup.heads.head_dim});
  attention(context, q, sequences, last_keys, setup.window, cache.places(), kv, out);
  return out;
}

// As for few rows (attention_test.cc): weights rounded to BF16 change a sum of values by one part
// in 2^8 of the sum of magnitudes at most; then the result is rounded to BF16 and to E4M3, whose
// steps are 2^-3 of the value and 2^-9 of the scale at least.
inline void expect_like_reference(const PassSetup& setup, int stride = 1) {
  const auto got = run(setup);
  const Tensor want = expected(setup, stride, false);
  const Tensor magnitudes = expected(setup, stride, true);
  int failures = 0;
  double squares = 0;
  for (int64_t r = 0; r < want.rows(); ++r)
    for (int64_t c = 0; c < want.cols() && failures < 5; ++c) {
      const float value =
          kScale * core::e4m3_to_float(got[static_cast<size_t>(r * stride * want.cols() + c)]);
      const float exact = want.at(r, c);
      const float before = 0x1p-8F * (magnitudes.at(r, c) + 3.0F * std::fabs(exact));
      const float bound = before + std::max((std::fabs(exact) + before) / 16, kScale * 0x1p-10F);
      const float error = (value - exact) / (magnitudes.at(r, c) + 1e-9F);
      squares += double{error} * double{error};
      if (std::fabs(value - exact) <= bound) continue;
      ++failures;
      ADD_FAILURE() << "row " << r * stride << " head " << c / setup.heads.head_dim << " column "
                    << c % setup.heads.head_dim << ": expected " << exact << " +- " << bound
                    << ", got " << value;
    }
  // Rounding to E4M3 alone: a step of 2^-3 at most, uniform, on values below their magnitudes.
  EXPECT_LE(std::sqrt(squares / static_cast<double>(want.rows() * want.cols())), 0.02);
}

}  // namespace tandem::ops::test
