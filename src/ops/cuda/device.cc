#include "ops/cuda/device.h"

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

int num_multiprocessors() {
  int device = 0;
  int count = 0;
  TANDEM_CUDA_CHECK(cudaGetDevice(&device));
  TANDEM_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
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
