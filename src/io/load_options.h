// How a model folder is read, besides what it says itself.
#pragma once

#include <cstdint>
#include <string>

namespace tandem::io {

struct LoadOptions {
  // --hf-overrides: a JSON object merged into config.json ({"num_hidden_layers": 6}); empty: none.
  std::string hf_overrides = {};
  // --load-format dummy: weights are made from config.json and the quantization config alone.
  bool dummy = false;
  uint64_t dummy_seed = 0;
};

}  // namespace tandem::io
