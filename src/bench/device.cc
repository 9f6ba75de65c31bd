#include "bench/device.h"

#include "bench/cpu_device.h"

namespace tandem::bench {

base::Result<std::unique_ptr<Device>> open_device(std::string_view kind, int num_threads) {
  if (kind == "cpu") return std::make_unique<CpuDevice>(num_threads);
  return base::unsupported("--device: expected cpu or cuda, got {}", kind);
}

}  // namespace tandem::bench
