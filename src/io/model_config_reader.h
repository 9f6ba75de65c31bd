// Inside of read_model_config: the text tower, split from the top level for its size.
#pragma once

#include "io/json.h"
#include "io/model_config.h"

namespace tandem::io {

// `object` is text_config, or the top level of a text-only model. Refuses what Tandem does not run
// yet (experts, per-layer embeddings, shared KV layers of a target, ...) by name.
base::Result<TextConfig> read_text_config(const JsonObject& object, ModelKind kind);

// layer_types, head sizes (flat or per_layer_config), KV heads and rope of every layer.
base::Result<std::vector<LayerConfig>> read_layers(const JsonObject& object,
                                                   int64_t num_attention_heads);

}  // namespace tandem::io
