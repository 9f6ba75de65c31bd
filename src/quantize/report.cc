#include "quantize/report.h"

#include <nlohmann/json.hpp>

namespace tandem::quantize {
namespace {

using Json = nlohmann::ordered_json;

const char* name_of(ScaleMethod method) {
  switch (method) {
    case ScaleMethod::kMax:
      return "max";
    case ScaleMethod::kMse:
      return "mse";
    case ScaleMethod::kPercentile:
      return "percentile";
  }
  return "";
}

Json options_json(const QuantizeOptions& options) {
  Json json;
  json["scale"] = name_of(options.scales.method);
  if (options.scales.method == ScaleMethod::kPercentile)
    json["percentile"] = options.scales.percentile;
  json["quotient"] = options.scales.quotient == Quotient::kFloat32 ? "float32" : "bfloat16";
  json["weight_only"] = options.scales.weight_only;
  json["kv_cache_dtype"] = options.scales.kv_fp8 ? "fp8" : "auto";
  json["exclude"] = options.exclude;
  json["auto_exclude"] = options.auto_exclude ? Json(*options.auto_exclude) : Json();
  json["max_new_tokens"] = options.calibration.max_new_tokens;
  json["num_speculative_tokens"] = options.calibration.num_draft_tokens;
  json["seed"] = options.calibration.seed;
  json["temperature"] = options.calibration.sampling.temperature;
  json["top_k"] = options.calibration.sampling.top_k;
  json["top_p"] = options.calibration.sampling.top_p;
  return json;
}

Json calibration_json(const CalibrationRun& run) {
  int64_t prompt_tokens = 0;
  for (const int64_t length : run.prompt_lens) prompt_tokens += length;
  Json json;
  json["num_prompts"] = run.texts.size();
  json["prompt_tokens"] = prompt_tokens;
  json["generated_tokens"] = run.num_generated;
  json["rounds"] = run.num_rounds;
  json["drafts"] = run.stats.num_drafts;
  json["draft_tokens"] = run.stats.num_draft_tokens;
  json["accepted_tokens"] = run.stats.num_accepted_tokens;
  json["mean_acceptance_length"] = run.stats.mean_acceptance_length();
  return json;
}

Json modules_json(const ModelPlan& plan) {
  Json json = Json::object();
  for (const auto& [module, scales] : plan.quantized)
    json[module] = {{"weight_amax", scales.weight_amax},
                    {"weight_scale", scales.weight_scale},
                    {"input_amax", scales.input_amax},
                    {"input_scale", scales.input_scale}};
  return json;
}

Json kv_json(const ModelPlan& plan) {
  Json json = Json::array();
  for (const KvLayerScales& layer : plan.kv)
    json.push_back({{"k_amax", layer.k_amax},
                    {"k_scale", layer.k_scale},
                    {"v_amax", layer.v_amax},
                    {"v_scale", layer.v_scale}});
  return json;
}

Json auto_exclusion_json(const AutoExclusion& exclusion, bool is_assistant) {
  Json json;
  json["unit"] = is_assistant ? "share of the mean acceptance length that is lost"
                              : "KL from BF16 in nats per token";
  json["cost_with_everything_quantized"] = exclusion.measured_before;
  json["cost_of_the_export"] = exclusion.measured_after;
  json["excluded"] = Json::array();
  for (const GroupCost& group : exclusion.excluded)
    json["excluded"].push_back({{"modules", group.modules}, {"cost_alone", group.cost}});
  return json;
}

}  // namespace

std::string report_json(const QuantizeOptions& options, const CalibrationRun& calibration,
                        const ModelPlan& plan, const std::optional<AutoExclusion>& auto_exclusion,
                        bool is_assistant) {
  Json json;
  json["product"] = {{"name", "tandem"}, {"version", options.version}};
  json["model"] = is_assistant ? "assistant" : "target";
  json["options"] = options_json(options);
  json["calibration"] = calibration_json(calibration);
  if (auto_exclusion) json["auto_exclude"] = auto_exclusion_json(*auto_exclusion, is_assistant);
  json["excluded"] = Json::array();
  for (const std::string& module : plan.excluded) json["excluded"].push_back(module);
  json["modules"] = modules_json(plan);
  if (!plan.kv.empty()) json["kv_layers"] = kv_json(plan);
  return json.dump(2) + "\n";
}

}  // namespace tandem::quantize
