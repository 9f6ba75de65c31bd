// The products of prompts: many rows, bound by the tensor cores.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "bench/gpu/graph_timer.h"
#include "bench/gpu/product_bench.h"
#include "core/bf16.h"
#include "ops/cuda/wide_product.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;
using ops::cuda::DeviceBuffer;
using ops::cuda::PackedLinear;
using ops::cuda::Stream;

constexpr int kMinCopies = 4;
constexpr float kInputScale = 0.01F;

// Random: zeros draw less power and run faster.
DeviceBuffer random_operand(int num_rows, int columns, int capacity) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0F, 1.0F);
  std::vector<core::BFloat16> pool(65521);
  for (auto& value : pool) value = core::to_bf16(normal(random));
  std::vector<core::BFloat16> values(static_cast<size_t>(num_rows) * static_cast<size_t>(columns));
  for (size_t i = 0; i < values.size(); ++i) values[i] = pool[i % pool.size()];
  const DeviceBuffer rows(values.size() * sizeof(core::BFloat16));
  TANDEM_CUDA_CHECK(
      cudaMemcpy(rows.data(), values.data(), rows.size_bytes(), cudaMemcpyHostToDevice));
  DeviceBuffer operand(static_cast<size_t>(ops::cuda::wide_operand_bytes(columns, capacity)));
  ops::cuda::rows_to_wide_operand({}, rows.as<uint16_t>(), num_rows, columns,
                                  {operand.as<uint8_t>(), capacity, kInputScale});
  TANDEM_CUDA_CHECK(cudaDeviceSynchronize());
  return operand;
}

}  // namespace

ordered_json bench_wide_product(const GpuFacts& facts, const LinearShape& shape,
                                std::span<const int64_t> rows) {
  const auto in = static_cast<int>(shape.in);
  const auto out = static_cast<int>(shape.out());
  std::vector<PackedLinear> copies;
  std::vector<const void*> weights;
  while (copies.size() < kMinCopies) {
    copies.push_back(ops::cuda::make_packed_linear(ops::cuda::PackedType::kFp8, out, in,
                                                   facts.num_multiprocessors));
    ops::cuda::fill_random({}, copies.back(), copies.size());
    weights.push_back(copies.back().data.data());
  }
  auto results = ordered_json::array();
  for (const int64_t wanted : rows) {
    const auto count = static_cast<int>(wanted);
    const auto capacity = static_cast<int>(ops::cuda::whole_wide_tiles(count));
    const DeviceBuffer operand = random_operand(count, in, capacity);
    const DeviceBuffer y(static_cast<size_t>(count) * static_cast<size_t>(out) * 2);
    const double us = time_graph(
                          [&](const Stream& stream) {
                            for (const PackedLinear& weight : copies)
                              ops::cuda::wide_product(
                                  stream, weight, {operand.as<uint8_t>(), capacity, kInputScale},
                                  count, {{out, out, out}, {1e-3F, 1e-3F, 1e-3F}}, y.as<uint16_t>(),
                                  {.num_multiprocessors = facts.num_multiprocessors});
                          },
                          true) /
                      static_cast<double>(copies.size());
    const double flop = 2.0 * static_cast<double>(wanted * shape.in * shape.out());
    ordered_json one = {
        {"name", shape.name}, {"rows", count}, {"us", us}, {"tflop_per_s", flop / us * 1e-6}};
    if (facts.library != nullptr) {
      LibraryProduct library(*facts.library, ops::cuda::PackedType::kFp8, in, out, count);
      add_peer(one, library.choose(weights, weights.size()));
    }
    results.push_back(std::move(one));
  }
  return results;
}

}  // namespace tandem::bench
