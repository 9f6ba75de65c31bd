// Device copies of host vectors, and reproducible random values, for the tests on a GPU.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "core/bf16.h"
#include "core/e4m3.h"
#include "ops/cuda/device.h"

namespace tandem::tests {

template <typename T>
ops::cuda::DeviceBuffer to_device(const std::vector<T>& values) {
  ops::cuda::DeviceBuffer buffer(values.size() * sizeof(T));
  TANDEM_CUDA_CHECK(
      cudaMemcpy(buffer.data(), values.data(), buffer.size_bytes(), cudaMemcpyHostToDevice));
  return buffer;
}

template <typename T>
std::vector<T> to_host(const ops::cuda::DeviceBuffer& buffer, size_t count) {
  std::vector<T> values(count);
  TANDEM_CUDA_CHECK(
      cudaMemcpy(values.data(), buffer.data(), count * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

// Every byte 0xff: NaN in every floating-point type of ours, and -1 as an index.
// Whether thread blocks have the shared memory that heads of many rows and their lists take.
inline bool has_room_for_heads() {
  return ops::cuda::max_shared_bytes() >= 227 * 1024;
}

inline ops::cuda::DeviceBuffer poisoned(size_t size_bytes) {
  ops::cuda::DeviceBuffer buffer(size_bytes);
  TANDEM_CUDA_CHECK(cudaMemset(buffer.data(), 0xff, size_bytes));
  return buffer;
}

inline std::vector<core::BFloat16> random_bf16(size_t count, uint32_t seed, float scale = 1.0F) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  std::vector<core::BFloat16> values(count);
  for (core::BFloat16& value : values) value = core::to_bf16(normal(random));
  return values;
}

// Finite ones, whose bits without the sign are at most `largest`.
inline std::vector<uint8_t> random_e4m3(size_t count, uint32_t seed, int largest) {
  std::mt19937 random(seed);
  std::vector<uint8_t> values(count);
  for (uint8_t& value : values) {
    do value = static_cast<uint8_t>(random());
    while (core::e4m3_is_nan(value) || (value & 0x7f) > largest);
  }
  return values;
}

inline void synchronize() {
  TANDEM_CUDA_CHECK(cudaDeviceSynchronize());
}

}  // namespace tandem::tests
