// A build without CUDA: the same functions, which say so.
#include "gpu/device_step.h"

namespace tandem::gpu {
namespace {

tl::unexpected<base::Error> no_cuda() {
  return base::unsupported(
      "--device cuda: this program was built without CUDA; build it where nvcc 13 is installed, or "
      "use --device cpu");
}

}  // namespace

base::Result<DeviceInfo> find_device() {
  return no_cuda();
}

int64_t working_bytes(const io::TextConfig& /*target*/, const WorkingSizes& /*sizes*/) {
  return 0;
}

int64_t screen_bytes(const core::TensorView& /*head*/) {
  return 0;
}

base::Result<std::unique_ptr<DeviceStep>> open_device_step(const io::Checkpoint& /*target*/,
                                                           const io::Checkpoint* /*assistant*/,
                                                           const DeviceStepOptions& /*options*/) {
  return no_cuda();
}

}  // namespace tandem::gpu
