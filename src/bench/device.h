// What kernels and steps are measured on. A backend joins by one more implementation.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace tandem::bench {

// How often something is measured: at least both, and never more than a thousand times the calls.
struct Timing {
  int min_calls = 7;
  double min_seconds = 0.25;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string kind() const = 0;         // "cpu", as --device spells it
  virtual std::string description() const = 0;  // "Intel(R) Xeon(R), 2 threads, avx512"
  virtual const ops::Context& context() const = 0;

  // Memory for ops, filled with bytes that are small finite numbers in BF16 and E4M3. Lives as long
  // as the device.
  virtual core::TensorView allocate(core::DType dtype, const core::Shape& shape) = 0;

  // Seconds of each call of `work`, after one that is not counted. `work` gets the number of the
  // call, so that it can take other memory each time, and returns when the device is done.
  virtual std::vector<double> time(const Timing& timing,
                                   const std::function<void(int64_t call)>& work) = 0;

  // Bytes per second of reading memory that no cache holds, the best of several readings now.
  virtual double read_bandwidth() = 0;
};

// "cpu". `num_threads` 0: all cores. On a GPU kernels are measured by bench/gpu_bench.h.
base::Result<std::unique_ptr<Device>> open_device(std::string_view kind, int num_threads);

}  // namespace tandem::bench
