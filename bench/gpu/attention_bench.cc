// Times attention (both kernels) and what makes its inputs at the shapes of the 12B pair.
//
//   bench_attention          one line per layer type, context and batch
//
// Keys and values are read from memory: copies of a layer's cache are used in turn, 400 MB at
// least, in one CUDA graph. The ideal time is their bytes over the read bandwidth of this process.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "bench/gpu/graph_timer.h"
#include "bench/gpu/read_bandwidth.h"
#include "core/bf16.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/head_prep.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using ops::cuda::Stream;

constexpr int kBlockSize = 32;

struct Type {
  const char* name;
  int num_kv_heads;
  int head_dim;
  int window;
  bool k_eq_v;
};
constexpr int kNumHeads = 16;
constexpr Type kSliding = {"sliding", 8, 256, 1024, false};
constexpr Type kFull = {"full", 1, 512, 0, true};

template <typename T>
DeviceBuffer to_device(const std::vector<T>& values) {
  DeviceBuffer buffer(values.size() * sizeof(T));
  TANDEM_CUDA_CHECK(
      cudaMemcpy(buffer.data(), values.data(), buffer.size_bytes(), cudaMemcpyHostToDevice));
  return buffer;
}

// A batch of `batch` sequences of `context` tokens, `rows` rows each, with `copies` caches.
struct Setup {
  Setup(const Type& type_in, int batch, int context, int rows_in)
      : type(type_in), num_rows((batch * rows_in + 7) / 8 * 8) {
    // A window's ring is used whole, as it is in a long sequence.
    const int ring = (type.window + 64 + kBlockSize - 1) / kBlockSize * kBlockSize;
    const int ring_len = type.window > 0 ? ring : 0;
    blocks = (ring_len > 0 ? ring_len : context + kBlockSize - 1) / kBlockSize;
    std::vector<int32_t> table_values(static_cast<size_t>(batch * blocks));
    for (size_t i = 0; i < table_values.size(); ++i)
      table_values[i] = static_cast<int32_t>(i * 7 % table_values.size());
    std::vector<int32_t> positions(static_cast<size_t>(num_rows), 0);
    std::vector<int32_t> sequences(static_cast<size_t>(num_rows), -1);
    std::vector<int32_t> first;
    for (int s = 0; s < batch; ++s) {
      first.push_back(s * rows_in);
      for (int r = 0; r < rows_in; ++r) {
        positions[static_cast<size_t>(s * rows_in + r)] = context - rows_in + r;
        sequences[static_cast<size_t>(s * rows_in + r)] = s;
      }
    }
    table = to_device(table_values);
    position_buffer = to_device(positions);
    sequence_buffer = to_device(sequences);
    first_rows = to_device(first);
    tile_rows = to_device(std::vector<int32_t>(static_cast<size_t>(batch), rows_in));
    rows = {num_rows, nullptr, position_buffer.as<int32_t>(), position_buffer.as<int32_t>(),
            sequence_buffer.as<int32_t>()};
    tiles = {batch, first_rows.as<int32_t>(), tile_rows.as<int32_t>()};
    places = {table.as<int32_t>(), blocks, kBlockSize, ring_len};
    const int keys = type.window > 0 ? std::min(context, type.window + rows_in - 1) : context;
    max_segments = ops::cuda::attention_max_segments(type.head_dim, keys);
    kv_bytes = double{4} * batch * keys * type.num_kv_heads * type.head_dim;
    layer_elements = static_cast<size_t>(batch * blocks) * kBlockSize *
                     static_cast<size_t>(type.num_kv_heads * type.head_dim);
    copies = static_cast<int>((size_t{400} << 20) / (layer_elements * 4)) + 2;
    cache = DeviceBuffer(layer_elements * 4 * static_cast<size_t>(copies));
    TANDEM_CUDA_CHECK(cudaMemset(cache.data(), 0x3c, cache.size_bytes()));  // BF16 0.0115
    q = to_device(std::vector<core::BFloat16>(
        static_cast<size_t>(num_rows * kNumHeads * type.head_dim), core::to_bf16(0.25F)));
    workspace = DeviceBuffer(
        ops::cuda::attention_workspace_bytes(num_rows, kNumHeads, type.head_dim, max_segments));
    out = DeviceBuffer(q.size_bytes());
  }

  ops::cuda::KvLayer layer(int i) const {
    uint16_t* const k = cache.as<uint16_t>() + static_cast<size_t>(i % copies) * layer_elements * 2;
    return {k, k + layer_elements};
  }
  void attend(const Stream& stream, int i) const {
    ops::cuda::Attention job;
    job.num_heads = kNumHeads;
    job.num_kv_heads = type.num_kv_heads;
    job.head_dim = type.head_dim;
    job.window = type.window;
    job.q = q.as<uint16_t>();
    job.kv = layer(i);
    job.places = places;
    job.workspace = workspace.as<float>();
    job.max_segments = max_segments;
    job.out = {out.as<uint16_t>(), num_rows / 8, 0.05F};
    ops::cuda::attention(stream, rows, tiles, job);
  }

  Type type;
  int num_rows;
  int blocks = 0;
  int max_segments = 0;
  int copies = 0;
  size_t layer_elements = 0;
  double kv_bytes = 0;
  DeviceBuffer table, position_buffer, sequence_buffer, first_rows, tile_rows;
  DeviceBuffer cache, q, workspace, out;
  ops::cuda::Rows rows;
  ops::cuda::QueryTiles tiles;
  ops::cuda::KvTable places;
};

void bench_attention(const Type& type, int batch, int context, int rows, double bandwidth) {
  const Setup setup(type, batch, context, rows);
  const double ideal = setup.kv_bytes / bandwidth * 1e6;
  const int launches = std::max(setup.copies, 16);
  fmt::print("{:<8} {:>6} keys, batch {:>2} x {} rows: ideal {:>6.2f} us |", type.name, context,
             batch, rows, ideal);
  for (const char* how : {"independent", "dependent"}) {
    const double us = bench::time_graph(
                          [&](const Stream& stream) {
                            for (int i = 0; i < launches; ++i) setup.attend(stream, i);
                          },
                          how[0] != 'i') /
                      launches;
    fmt::print(" {} {:.2f} us, {:.2f}", how, us, ideal / us);
  }
  fmt::print("\n");
  std::fflush(stdout);
}

void bench_head_prep(const Type& type, int rows) {
  Setup setup(type, 1, 1024, rows);
  const int heads = kNumHeads + (type.k_eq_v ? 1 : 2) * type.num_kv_heads;
  const int sets = heads * type.head_dim / ops::cuda::kSetColumns;
  ops::cuda::HeadPrep job;
  job.product.num_rows = setup.num_rows;
  job.product.set_blocks = 3840 / 32;
  job.product.num_shares = 264;
  job.product.total_blocks = int64_t{sets} * job.product.set_blocks;
  for (int set = 0; set < sets; ++set)
    job.product.max_pieces = std::max(job.product.max_pieces, job.product.num_pieces(set));
  const DeviceBuffer sums(static_cast<size_t>(sets * job.product.max_pieces * setup.num_rows) *
                          ops::cuda::kSetColumns * 4);
  TANDEM_CUDA_CHECK(cudaMemset(sums.data(), 0x3c, sums.size_bytes()));
  const DeviceBuffer norm(static_cast<size_t>(type.head_dim) * 2);
  TANDEM_CUDA_CHECK(cudaMemset(norm.data(), 0x3f, norm.size_bytes()));
  const auto frequencies =
      to_device(std::vector<float>(static_cast<size_t>(type.head_dim / 2), 0.01F));
  job.product.data = sums.as<float>();
  job.num_heads = kNumHeads;
  job.num_kv_heads = type.num_kv_heads;
  job.head_dim = type.head_dim;
  job.k_eq_v = type.k_eq_v;
  job.eps = 1e-6F;
  job.q_norm = job.k_norm = norm.as<uint16_t>();
  job.inv_freq = frequencies.as<float>();
  job.places = setup.places;
  job.q = setup.q.as<uint16_t>();
  constexpr int kLaunches = 32;
  for (const char* how : {"independent", "dependent", "early"}) {
    setup.rows.early_plan = how[0] == 'e';
    const double us = bench::time_graph(
                          [&](const Stream& stream) {
                            for (int i = 0; i < kLaunches; ++i) {
                              job.kv = setup.layer(i);
                              ops::cuda::head_prep(stream, setup.rows, job);
                            }
                          },
                          how[0] != 'i') /
                      kLaunches;
    fmt::print("head_prep {:<8} {} rows, {:<11} {:.2f} us\n", type.name, rows, how, us);
  }
}

int run() {
  cudaDeviceProp properties;
  TANDEM_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  const double bandwidth = bench::measure_read_bandwidth(properties.multiProcessorCount);
  fmt::print("{}: reads {:.0f} GB/s; a graph of launches, copies of the cache in turn\n",
             static_cast<const char*>(properties.name), bandwidth * 1e-9);
  for (const Type& type : {kSliding, kFull})
    for (const int rows : {1, 5, 8}) bench_head_prep(type, rows);
  for (const int rows : {1, 5, 8}) {
    bench_attention(kSliding, 1, 1040, rows, bandwidth);
    for (const int context : {1024, 8192, 32768})
      bench_attention(kFull, 1, context, rows, bandwidth);
  }
  for (const int batch : {8, 12}) {  // 40 and 60 rows
    bench_attention(kSliding, batch, 2048, 5, bandwidth);
    bench_attention(kFull, batch, 2048, 5, bandwidth);
  }
  bench_attention(kSliding, 64, 2048, 1, bandwidth);
  bench_attention(kFull, 64, 2048, 1, bandwidth);
  return 0;
}

}  // namespace
}  // namespace tandem

int main() {
  return tandem::run();
}
