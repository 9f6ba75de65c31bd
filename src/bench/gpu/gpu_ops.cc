#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/gpu/kernel_bench.h"
#include "bench/gpu/read_bandwidth.h"
#include "bench/gpu_bench.h"
#include "gpu/device_step.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

const LinearShape* find(const GpuModel& model, const std::string& begin, const std::string& end) {
  const auto found = std::ranges::find_if(model.shapes, [&](const LinearShape& shape) {
    return shape.name.starts_with(model.prefix + begin) &&
           (end.empty() || shape.name == model.prefix + begin + end);
  });
  return found == model.shapes.end() ? nullptr : &*found;
}

// The projections of a layer of this kind in the order of a forward; empty where there is none.
std::vector<const LinearShape*> layer_of(const GpuModel& model, const std::string& kind) {
  std::vector<const LinearShape*> layer = {find(model, kind + " q", ""), find(model, kind, " o"),
                                           find(model, "gate_up", ""), find(model, "down", "")};
  if (std::ranges::find(layer, nullptr) != layer.end()) layer.clear();
  return layer;
}

void append(ordered_json& list, const ordered_json& more) {
  list.insert(list.end(), more.begin(), more.end());
}

void bench_chains(const GpuFacts& facts, const GpuModel& model, const GpuOpsOptions& options,
                  ordered_json& results) {
  for (const std::string kind : {"sliding", "full"}) {
    const std::string name = model.prefix + kind + " layer";
    const auto layer = layer_of(model, kind);
    if (layer.empty() || !wanted(name, options.only)) continue;
    append(results, bench_chain(facts, name, layer, options.rows));
  }
}

void bench_prompts(const GpuFacts& facts, const GpuModel& model, const GpuOpsOptions& options,
                   ordered_json& results) {
  if (!ops::cuda::has_warpgroup_products() || model.config.kind != io::ModelKind::kTarget) return;
  for (const LinearShape& shape : model.shapes) {
    if (!wanted(shape.name, options.only) || *packed_type(shape) != ops::cuda::PackedType::kFp8)
      continue;
    append(results, bench_wide_product(facts, shape, options.prompt_rows));
  }
}

}  // namespace

base::Result<std::string> gpu_description() {
  TANDEM_ASSIGN_OR_RETURN(const gpu::DeviceInfo info, gpu::find_device());
  return fmt::format("{}, {} multiprocessors", info.name, info.num_multiprocessors);
}

base::Result<double> gpu_read_bandwidth() {
  TANDEM_ASSIGN_OR_RETURN(const gpu::DeviceInfo info, gpu::find_device());
  return measure_read_bandwidth(info.num_multiprocessors);
}

base::Result<ordered_json> run_gpu_ops_bench(const std::vector<GpuModel>& models,
                                             const GpuOpsOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const gpu::DeviceInfo info, gpu::find_device());
  for (const GpuModel& model : models)
    for (const LinearShape& shape : model.shapes)
      TANDEM_RETURN_IF_ERROR(packed_type(shape).map([](auto) {}));
  std::string missing;
  const std::unique_ptr<CublasLt> library = CublasLt::load(missing);
  GpuFacts facts{info.num_multiprocessors, 0, library.get()};
  facts.read_bandwidth = measure_read_bandwidth(info.num_multiprocessors);
  ordered_json result = {{"read_gb_per_s", facts.read_bandwidth * 1e-9},
                         {"peer", library ? library->version() : "absent: " + missing}};
  for (const char* part : {"ops", "prompt_ops", "chains", "kernels"})
    result[part] = ordered_json::array();
  for (const GpuModel& model : models) {
    for (const LinearShape& shape : model.shapes) {
      if (!wanted(shape.name, options.only)) continue;
      const ordered_json lines = bench_product(facts, shape, *packed_type(shape), options.rows);
      append(result["ops"], lines);
      if (shape.name.ends_with("head") && *packed_type(shape) == ops::cuda::PackedType::kBF16)
        append(result["ops"], bench_screened_head(facts, shape, lines));
    }
    bench_chains(facts, model, options, result["chains"]);
    bench_attention_kernels(facts, model, options.only, result["kernels"]);
    bench_row_kernels(facts, model, options.only, result["kernels"]);
  }
  // Last: they take all the power there is, and for a while behind them the card clocks lower.
  for (const GpuModel& model : models) bench_prompts(facts, model, options, result["prompt_ops"]);
  return result;
}

}  // namespace tandem::bench
