// InspectReport as JSON and as text.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/inspect_report.h"
#include "cli/progress.h"

namespace tandem::cli {
namespace {

using nlohmann::ordered_json;

bool is_target(const InspectReport& report) {
  return report.config.kind == io::ModelKind::kTarget;
}

int64_t num_sliding(const io::TextConfig& text) {
  int64_t count = 0;
  for (const io::LayerConfig& layer : text.layers)
    count += layer.type == io::LayerType::kSliding ? 1 : 0;
  return count;
}

ordered_json range_json(const std::optional<ScaleRange>& range) {
  if (!range) return nullptr;
  return {{"min", range->min}, {"median", range->median}, {"max", range->max}};
}

ordered_json config_json(const io::ModelConfig& config) {
  const io::TextConfig& text = config.text;
  ordered_json json = {{"hidden_size", text.hidden_size},
                       {"intermediate_size", text.intermediate_size},
                       {"num_attention_heads", text.num_attention_heads},
                       {"num_hidden_layers", text.num_layers()},
                       {"num_sliding_layers", num_sliding(text)},
                       {"sliding_window", text.sliding_window},
                       {"vocab_size", text.vocab_size},
                       {"max_position_embeddings", text.max_position_embeddings},
                       {"tie_word_embeddings", text.tie_word_embeddings}};
  if (config.kind == io::ModelKind::kAssistant)
    json["backbone_hidden_size"] = config.backbone_hidden_size;
  return json;
}

ordered_json memory_json(const InspectReport& report) {
  ordered_json json = {{"weight_bytes", report.weight_bytes},
                       {"skipped_bytes", report.skipped_bytes}};
  if (report.kv)
    json["kv"] = {{"dtype", core::dtype_name(report.kv->dtype)},
                  {"bytes_per_token", report.kv->bytes_per_token},
                  {"bytes_per_sequence", report.kv->bytes_per_sequence},
                  {"length", report.kv->length},
                  {"bytes_at_length", report.kv->bytes_at_length}};
  return json;
}

std::string range_text(const std::optional<ScaleRange>& range) {
  if (!range) return "-";
  return fmt::format("{:.3g} {:.3g} {:.3g}", range->min, range->median, range->max);
}

std::string bytes_text(int64_t bytes) {
  return describe_bytes(static_cast<double>(bytes));
}

void append_heading(const InspectReport& report, std::string& out) {
  const io::TextConfig& text = report.config.text;
  out += fmt::format("{}\n  {} ({}), {:.1f} M parameters\n", report.dir.string(),
                     is_target(report) ? "target" : "assistant", report.config.model_type,
                     static_cast<double>(report.num_parameters) / 1e6);
  out += fmt::format("  {} layers, {} of them with a window of {}; hidden {}, vocabulary {}\n",
                     text.num_layers(), num_sliding(text), text.sliding_window, text.hidden_size,
                     text.vocab_size);
  if (is_target(report))
    out += fmt::format(
        "  up to {} tokens; answers end at ids {}\n", text.max_position_embeddings,
        fmt::join(report.generation.eos_token_ids.empty() ? report.config.eos_token_ids
                                                          : report.generation.eos_token_ids,
                  ", "));
  else
    out += fmt::format("  drafts for a target with hidden_size {}; no text model by itself\n",
                       report.config.backbone_hidden_size);
}

void append_modules(const InspectReport& report, std::string& out) {
  const io::QuantizationInfo& quantization = report.quantization;
  out += quantization.quantized ? fmt::format("\nquantized: {}{}{}\n", quantization.algorithm,
                                              quantization.weight_only ? ", weights only" : "",
                                              quantization.kv_cache_fp8 ? ", FP8 KV cache" : "")
                                : "\nnot quantized\n";
  out += fmt::format("  {:<22} {:<16} {:>5} {:>10}  {:<26} {}\n", "module", "format", "count",
                     "size", "weight scale min med max", "input scale min med max");
  for (const ModuleKind& kind : report.modules)
    out += fmt::format("  {:<22} {:<16} {:>5} {:>10}  {:<26} {}\n", kind.name, kind.format,
                       kind.count, bytes_text(kind.size_bytes), range_text(kind.weight_scale),
                       range_text(kind.input_scale));
  if (report.k_scales)
    out += fmt::format("  KV scales: k {}, v {}\n", range_text(report.k_scales),
                       range_text(report.v_scales));
}

void append_memory(const InspectReport& report, std::string& out) {
  out += fmt::format("\nmemory\n  weights {}", bytes_text(report.weight_bytes));
  if (report.skipped_bytes > 0)
    out += fmt::format(" (and {} of vision and audio that stay on the disk)",
                       bytes_text(report.skipped_bytes));
  out += '\n';
  if (!report.kv) return;
  out += fmt::format("  KV cache ({}): {} per token and {} per sequence; {} for {} tokens\n",
                     core::dtype_name(report.kv->dtype), bytes_text(report.kv->bytes_per_token),
                     bytes_text(report.kv->bytes_per_sequence),
                     bytes_text(report.kv->bytes_at_length), report.kv->length);
}

void append_partners(const InspectReport& report, std::string& out) {
  out += fmt::format(
      "\npairs with\n  {}\n",
      is_target(report)
          ? fmt::format("an assistant with backbone_hidden_size {}", report.config.text.hidden_size)
          : fmt::format("a target with hidden_size {}", report.config.backbone_hidden_size));
  for (const Partner& partner : report.partners)
    out += fmt::format("  {} ({}): {}\n", partner.dir.string(), partner.model_type,
                       partner.fits ? "fits" : "does not fit: " + partner.reason);
}

}  // namespace

ordered_json report_json(const InspectReport& report) {
  ordered_json modules = ordered_json::array();
  for (const ModuleKind& kind : report.modules)
    modules.push_back({{"name", kind.name},
                       {"format", kind.format},
                       {"count", kind.count},
                       {"num_parameters", kind.num_parameters},
                       {"size_bytes", kind.size_bytes},
                       {"weight_scale", range_json(kind.weight_scale)},
                       {"input_scale", range_json(kind.input_scale)}});
  ordered_json partners = ordered_json::array();
  for (const Partner& partner : report.partners)
    partners.push_back({{"dir", partner.dir.string()},
                        {"model_type", partner.model_type},
                        {"fits", partner.fits},
                        {"reason", partner.reason}});
  return {
      {"dir", report.dir.string()},
      {"kind", is_target(report) ? "target" : "assistant"},
      {"model_type", report.config.model_type},
      {"num_parameters", report.num_parameters},
      {"config", config_json(report.config)},
      {"eos_token_ids", report.generation.eos_token_ids.empty() ? report.config.eos_token_ids
                                                                : report.generation.eos_token_ids},
      {"suppress_tokens", report.generation.suppress_tokens},
      {"quantization",
       {{"quantized", report.quantization.quantized},
        {"algorithm", report.quantization.algorithm},
        {"weight_only", report.quantization.weight_only},
        {"kv_cache_fp8", report.quantization.kv_cache_fp8},
        {"exclude_modules", report.quantization.exclude_modules}}},
      {"modules", std::move(modules)},
      {"k_scale", range_json(report.k_scales)},
      {"v_scale", range_json(report.v_scales)},
      {"memory", memory_json(report)},
      {"pairs_with", std::move(partners)}};
}

std::string report_text(const InspectReport& report) {
  std::string out;
  append_heading(report, out);
  append_modules(report, out);
  append_memory(report, out);
  append_partners(report, out);
  return out;
}

}  // namespace tandem::cli
