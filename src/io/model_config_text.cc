#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/model_config_reader.h"

namespace tandem::io {
namespace {

using nlohmann::json;

constexpr int64_t kMaxSize = int64_t{1} << 24;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

// Keys that switch on something Tandem does not run; each with the one value it accepts besides
// absent and null.
struct Refused {
  const char* key;
  std::string_view accepted;  // as JSON text
  const char* what;
};

base::Status refuse_unsupported(const JsonObject& object, ModelKind kind) {
  static constexpr std::array<Refused, 6> kTable = {{
      {"enable_moe_block", "false", "mixture-of-experts layers (26B-A4B)"},
      {"num_experts", "0", "mixture-of-experts layers (26B-A4B)"},
      {"hidden_size_per_layer_input", "0", "per-layer embeddings (E2B, E4B)"},
      {"use_double_wide_mlp", "false", "double-wide MLP layers (E2B)"},
      {"attention_bias", "false", "attention with biases"},
      {"hidden_activation", R"("gelu_pytorch_tanh")", "other activations"},
  }};
  for (const Refused& row : kTable) {
    const json* value = object.find(row.key);
    if (value != nullptr && value->dump() != row.accepted)
      return base::unsupported("{}: {}: expected {}, got {}: {} are not supported yet",
                               object.where(), row.key, row.accepted, describe_json(*value),
                               row.what);
  }
  const json* bidirectional = object.find("use_bidirectional_attention");
  if (bidirectional != nullptr && bidirectional->dump() != R"("vision")")
    return base::unsupported(
        "{}: use_bidirectional_attention: expected \"vision\" or null, got {}: text that attends "
        "both ways is not supported",
        object.where(), describe_json(*bidirectional));
  if (kind == ModelKind::kTarget) {
    TANDEM_ASSIGN_OR_RETURN(const int64_t shared,
                            object.integer_or("num_kv_shared_layers", 0, 0, kMaxSize));
    if (shared != 0)
      return base::unsupported(
          "{}: num_kv_shared_layers: expected 0 in a target, got {}: layers that share KV (E2B, "
          "E4B) are not supported yet",
          object.where(), shared);
  }
  return {};
}

base::Status check_assistant_shares_kv(const JsonObject& object, int64_t num_layers) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t shared,
                          object.integer_or("num_kv_shared_layers", 0, 0, kMaxSize));
  if (shared != 0 && shared != num_layers)
    return base::invalid(
        "{}: num_kv_shared_layers: expected {}, all layers of the assistant (it has no KV of its "
        "own), got {}",
        object.where(), num_layers, shared);
  return {};
}

// What the models compute with in FP32 must not round to 0 there.
base::Result<double> positive_float_or(const JsonObject& object, const char* key, double fallback,
                                       double max) {
  constexpr double kLeast = std::numeric_limits<float>::min();
  TANDEM_ASSIGN_OR_RETURN(const double number, object.number_or(key, fallback, 0, max, true));
  if (object.has(key) && number < kLeast)
    return object.mismatch(key, fmt::format("a number from {:.3g} (FP32) to {}", kLeast, max));
  return number;
}

}  // namespace

base::Result<TextConfig> read_text_config(const JsonObject& object, ModelKind kind) {
  TANDEM_RETURN_IF_ERROR(refuse_unsupported(object, kind));
  TextConfig text;
  TANDEM_ASSIGN_OR_RETURN(text.hidden_size, object.integer("hidden_size", 1, kMaxSize));
  TANDEM_ASSIGN_OR_RETURN(text.intermediate_size, object.integer("intermediate_size", 1, kMaxSize));
  TANDEM_ASSIGN_OR_RETURN(text.num_attention_heads,
                          object.integer("num_attention_heads", 1, kMaxHeads));
  TANDEM_ASSIGN_OR_RETURN(text.vocab_size, object.integer("vocab_size", 2, kMaxSize));
  TANDEM_ASSIGN_OR_RETURN(text.sliding_window, object.integer("sliding_window", 1, kMaxPositions));
  TANDEM_ASSIGN_OR_RETURN(text.max_position_embeddings,
                          object.integer("max_position_embeddings", 1, kMaxPositions));
  TANDEM_ASSIGN_OR_RETURN(text.rms_norm_eps, positive_float_or(object, "rms_norm_eps", 1e-6, 1));
  TANDEM_ASSIGN_OR_RETURN(text.final_logit_softcapping,
                          positive_float_or(object, "final_logit_softcapping", 0, 1e6));
  TANDEM_ASSIGN_OR_RETURN(text.tie_word_embeddings, object.boolean_or("tie_word_embeddings", true));
  TANDEM_ASSIGN_OR_RETURN(text.layers, read_layers(object, text.num_attention_heads));
  if (kind == ModelKind::kAssistant)
    TANDEM_RETURN_IF_ERROR(check_assistant_shares_kv(object, text.num_layers()));
  return text;
}

}  // namespace tandem::io
