// Times the product kernel at the shapes of the 12B pair, alone and in the chain of a layer.
//
//   bench_product            one line per shape and number of rows
//
// Weights are read from memory: copies of a weight are used in turn, 400 MB at least. Launches are
// in one CUDA graph. Medians of 9; the read bandwidth of the same process is the denominator.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "bench/gpu/graph_timer.h"
#include "bench/gpu/read_bandwidth.h"
#include "ops/cuda/packed_linear.h"

namespace tandem {
namespace {

using bench::time_graph;
using ops::cuda::DeviceBuffer;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using ops::cuda::Stream;

struct Shape {
  const char* name;
  PackedType type;
  int in_features;
  int out_features;
};

constexpr Shape kShapes[] = {
    {"gate_up", PackedType::kFp8, 3840, 30720},
    {"down", PackedType::kFp8, 15360, 3840},
    {"sliding qkv", PackedType::kFp8, 3840, 8192},
    {"sliding o", PackedType::kFp8, 4096, 3840},
    {"full q+k", PackedType::kFp8, 3840, 8704},
    {"full o", PackedType::kFp8, 8192, 3840},
    {"assistant q", PackedType::kFp8, 1024, 4096},
    {"assistant gate_up", PackedType::kFp8, 1024, 16384},
    {"assistant down", PackedType::kFp8, 8192, 1024},
    {"pre_projection", PackedType::kBF16, 7680, 1024},
    {"post_projection", PackedType::kBF16, 1024, 3840},
    {"assistant head", PackedType::kBF16, 1024, 262144},
    {"target head", PackedType::kBF16, 3840, 262144},
};

PackedLinear random_weight(const Shape& shape, int multiprocessors, uint64_t seed) {
  PackedLinear weight = ops::cuda::make_packed_linear(shape.type, shape.out_features,
                                                      shape.in_features, multiprocessors);
  ops::cuda::fill_random({}, weight, seed);
  return weight;
}

void bench_shape(const Shape& shape, int multiprocessors, double bandwidth) {
  std::vector<PackedLinear> copies;
  do copies.push_back(random_weight(shape, multiprocessors, copies.size()));
  while (copies.size() * static_cast<size_t>(copies[0].size_bytes()) < (size_t{400} << 20));
  const size_t launches = std::max<size_t>(copies.size(), 8);
  const DeviceBuffer operand(static_cast<size_t>(64) * static_cast<size_t>(shape.in_features) * 2);
  TANDEM_CUDA_CHECK(cudaMemset(operand.data(), 0x2c, operand.size_bytes()));
  const DeviceBuffer partials(static_cast<size_t>(copies[0].partial_bytes(64)));
  const double ideal = static_cast<double>(copies[0].size_bytes()) / bandwidth * 1e6;
  fmt::print("{:<18} {:>8.1f} us ideal, {} shares, {} pieces |", shape.name, ideal,
             copies[0].num_shares, copies[0].max_pieces);
  for (const int tiles : {1, 2, 4, 8}) {
    for (const bool dependent : {false, true}) {
      const double us =
          time_graph(
              [&](const Stream& stream) {
                for (size_t i = 0; i < launches; ++i)
                  ops::cuda::product(stream, copies[i % copies.size()], operand.as<uint16_t>(),
                                     tiles, partials.as<float>());
              },
              dependent) /
          static_cast<double>(launches);
      fmt::print(" {}{} {:.1f} us {:.2f}", 8 * tiles, dependent ? "d" : "", us, ideal / us);
    }
  }
  fmt::print("\n");
  std::fflush(stdout);
}

// The products of sliding layers one after the other, as in a step.
void bench_layers(int multiprocessors, double bandwidth) {
  constexpr int kLayers = 8;
  std::vector<PackedLinear> weights;
  double bytes = 0;
  for (int layer = 0; layer < kLayers; ++layer)
    for (const int shape : {2, 3, 0, 1}) {
      weights.push_back(random_weight(kShapes[shape], multiprocessors, weights.size()));
      bytes += static_cast<double>(weights.back().size_bytes());
    }
  const DeviceBuffer operand(static_cast<size_t>(64) * 15360 * 2);
  TANDEM_CUDA_CHECK(cudaMemset(operand.data(), 0x2c, operand.size_bytes()));
  const DeviceBuffer partials(static_cast<size_t>(64) << 20);
  for (const int tiles : {1, 2, 4, 8}) {
    for (const bool dependent : {false, true}) {
      const double us = time_graph(
          [&](const Stream& stream) {
            for (const PackedLinear& weight : weights)
              ops::cuda::product(stream, weight, operand.as<uint16_t>(), tiles,
                                 partials.as<float>());
          },
          dependent);
      fmt::print("layer chain, {:>2} rows, {:<11} {:>7.1f} us per layer, {:.2f} of {:.0f} GB/s\n",
                 8 * tiles, dependent ? "dependent" : "independent", us / kLayers,
                 bytes / bandwidth * 1e6 / us, bandwidth * 1e-9);
    }
  }
}

int run() {
  cudaDeviceProp properties;
  TANDEM_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  const int multiprocessors = properties.multiProcessorCount;
  const double bandwidth = bench::measure_read_bandwidth(multiprocessors);
  fmt::print("{}: {} multiprocessors, reads {:.0f} GB/s\n",
             static_cast<const char*>(properties.name), multiprocessors, bandwidth * 1e-9);
  bench_layers(multiprocessors, bandwidth);
  for (const Shape& shape : kShapes) bench_shape(shape, multiprocessors, bandwidth);
  return 0;
}

}  // namespace
}  // namespace tandem

int main() {
  return tandem::run();
}
