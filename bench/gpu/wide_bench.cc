// Times what prompts run: the products, the kernels between them and attention, at the shapes of
// the 12B pair.
//
//   bench_wide [ROWS ...]        default 64 128 512 2048
//
// Weights and inputs are random (zeros would draw less power and run faster); weights are used in
// turn, so that they come from memory. Launches are in one CUDA graph; medians of 9.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "bench/gpu/graph_timer.h"
#include "core/bf16.h"
#include "core/e4m3.h"
#include "ops/cuda/wide_attention.h"
#include "ops/cuda/wide_product.h"
#include "ops/cuda/wide_rows.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using ops::cuda::PackedLinear;
using ops::cuda::Stream;
using ops::cuda::WideOperand;

struct Shape {
  const char* name;
  int in_features;
  int out_features;
  bool gated;
};

constexpr Shape kShapes[] = {
    {"gate_up", 3840, 30720, false},  {"gate_up, gelu", 3840, 30720, true},
    {"down", 15360, 3840, false},     {"sliding qkv", 3840, 8192, false},
    {"sliding o", 4096, 3840, false}, {"full q+k", 3840, 8704, false},
    {"full o", 8192, 3840, false},
};

// `of` values of a normal distribution, which repeat after a while.
template <typename T>
DeviceBuffer random_values(int64_t count, uint32_t seed, T (*of)(float)) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<T> pool(65521);
  for (T& value : pool) value = of(normal(random));
  std::vector<T> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = pool[i % pool.size()];
  DeviceBuffer buffer(values.size() * sizeof(T));
  TANDEM_CUDA_CHECK(
      cudaMemcpy(buffer.data(), values.data(), buffer.size_bytes(), cudaMemcpyHostToDevice));
  return buffer;
}

DeviceBuffer random_rows(int64_t count, uint32_t seed) {
  return random_values<core::BFloat16>(count, seed, core::to_bf16);
}

struct Operand {
  Operand(int num_rows, int columns)
      : capacity((num_rows + 255) / 256 * 256),
        data(static_cast<size_t>(ops::cuda::wide_operand_bytes(columns, capacity))) {
    const DeviceBuffer rows = random_rows(int64_t{num_rows} * columns, 3);
    rows_to_wide_operand({}, rows.as<uint16_t>(), num_rows, columns, view());
    TANDEM_CUDA_CHECK(cudaDeviceSynchronize());
  }
  WideOperand view() const { return {data.as<uint8_t>(), capacity, 0.01F}; }
  int capacity;
  DeviceBuffer data;
};

void print(const char* name, int rows, double us, double flops) {
  fmt::print("{:<22} {:>5} rows {:>9.1f} us", name, rows, us);
  if (flops > 0) fmt::print("  {:>6.0f} TFLOP/s", flops / us * 1e-6);
  fmt::print("\n");
  std::fflush(stdout);
}

double bench_product(const Shape& shape, int rows, int multiprocessors, int tile_rows) {
  std::vector<PackedLinear> weights;
  do {
    constexpr auto kType = ops::cuda::PackedType::kFp8;
    weights.push_back(
        shape.gated
            ? make_gated_linear(kType, shape.out_features / 2, shape.in_features, multiprocessors)
            : make_packed_linear(kType, shape.out_features, shape.in_features, multiprocessors));
    ops::cuda::fill_random({}, weights.back(), weights.size());
  } while (weights.size() < 4);
  const Operand operand(rows, shape.in_features);
  const DeviceBuffer out(static_cast<size_t>(rows) * static_cast<size_t>(shape.out_features) * 2);
  const Operand gelu_out(rows, shape.out_features / 2);
  const ops::cuda::WideTiling tiling{tile_rows, multiprocessors};
  const double us =
      bench::time_graph(
          [&](const Stream& stream) {
            for (const PackedLinear& weight : weights)
              if (shape.gated)
                wide_gelu_product(stream, weight, operand.view(), rows,
                                  {1e-3F, 1e-3F, gelu_out.view()}, tiling);
              else
                wide_product(stream, weight, operand.view(), rows,
                             {{shape.out_features, shape.out_features, shape.out_features},
                              {1e-3F, 1e-3F, 1e-3F}},
                             out.as<uint16_t>(), tiling);
          },
          true) /
      static_cast<double>(weights.size());
  const double flops = 2.0 * rows * shape.in_features * shape.out_features;
  print(
      fmt::format("{}{}", shape.name, tile_rows > 0 ? fmt::format(" ({})", tile_rows) : "").c_str(),
      rows, us, flops);
  return us;
}

double bench_rows(int rows) {
  constexpr int kHidden = 3840;
  const DeviceBuffer x = random_rows(int64_t{rows} * kHidden, 1);
  const DeviceBuffer y = random_rows(int64_t{rows} * kHidden, 2);
  const DeviceBuffer weight = random_rows(kHidden, 3);
  const Operand operand(rows, kHidden);
  const double us =
      bench::time_graph(
          [&](const Stream& stream) {
            for (int i = 0; i < 8; ++i)
              wide_residual(stream,
                            {.num_rows = rows,
                             .hidden = kHidden,
                             .y = y.as<uint16_t>(),
                             .post_weight = weight.as<uint16_t>(),
                             .x = x.as<uint16_t>(),
                             .next = {.weight = weight.as<uint16_t>(), .operand = operand.view()}});
          },
          true) /
      8;
  print("residual, norms", rows, us, 0);
  return us;
}

// One sequence whose last `rows` positions are the pass, through a sliding or full layer of the
// 12B; with the cache in E4M3 too.
struct AttentionBench {
  AttentionBench(int num_rows, int length, bool is_sliding);
  // Over E4M3 from here on.
  void use_codes();
  // Heads, ring and attention, in microseconds.
  double run() const;
  double time(const std::function<void(const Stream&)>& launch) const;

  static constexpr int kHeads = 16;
  static constexpr int kBlock = 32;
  int rows, context;
  bool sliding;
  int begin = context - rows;
  int head_dim = sliding ? 256 : 512;
  int kv_heads = sliding ? 8 : 1;
  int ring_len = sliding ? 1088 : 0;
  int blocks = sliding ? ring_len / kBlock : (context + kBlock - 1) / kBlock;
  std::vector<DeviceBuffer> arrays;  // positions, sequences, tiles, table
  DeviceBuffer product = random_rows(int64_t{rows} * (kHeads + 2 * kv_heads) * head_dim, 4);
  DeviceBuffer q = random_rows(int64_t{rows} * kHeads * head_dim, 4);
  DeviceBuffer k = random_rows(int64_t{blocks} * kBlock * kv_heads * head_dim, 5);
  DeviceBuffer v = random_rows(int64_t{blocks} * kBlock * kv_heads * head_dim, 6);
  DeviceBuffer chunk_k = random_rows(int64_t{rows} * kv_heads * head_dim, 7);
  DeviceBuffer chunk_v = random_rows(int64_t{rows} * kv_heads * head_dim, 8);
  DeviceBuffer norm = random_rows(head_dim, 9);
  DeviceBuffer inv_freq{static_cast<size_t>(head_dim) * 2};
  Operand out{rows, kHeads* head_dim};
  ops::cuda::Rows all;
  ops::cuda::WideTiles tiles;
  ops::cuda::WideHeads heads;
  ops::cuda::WideAttention attention;
};

AttentionBench::AttentionBench(int num_rows, int length, bool is_sliding)
    : rows(num_rows), context(length), sliding(is_sliding) {
  std::vector<int32_t> lists[7];
  for (int r = 0; r < rows; ++r) lists[0].push_back(begin + r);
  lists[1].resize(static_cast<size_t>(rows));
  for (int r = 0; r < rows; r += ops::cuda::kWideTileRows) {
    lists[2].push_back(r);
    lists[3].push_back(std::min(ops::cuda::kWideTileRows, rows - r));
    lists[4].push_back(begin);
    lists[5].push_back(context);
  }
  for (int b = 0; b < blocks; ++b) lists[6].push_back(b);
  for (const auto& list : lists) {
    arrays.emplace_back(list.size() * 4);
    TANDEM_CUDA_CHECK(
        cudaMemcpy(arrays.back().data(), list.data(), list.size() * 4, cudaMemcpyHostToDevice));
  }
  TANDEM_CUDA_CHECK(cudaMemset(inv_freq.data(), 0, inv_freq.size_bytes()));
  const auto array = [this](size_t i) { return arrays[i].as<int32_t>(); };
  all.num_rows = rows;
  all.positions = array(0);
  all.sequences = array(1);
  tiles = {static_cast<int>(lists[2].size()), array(2), array(3), array(4), array(5)};
  heads.product = product.as<uint16_t>();
  heads.num_heads = attention.num_heads = kHeads;
  heads.num_kv_heads = attention.num_kv_heads = kv_heads;
  heads.head_dim = attention.head_dim = head_dim;
  heads.k_eq_v = !sliding;
  heads.eps = 1e-6F;
  heads.q_norm = heads.k_norm = norm.as<uint16_t>();
  heads.inv_freq = inv_freq.as<float>();
  heads.q = q.as<uint16_t>();
  if (sliding) heads.chunk = {chunk_k.as<uint16_t>(), chunk_v.as<uint16_t>()};
  heads.kv = attention.kv = {k.as<uint16_t>(), v.as<uint16_t>()};
  heads.places = attention.places = {array(6), blocks, kBlock, ring_len};
  attention.window = sliding ? 1024 : 0;
  attention.q = heads.q;
  attention.chunk = heads.chunk;
  attention.out = out.view();
}

void AttentionBench::use_codes() {
  const int64_t elements = int64_t{blocks} * kBlock * kv_heads * head_dim;
  k = random_values<uint8_t>(elements, 5, core::float_to_e4m3);
  v = random_values<uint8_t>(elements, 6, core::float_to_e4m3);
  heads.kv = attention.kv = {k.data(), v.data(), true, 1.0F, 1.0F};
}

double AttentionBench::time(const std::function<void(const Stream&)>& launch) const {
  return bench::time_graph(
             [&](const Stream& stream) {
               for (int i = 0; i < 4; ++i) launch(stream);
             },
             true) /
         4;
}

double AttentionBench::run() const {
  const double prep = time([&](const Stream& s) { wide_heads(s, all, heads); });
  print(sliding ? "heads, sliding" : "heads, full", rows, prep, 0);
  double ring = 0;
  if (sliding) {
    ring = time([&](const Stream& s) {
      store_ring(s, all, tiles, {kv_heads, head_dim, heads.chunk, heads.kv, heads.places});
    });
    print("ring", rows, ring, 0);
  }
  double keys = 0;
  for (int p = begin; p < context; ++p) keys += sliding ? std::min(p + 1, 1024) : p + 1;
  const double us = time([&](const Stream& s) { wide_attention(s, all, tiles, attention); });
  print(fmt::format("attention, {} keys{}", context, heads.kv.is_fp8 ? " E4M3" : "").c_str(), rows,
        us, 4 * keys * kHeads * head_dim);
  return us + prep + ring;
}

double bench_attention(int rows, int context, bool sliding) {
  AttentionBench bench(rows, context, sliding);
  const double us = bench.run();
  bench.use_codes();
  bench.run();
  return us;
}

int run(const std::vector<int>& row_counts) {
  cudaDeviceProp properties;
  TANDEM_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  const int multiprocessors = properties.multiProcessorCount;
  fmt::print("{}: {} multiprocessors\n", static_cast<const char*>(properties.name),
             multiprocessors);
  for (const int rows : row_counts) {
    double us[7];
    for (int i = 0; i < 7; ++i) us[i] = bench_product(kShapes[i], rows, multiprocessors, 0);
    if (rows == 512)
      for (const int tile : {64, 128, 256}) bench_product(kShapes[2], rows, multiprocessors, tile);
    const double norms = 2 * bench_rows(rows);
    const double sliding = bench_attention(rows, rows, true);
    const double full = bench_attention(rows, rows, false);
    if (rows == 2048) {
      bench_attention(rows, 8192, true);
      bench_attention(rows, 8192, false);
    }
    const double total = 40 * (us[1] + us[2] + us[3] + us[4] + norms + sliding) +
                         8 * (us[1] + us[2] + us[5] + us[6] + norms + full);
    fmt::print("{} rows: 48 layers take the sum of these, {:.2f} ms, {:.0f} tokens/s\n", rows,
               total * 1e-3, rows / total * 1e6);
  }
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  std::vector<int> rows;
  for (int i = 1; i < argc; ++i) rows.push_back(std::atoi(argv[i]));
  if (rows.empty()) rows = {64, 128, 512, 2048};
  return tandem::run(rows);
}
