// A build without CUDA: the same functions, which say so.
#include <nlohmann/json.hpp>

#include "bench/gpu_bench.h"
#include "gpu/device_step.h"

namespace tandem::bench {
namespace {

tl::unexpected<base::Error> no_gpu() {
  return tl::unexpected<base::Error>(gpu::find_device().error());
}

}  // namespace

base::Result<std::string> gpu_description() {
  return no_gpu();
}

base::Result<double> gpu_read_bandwidth() {
  return no_gpu();
}

base::Result<nlohmann::ordered_json> run_gpu_ops_bench(const std::vector<GpuModel>& /*models*/,
                                                       const GpuOpsOptions& /*options*/) {
  return no_gpu();
}

}  // namespace tandem::bench
