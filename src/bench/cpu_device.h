// The CPU as a device: the process's own memory and threads, wall time.
#pragma once

#include <vector>

#include "bench/device.h"
#include "core/buffer.h"
#include "core/thread_pool.h"

namespace tandem::bench {

class CpuDevice : public Device {
 public:
  explicit CpuDevice(int num_threads);

  std::string kind() const override { return "cpu"; }
  std::string description() const override;
  const ops::Context& context() const override { return context_; }
  core::TensorView allocate(core::DType dtype, const core::Shape& shape) override;
  std::vector<double> time(const Timing& timing,
                           const std::function<void(int64_t call)>& work) override;
  double read_bandwidth() override;

 private:
  core::ThreadPool pool_;
  ops::Context context_;
  std::vector<core::Buffer> buffers_;
  core::Buffer read_;  // [kReadBytes] u8, made when it is first needed
};

// Seconds per call on the wall clock, as Device::time.
std::vector<double> time_calls(const Timing& timing, const std::function<void(int64_t call)>& work);

// Bytes per second of adding up `bytes` with the threads of `context`, best of three.
double measure_read_bandwidth(const ops::Context& context, const core::TensorView& bytes);

}  // namespace tandem::bench
