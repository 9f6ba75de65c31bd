// Device and pinned memory, and the check every CUDA call goes through.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace tandem::ops::cuda {

// A CUDA error is sticky and leaves nothing to save: it is thrown (std::runtime_error) to whoever
// can still tell the clients, and the process ends. Memory is sized before it is taken, so running
// out of it is a bug too. Functions, not fmt macros: fmt 9 does not compile under nvcc.
void check_cuda(cudaError_t error, const char* call);
// A bug of ours: `what` is the condition that did not hold.
void check_condition(bool holds, const char* what);

#define TANDEM_CUDA_CHECK(call) ::tandem::ops::cuda::check_cuda((call), #call)
#define TANDEM_GPU_CHECK(condition) ::tandem::ops::cuda::check_condition((condition), #condition)

// Of the current device.
int num_multiprocessors();
// What it gives one thread block: 227 KB on Hopper, 99 KB on cards with compute capability 12.x.
int max_shared_bytes();
// Whether it has wgmma. Without it there are no kernels for prompts (wide_*.h).
bool has_warpgroup_products();
// Whether this program has machine code for it.
bool has_code_for_device();

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
  // Set by fetch(): the next kernel alone starts when those before it have ended.
  mutable bool next_waits = false;
};

}  // namespace tandem::ops::cuda
