// Packed weights, and the streams they are packed on.
#include "ops/cuda/packed_linear.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "tests/gpu/support.h"

namespace tandem::ops::test {
namespace {

using cuda::PackedLinear;
using cuda::PackedType;

struct OwnStream : cuda::Stream {
  OwnStream() { TANDEM_CUDA_CHECK(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
  ~OwnStream() { (void)cudaStreamDestroy(handle); }
};

constexpr int kOut = 48;
constexpr int kIn = 64;

PackedLinear packed(const cuda::Stream& stream, const cuda::DeviceBuffer& rows) {
  PackedLinear weight = cuda::make_packed_linear(PackedType::kFp8, kOut, kIn, 4);
  pack_rows(stream, weight, rows.data(), 0, kOut);
  return weight;
}

// What no feature fills is cleared before features are packed, on whichever stream: here the
// default one is late.
TEST(PackedLinearTest, IsClearedBeforeItIsPacked) {
  const OwnStream stream;
  const auto rows = tests::to_device(std::vector<uint8_t>(size_t{kOut} * kIn, 0x38));
  // A kernel's first launch loads it, which may wait for the whole device.
  const PackedLinear first = packed(stream, rows);
  tests::synchronize();
  TANDEM_CUDA_CHECK(cudaLaunchHostFunc(
      nullptr, [](void*) { std::this_thread::sleep_for(std::chrono::milliseconds(50)); }, nullptr));
  const PackedLinear weight = packed(stream, rows);
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream.handle));
  tests::synchronize();
  const auto bytes = tests::to_host<uint8_t>(weight.data, weight.data.size_bytes());
  EXPECT_EQ(std::ranges::count(bytes, 0x38), kOut * kIn);
  EXPECT_EQ(std::ranges::count(bytes, 0), static_cast<int64_t>(bytes.size()) - kOut * kIn);
}

}  // namespace
}  // namespace tandem::ops::test
