#include "io/tensor_names.h"

#include <array>
#include <utility>

namespace tandem::io {
namespace {

// Longest first: the first that fits is stripped.
constexpr std::array<std::string_view, 4> kPrefixes = {
    "model.language_model.", "language_model.model.", "language_model.", "model."};

constexpr std::array<std::string_view, 6> kMediaModules = {
    "vision_embedder.", "embed_vision.", "embed_audio.",
    "vision_tower.",    "audio_tower.",  "multi_modal_projector."};

constexpr std::array<std::pair<std::string_view, std::string_view>, 9> kHints = {{
    {"masked_embedding.", "clustered output embeddings (E2B and E4B assistants)"},
    {"per_layer_", "per-layer embeddings (E2B, E4B)"},
    {"embed_tokens_per_layer", "per-layer embeddings (E2B, E4B)"},
    {".experts.", "mixture-of-experts layers (26B-A4B)"},
    {".router.", "mixture-of-experts layers (26B-A4B)"},
    {"weight_scale_2", "NVFP4 weights"},
    {"weight_scale_inv", "DeepSeek-style block FP8"},
    {"pre_quant_scale", "AWQ-style input scales"},
    {"weight_packed", "packed integer or FP4 weights"},
}};

}  // namespace

std::string canonical_tensor_name(std::string_view stored_name) {
  for (const std::string_view prefix : kPrefixes)
    if (stored_name.starts_with(prefix)) return std::string(stored_name.substr(prefix.size()));
  return std::string(stored_name);
}

bool is_media_tensor(std::string_view stored_name) {
  const std::string name = canonical_tensor_name(stored_name);
  for (const std::string_view module : kMediaModules)
    if (name.starts_with(module)) return true;
  return false;
}

std::string spelling_prefix(std::string_view stored_name, std::string_view canonical_name) {
  if (!stored_name.ends_with(canonical_name)) return {};
  return std::string(stored_name.substr(0, stored_name.size() - canonical_name.size()));
}

std::string stored_spelling(std::string_view canonical_name, std::string_view prefix) {
  const bool outside_the_tower = canonical_name.starts_with("pre_projection.") ||
                                 canonical_name.starts_with("post_projection.") ||
                                 canonical_name.starts_with("lm_head.");
  return (outside_the_tower ? std::string() : std::string(prefix)) + std::string(canonical_name);
}

std::string hint_for_unknown_tensor(std::string_view canonical_name) {
  for (const auto& [part, what] : kHints)
    if (canonical_name.find(part) != std::string_view::npos)
      return std::string("; ") + std::string(what) + " are not supported";
  return {};
}

}  // namespace tandem::io
