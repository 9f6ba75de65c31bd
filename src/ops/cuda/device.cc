#include "ops/cuda/device.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "base/check.h"

namespace tandem::ops::cuda {

void check_cuda(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(fmt::format("CUDA: {}: {}", call, cudaGetErrorString(error)));
}

void check_condition(bool holds, const char* what) {
  TANDEM_CHECK_MSG(holds, "GPU: expected {}", what);
}

namespace {

int attribute_of_device(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  TANDEM_CUDA_CHECK(cudaGetDevice(&device));
  TANDEM_CUDA_CHECK(cudaDeviceGetAttribute(&value, attribute, device));
  return value;
}

// A build that takes the ways of other cards (ops/cuda/card.cuh).
#ifdef TANDEM_MMA_SYNC
constexpr bool kAsOtherCards = true;
#else
constexpr bool kAsOtherCards = false;
#endif

}  // namespace

int num_multiprocessors() {
  return attribute_of_device(cudaDevAttrMultiProcessorCount);
}

int max_shared_bytes() {
  constexpr int kOtherCards = 99 * 1024;
  static const int bytes = attribute_of_device(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return kAsOtherCards ? std::min(bytes, kOtherCards) : bytes;
}

bool has_warpgroup_products() {
  static const bool has = attribute_of_device(cudaDevAttrComputeCapabilityMajor) == 9;
  return has && !kAsOtherCards;
}

DeviceBuffer::DeviceBuffer(size_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes > 0) TANDEM_CUDA_CHECK(cudaMalloc(&data_, size_bytes));
}
DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}
// Errors of a process that is ending are of no interest.
DeviceBuffer::~DeviceBuffer() {
  (void)cudaFree(data_);
}

PinnedBuffer::PinnedBuffer(size_t size_bytes) : size_bytes_(size_bytes) {
  if (size_bytes > 0) TANDEM_CUDA_CHECK(cudaMallocHost(&data_, size_bytes));
}
PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}
PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}
PinnedBuffer::~PinnedBuffer() {
  (void)cudaFreeHost(data_);
}

}  // namespace tandem::ops::cuda
