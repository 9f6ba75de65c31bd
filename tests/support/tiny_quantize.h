// Turns the BF16 Linears of a tiny checkpoint into one of the quantized formats.
#pragma once

#include <string>
#include <vector>

#include "tests/support/tiny_checkpoint.h"

namespace tandem::test_support {

// Quantizes every `*_proj.weight` of a layer and adds the JSON of the format, with `exclude` as its
// list. Nothing happens for kBF16.
void quantize_tiny(TinyCheckpoint& checkpoint, TinyFormat format,
                   const std::vector<std::string>& exclude);

// k_scale and v_scale for every layer, and the request for an FP8 KV cache.
void add_tiny_kv_scales(TinyCheckpoint& checkpoint, const TinyOptions& options);

}  // namespace tandem::test_support
