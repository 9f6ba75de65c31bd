#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "io/model_config_reader.h"

namespace tandem::io {
namespace {

using nlohmann::json;

constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxKvHeads = 1024;
// What transformers assumes for keys that a file leaves out.
constexpr int64_t kDefaultHeadDim = 256;
constexpr int64_t kDefaultGlobalHeadDim = 512;
constexpr int64_t kDefaultPattern = 6;  // every sixth layer is full

const char* type_name(LayerType type) {
  return type == LayerType::kSliding ? "sliding_attention" : "full_attention";
}

base::Result<std::vector<LayerType>> read_layer_types(const JsonObject& object) {
  TANDEM_ASSIGN_OR_RETURN(const int64_t num_layers,
                          object.integer("num_hidden_layers", 1, kMaxLayers));
  std::vector<LayerType> types;
  if (!object.has("layer_types")) {
    for (int64_t i = 0; i < num_layers; ++i)
      types.push_back((i + 1) % kDefaultPattern != 0 && i + 1 != num_layers ? LayerType::kSliding
                                                                            : LayerType::kFull);
    return types;
  }
  TANDEM_ASSIGN_OR_RETURN(const auto names, object.strings_or_empty("layer_types"));
  if (static_cast<int64_t>(names.size()) != num_layers)
    return base::invalid("{}: layer_types: expected {} entries as num_hidden_layers says, got {}",
                         object.where(), num_layers, names.size());
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] != "sliding_attention" && names[i] != "full_attention")
      return base::unsupported(
          "{}: layer_types[{}]: expected sliding_attention or full_attention, got {}",
          object.where(), i, describe_json(names[i]));
    types.push_back(names[i] == "sliding_attention" ? LayerType::kSliding : LayerType::kFull);
  }
  // transformers silently turns the last layer into a full one; no published model needs that.
  if (types.back() != LayerType::kFull)
    return base::invalid(
        "{}: layer_types[{}]: expected the last layer to be full_attention, got sliding_attention",
        object.where(), names.size() - 1);
  return types;
}

base::Result<RopeConfig> read_rope(const JsonObject& parameters, LayerType type) {
  const char* key = type_name(type);
  RopeConfig rope;
  TANDEM_ASSIGN_OR_RETURN(const JsonObject object, parameters.object(key));
  TANDEM_ASSIGN_OR_RETURN(const std::string rope_type, object.string_or("rope_type", "default"));
  if (rope_type != "default" && rope_type != "proportional")
    return base::unsupported("{}: rope_type: expected default or proportional, got {}",
                             object.where(), describe_json(rope_type));
  if (!object.has("rope_theta")) return object.mismatch("rope_theta", "a number above 0");
  TANDEM_ASSIGN_OR_RETURN(rope.theta, object.number_or("rope_theta", 0, 0, 1e12, true));
  TANDEM_ASSIGN_OR_RETURN(rope.partial_rotary_factor,
                          object.number_or("partial_rotary_factor", 1, 0, 1, true));
  TANDEM_ASSIGN_OR_RETURN(const double factor, object.number_or("factor", 1, 0, 1e6, true));
  if (factor != 1.0)
    return base::unsupported("{}: factor: expected 1, got {}: scaled rope is not supported",
                             object.where(), factor);
  if (rope_type == "default" && rope.partial_rotary_factor != 1.0)
    return base::unsupported(
        "{}: partial_rotary_factor: expected 1 or none with rope_type default, got {}",
        object.where(), rope.partial_rotary_factor);
  return rope;
}

base::Status read_all_rope(const JsonObject& object, std::vector<LayerConfig>& layers) {
  RopeConfig sliding{.theta = 1e4, .partial_rotary_factor = 1.0};
  RopeConfig full{.theta = 1e6, .partial_rotary_factor = 0.25};
  if (object.has("rope_parameters")) {
    TANDEM_ASSIGN_OR_RETURN(const JsonObject parameters, object.object("rope_parameters"));
    const auto uses = [&](LayerType type) {
      return std::any_of(layers.begin(), layers.end(),
                         [&](const LayerConfig& layer) { return layer.type == type; });
    };
    if (uses(LayerType::kSliding)) {
      TANDEM_ASSIGN_OR_RETURN(sliding, read_rope(parameters, LayerType::kSliding));
    }
    if (uses(LayerType::kFull)) {
      TANDEM_ASSIGN_OR_RETURN(full, read_rope(parameters, LayerType::kFull));
    }
  }
  for (LayerConfig& layer : layers) layer.rope = layer.type == LayerType::kFull ? full : sliding;
  return {};
}

struct LayerOverride {
  std::optional<int64_t> head_dim;
  std::optional<int64_t> num_key_value_heads;
};

base::Result<LayerOverride> read_override(const JsonObject& object, const json& value) {
  LayerOverride result;
  for (const auto& [key, unused] : value.items())
    if (key != "head_dim" && key != "num_key_value_heads")
      return base::unsupported(
          "{}: expected only head_dim and num_key_value_heads to differ per layer, got {}",
          object.where(), describe_json(key));
  if (object.has("head_dim")) {
    TANDEM_ASSIGN_OR_RETURN(result.head_dim, object.integer("head_dim", 2, kMaxHeadDim));
  }
  if (object.has("num_key_value_heads")) {
    TANDEM_ASSIGN_OR_RETURN(result.num_key_value_heads,
                            object.integer("num_key_value_heads", 1, kMaxKvHeads));
  }
  return result;
}

base::Result<std::map<int64_t, LayerOverride>> read_per_layer_config(const JsonObject& object,
                                                                     size_t num_layers) {
  TANDEM_ASSIGN_OR_RETURN(const JsonObject map, object.object("per_layer_config"));
  std::map<int64_t, LayerOverride> overrides;
  for (const auto& [key, value] : object.find("per_layer_config")->items()) {
    const bool digits =
        !key.empty() && key.size() <= 4 && key.find_first_not_of("0123456789") == std::string::npos;
    const size_t layer = digits ? std::stoul(key) : num_layers;
    if (layer >= num_layers || std::to_string(layer) != key)
      return base::invalid("{}: expected layer numbers from 0 to {} as keys, got {}", map.where(),
                           num_layers - 1, describe_json(key));
    TANDEM_ASSIGN_OR_RETURN(const JsonObject entry, map.object(key.c_str()));
    TANDEM_ASSIGN_OR_RETURN(overrides[static_cast<int64_t>(layer)], read_override(entry, value));
  }
  return overrides;
}

// The flat spelling: one head size and KV head count for all full layers.
base::Result<LayerOverride> read_flat_global(const JsonObject& object, bool k_eq_v) {
  LayerOverride global;
  TANDEM_ASSIGN_OR_RETURN(
      global.head_dim, object.integer_or("global_head_dim", kDefaultGlobalHeadDim, 2, kMaxHeadDim));
  if (object.has("num_global_key_value_heads")) {
    TANDEM_ASSIGN_OR_RETURN(const int64_t heads,
                            object.integer("num_global_key_value_heads", 1, kMaxKvHeads));
    // transformers reads this count only for models whose full layers have no V projection.
    if (k_eq_v) global.num_key_value_heads = heads;
  }
  return global;
}

base::Status check_layer(const JsonObject& object, size_t index, const LayerConfig& layer,
                         int64_t num_attention_heads) {
  const std::string where =
      fmt::format("{}: layer {} ({})", object.where(), index, type_name(layer.type));
  if (num_attention_heads % layer.num_key_value_heads != 0)
    return base::invalid(
        "{}: expected num_attention_heads to be a multiple of its KV heads, got {} and {}", where,
        num_attention_heads, layer.num_key_value_heads);
  if (layer.head_dim % 2 != 0)
    return base::invalid("{}: expected an even head_dim (rope rotates pairs), got {}", where,
                         layer.head_dim);
  return {};
}

// Both spellings in one file must say the same.
base::Status check_spellings_agree(const JsonObject& object, const LayerOverride& flat,
                                   const std::vector<LayerConfig>& layers) {
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i].type != LayerType::kFull) continue;
    if (object.has("global_head_dim") && *flat.head_dim != layers[i].head_dim)
      return base::invalid(
          "{}: per_layer_config: {}: expected head_dim {} as global_head_dim says, "
          "got {}",
          object.where(), i, *flat.head_dim, layers[i].head_dim);
    if (flat.num_key_value_heads && *flat.num_key_value_heads != layers[i].num_key_value_heads)
      return base::invalid(
          "{}: per_layer_config: {}: expected num_key_value_heads {} as num_global_key_value_heads "
          "says, got {}",
          object.where(), i, *flat.num_key_value_heads, layers[i].num_key_value_heads);
  }
  return {};
}

}  // namespace

base::Result<std::vector<LayerConfig>> read_layers(const JsonObject& object,
                                                   int64_t num_attention_heads) {
  TANDEM_ASSIGN_OR_RETURN(const auto types, read_layer_types(object));
  TANDEM_ASSIGN_OR_RETURN(const int64_t head_dim,
                          object.integer_or("head_dim", kDefaultHeadDim, 2, kMaxHeadDim));
  TANDEM_ASSIGN_OR_RETURN(const int64_t kv_heads,
                          object.integer("num_key_value_heads", 1, kMaxKvHeads));
  TANDEM_ASSIGN_OR_RETURN(const bool k_eq_v, object.boolean_or("attention_k_eq_v", false));
  TANDEM_ASSIGN_OR_RETURN(const LayerOverride flat, read_flat_global(object, k_eq_v));
  const bool per_layer = object.has("per_layer_config");
  std::map<int64_t, LayerOverride> overrides;
  if (per_layer) {
    TANDEM_ASSIGN_OR_RETURN(overrides, read_per_layer_config(object, types.size()));
  }
  std::vector<LayerConfig> layers;
  for (size_t i = 0; i < types.size(); ++i) {
    const bool full = types[i] == LayerType::kFull;
    LayerOverride own = per_layer ? overrides[static_cast<int64_t>(i)]
                        : full    ? flat
                                  : LayerOverride{};
    LayerConfig layer;
    layer.type = types[i];
    layer.head_dim = own.head_dim.value_or(head_dim);
    layer.num_key_value_heads = own.num_key_value_heads.value_or(kv_heads);
    layer.k_eq_v = full && k_eq_v;
    TANDEM_RETURN_IF_ERROR(check_layer(object, i, layer, num_attention_heads));
    layers.push_back(layer);
  }
  if (per_layer) TANDEM_RETURN_IF_ERROR(check_spellings_agree(object, flat, layers));
  TANDEM_RETURN_IF_ERROR(read_all_rope(object, layers));
  return layers;
}

}  // namespace tandem::io
