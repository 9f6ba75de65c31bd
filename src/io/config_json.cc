#include "io/config_json.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::io {
namespace {

using nlohmann::json;

constexpr const char* kFlag = "--hf-overrides";

void merge(json& into, const json& changes) {
  for (const auto& [key, value] : changes.items()) {
    if (value.is_object() && into.contains(key) && into[key].is_object())
      merge(into[key], value);
    else
      into[key] = value;
  }
}

// Where the keys of the text tower are.
json& text_tower(json& root) {
  return root.contains("text_config") && root["text_config"].is_object() ? root["text_config"]
                                                                         : root;
}

// A list with an entry for each layer keeps its first ones, a map by layer number its low ones.
void cut_layers(json& text, int64_t num_layers) {
  const auto types = text.find("layer_types");
  if (types != text.end() && types->is_array() && static_cast<int64_t>(types->size()) > num_layers)
    types->erase(types->begin() + num_layers, types->end());
  const auto per_layer = text.find("per_layer_config");
  if (per_layer == text.end() || !per_layer->is_object()) return;
  json kept = json::object();
  for (const auto& [key, value] : per_layer->items()) {
    int64_t layer = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), layer);
    const bool is_number = error == std::errc() && end == key.data() + key.size();
    if (!is_number || layer < num_layers) kept[key] = value;
  }
  *per_layer = std::move(kept);
}

}  // namespace

base::Result<json> read_config_json(const std::filesystem::path& dir,
                                    std::string_view hf_overrides) {
  TANDEM_ASSIGN_OR_RETURN(json root, read_json_file(dir / "config.json"));
  if (hf_overrides.empty()) return root;
  TANDEM_ASSIGN_OR_RETURN(json changes, parse_json(hf_overrides, kFlag));
  if (!changes.is_object())
    return base::invalid(R"({}: expected a JSON object such as {{"num_hidden_layers": 6}}, got {})",
                         kFlag, describe_json(changes));
  if (!root.is_object()) return root;  // the reader refuses it
  json& text = text_tower(root);
  const bool cuts_layers = changes.contains("num_hidden_layers") ||
                           (changes.contains("text_config") && changes["text_config"].is_object() &&
                            changes["text_config"].contains("num_hidden_layers"));
  for (auto change = changes.begin(); change != changes.end();) {
    const bool of_text = !root.contains(change.key()) && text.contains(change.key());
    if (!of_text) {
      ++change;
      continue;
    }
    merge(text, {{change.key(), change.value()}});
    change = changes.erase(change);
  }
  merge(root, changes);
  json& changed_text = text_tower(root);
  const auto count = changed_text.find("num_hidden_layers");
  if (cuts_layers && count != changed_text.end() && count->is_number_integer() &&
      count->get<int64_t>() > 0)
    cut_layers(changed_text, count->get<int64_t>());
  return root;
}

}  // namespace tandem::io
