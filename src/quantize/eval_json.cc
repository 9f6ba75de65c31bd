#include "quantize/eval_json.h"

#include <nlohmann/json.hpp>

namespace tandem::quantize {
namespace {

using nlohmann::ordered_json;

ordered_json acceptance_json(const speculation::AcceptanceStats& stats, int num_draft_tokens) {
  ordered_json rates = ordered_json::array();
  for (int i = 0; i < num_draft_tokens; ++i) rates.push_back(stats.rate_at(i));
  return {{"mean_acceptance_length", stats.mean_acceptance_length()},
          {"acceptance_rate", stats.acceptance_rate()},
          {"per_position", rates},
          {"num_drafts", stats.num_drafts},
          {"num_draft_tokens", stats.num_draft_tokens},
          {"num_accepted_tokens", stats.num_accepted_tokens}};
}

ordered_json task_json(const TaskScore& score, int num_draft_tokens) {
  ordered_json json = {{"prompts", score.num_prompts}, {"tokens", score.num_tokens}};
  if (num_draft_tokens > 0) json["acceptance"] = acceptance_json(score.stats, num_draft_tokens);
  if (score.num_scored > 0)
    json["exact_match"] = {
        {"exact", score.num_exact}, {"scored", score.num_scored}, {"rate", score.exact_rate()}};
  return json;
}

ordered_json pair_json(const PairScore& score, int num_draft_tokens) {
  ordered_json json = task_json(score.all, num_draft_tokens);
  json["tasks"] = ordered_json::object();
  for (const TaskScore& task : score.tasks)
    json["tasks"][task.task] = task_json(task, num_draft_tokens);
  return json;
}

ordered_json text_json(const TextScore& text) {
  ordered_json json = {
      {"texts", text.num_texts}, {"tokens", text.num_tokens}, {"perplexity", text.perplexity}};
  if (!text.comparison) return json;
  json["reference_perplexity"] = text.comparison->perplexity;
  json["kl"] = {{"mean", text.comparison->kl_mean},
                {"p99", text.comparison->kl_p99},
                {"max", text.comparison->kl_max}};
  json["same_choice"] = text.comparison->same_choice;
  return json;
}

ordered_json module_json(const ModuleScore& score) {
  ordered_json json = {{"model", score.assistant ? "assistant" : "target"},
                       {"module", score.module},
                       {"format", format_name(score.format)}};
  if (score.format == io::WeightFormat::kFp8PerTensor) json["weight_scale"] = score.weight_scale;
  if (score.static_input) {
    json["input_scale"] = score.input_scale;
    json["scale_use"] = score.scale_use();
  }
  if (score.input.amax > 0) json["input_amax"] = score.input.amax;
  json["weight_factor"] = score.factor;
  json["weight_correlation"] = score.correlation;
  json["weight_error"] = score.weight_error;
  if (score.output_error) json["output_error"] = *score.output_error;
  return json;
}

ordered_json gate_json(const GateResult& gate) {
  ordered_json checks = ordered_json::array();
  for (const GateCheck& check : gate.checks)
    checks.push_back({{"name", check.name},
                      {"value", check.value},
                      {check.at_least ? "min" : "max", check.bound},
                      {"passed", check.passed()}});
  ordered_json causes = ordered_json::array();
  for (const Cause& cause : gate.causes)
    causes.push_back({{"kind", cause.kind}, {"message", cause.message}, {"defect", cause.defect}});
  return {{"passed", gate.passed}, {"checks", checks}, {"causes", causes}};
}

ordered_json names_json(const EvalNames& names) {
  ordered_json json = {{"target", names.target}};
  if (!names.assistant.empty()) json["assistant"] = names.assistant;
  if (!names.reference_target.empty()) json["reference"] = names.reference_target;
  if (!names.reference_assistant.empty()) json["reference_assistant"] = names.reference_assistant;
  json["prompts"] = names.prompts;
  json["text"] = names.text;
  return json;
}

}  // namespace

const char* format_name(io::WeightFormat format) {
  switch (format) {
    case io::WeightFormat::kBF16:
      return "bf16";
    case io::WeightFormat::kFp8PerTensor:
      return "fp8";
    case io::WeightFormat::kFp8PerChannelPerToken:
      return "fp8_channel";
    case io::WeightFormat::kFp8Block:
      return "fp8_block";
  }
  return "bf16";
}

std::string eval_json(const EvalResult& result, const GateResult* gate) {
  ordered_json json = {{"tandem", result.version}, {"models", names_json(result.names)}};
  json["num_speculative_tokens"] = result.num_draft_tokens;
  json["draft_position_offset"] = result.draft_position_offset;
  json["kv_cache_dtype"] = result.kv_fp8 ? "fp8" : "auto";
  if (result.text) json["text"] = text_json(*result.text);
  if (result.candidate) json["candidate"] = pair_json(*result.candidate, result.num_draft_tokens);
  if (result.reference) json["reference"] = pair_json(*result.reference, result.num_draft_tokens);
  if (result.offset)
    json["other_draft_position"] = {{"offset", 1 - result.offset->offset},
                                    {"mean_acceptance_length", result.offset->other_length},
                                    {"here", result.offset->length}};
  json["modules"] = ordered_json::array();
  for (const ModuleScore& score : result.modules) json["modules"].push_back(module_json(score));
  if (!result.kv.empty()) json["kv"] = ordered_json::array();
  for (const KvScore& kv : result.kv)
    json["kv"].push_back({{"layer", kv.layer},
                          {"k_scale", kv.k_scale},
                          {"v_scale", kv.v_scale},
                          {"k_amax", kv.k_amax},
                          {"v_amax", kv.v_amax},
                          {"calibrated", kv.calibrated}});
  if (gate != nullptr) json["gate"] = gate_json(*gate);
  return json.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace tandem::quantize
