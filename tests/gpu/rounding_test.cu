// How kernels round, against the library's own operations: every float, every pair of BF16 values.
#include "ops/cuda/rounding.cuh"

#include <gtest/gtest.h>

#include "ops/cuda/device.h"
#include "ops/cuda/row_math.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kBlocks = 1024;
constexpr int kThreads = 256;
constexpr uint64_t kAllWords = uint64_t{1} << 32;

__device__ bool differ(float a, float b) {
  if (a != a || b != b) return (a != a) != (b != b);
  return __float_as_uint(a) != __float_as_uint(b);
}

// Counts the words for which `wrong` says so, and keeps one of them.
struct Found {
  unsigned long long count = 0;
  unsigned long long word = 0;
};
template <typename Wrong>
__global__ void find(Wrong wrong, Found* found) {
  const uint64_t first = uint64_t{blockIdx.x} * kThreads + threadIdx.x;
  for (uint64_t word = first; word < kAllWords; word += uint64_t{kBlocks} * kThreads) {
    if (!wrong(static_cast<uint32_t>(word))) continue;
    atomicAdd(&found->count, 1ULL);
    atomicExch(&found->word, static_cast<unsigned long long>(word));
  }
}
template <typename Wrong>
void expect_none(Wrong wrong) {
  const DeviceBuffer device(sizeof(Found));
  Found found;
  TANDEM_CUDA_CHECK(cudaMemcpy(device.data(), &found, sizeof(found), cudaMemcpyHostToDevice));
  find<<<kBlocks, kThreads>>>(wrong, device.as<Found>());
  TANDEM_CUDA_CHECK(cudaGetLastError());
  TANDEM_CUDA_CHECK(cudaMemcpy(&found, device.data(), sizeof(found), cudaMemcpyDeviceToHost));
  EXPECT_EQ(found.count, 0) << "as of " << std::hex << found.word;
}

struct WrongBf16 {
  __device__ bool operator()(uint32_t word) const {
    const float x = __uint_as_float(word);
    return differ(round_bf16(x), __bfloat162float(__float2bfloat16_rn(x)));
  }
};
TEST(Rounding, Bf16IsTheLibrarys) {
  expect_none(WrongBf16{});
}

struct WrongRoot {
  __device__ bool operator()(uint32_t word) const {
    const float x = __uint_as_float(word);
    return differ(inverse_sqrt(x), __frcp_rn(__fsqrt_rn(x)));
  }
};
TEST(Rounding, InverseRootsAreRoundedTwice) {
  expect_none(WrongRoot{});
}

struct WrongRms {
  int count;
  float eps;
  __device__ bool operator()(uint32_t word) const {
    const float squares = __uint_as_float(word);
    if (eps == 0.0F && fabsf(squares) < 1e-30F) return false;  // a mean that is subnormal
    const float mean = __fadd_rn(__fdiv_rn(squares, static_cast<float>(count)), eps);
    return differ(inverse_rms(squares, ColumnCount(count), eps), __frcp_rn(__fsqrt_rn(mean)));
  }
};
TEST(Rounding, EveryStepOfAnRmsIsRounded) {
  for (const int count : {32, 64, 96, 256, 512, 1024, 1536, 2560, 2816, 3840, 5376, 8192})
    for (const float eps : {1e-6F, 0.07F, 0.0F}) {
      SCOPED_TRACE(count);
      SCOPED_TRACE(eps);
      expect_none(WrongRms{count, eps});
    }
}

struct WrongSum {
  __device__ bool operator()(uint32_t word) const {
    const uint4 sum = added({word << 16, word & 0xffff0000U, 0, 0}, {word & 0xffff0000U, 0, 0, 0});
    const float a = low_bf16(word);
    const float b = high_bf16(word);
    return differ(high_bf16(sum.x), round_bf16(a + b)) ||
           differ(high_bf16(sum.y), round_bf16(b + 0.0F)) || low_bf16(sum.x) != 0.0F;
  }
};
TEST(Rounding, SumsOfBf16AreThoseOfFp32Rounded) {
  expect_none(WrongSum{});
}

}  // namespace
}  // namespace tandem::ops::cuda
