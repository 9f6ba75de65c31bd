// Device and pinned memory, and the check every CUDA call goes through.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "base/check.h"

namespace tandem::ops::cuda {

// A CUDA error is sticky and leaves nothing to save: the process says what failed and ends. Memory
// is sized before it is taken, so running out of it is a bug too.
#define TANDEM_CUDA_CHECK(call)                                                      \
  do {                                                                               \
    const cudaError_t tandem_cuda_error = (call);                                    \
    TANDEM_CHECK_MSG(tandem_cuda_error == cudaSuccess, "CUDA: {} failed: {}", #call, \
                     cudaGetErrorString(tandem_cuda_error));                         \
  } while (false)

// Owned device memory. Contents are whatever was there.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t size_bytes);
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  void* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

// Owned page-locked host memory, which the device can copy from and to without a staging pass.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(size_t size_bytes);
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  ~PinnedBuffer();

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  size_t size_bytes() const { return size_bytes_; }

 private:
  void* data_ = nullptr;
  size_t size_bytes_ = 0;
};

// Where kernels go. Dependent kernels may start while their predecessor still runs: each of ours
// waits (griddepcontrol.wait) before it touches anything a predecessor wrote or reads.
struct Stream {
  cudaStream_t handle = nullptr;
  bool dependent = true;
};

}  // namespace tandem::ops::cuda
