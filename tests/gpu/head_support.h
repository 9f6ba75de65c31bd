// Heads of random weights, as the tests of kernels that choose tokens take them.
#pragma once

#include <string>
#include <vector>

#include "ops/cuda/head.h"
#include "ops/cuda/packed_linear.h"
#include "tests/gpu/row_support.h"

namespace tandem::tests {

struct HeadCase {
  ops::cuda::PackedType type;
  int vocab;
  int in_features;
  int num_multiprocessors;
  float cap;
  float scale;  // large: many logits saturate; small: all are near each other
};

inline std::string name_of(const testing::TestParamInfo<HeadCase>& info) {
  const HeadCase& c = info.param;
  const std::string scale =
      c.scale < 0.01F ? "small" : std::to_string(static_cast<int>(c.scale * 100.0F));
  return std::string(c.type == ops::cuda::PackedType::kFp8    ? "fp8_"
                     : c.type == ops::cuda::PackedType::kBF16 ? "bf16_"
                                                              : "fp8_weights_") +
         std::to_string(c.vocab) + "_from_" + std::to_string(c.in_features) + "_on_" +
         std::to_string(c.num_multiprocessors) + (c.cap > 0.0F ? "_capped_" : "_") + scale;
}

// Weights alone in FP8 have a scale for each token.
inline std::vector<float> token_scales(const HeadCase& c) {
  std::vector<float> values(static_cast<size_t>((c.vocab + 127) / 128 * 128));
  for (size_t id = 0; id < values.size(); ++id)
    values[id] = c.scale * (0.5F + static_cast<float>(id * 37 % 101) / 100.0F);
  return values;
}

// Packed, of random weights.
inline ops::cuda::PackedLinear random_head(const HeadCase& c) {
  ops::cuda::PackedLinear head =
      make_packed_linear(c.type, (c.vocab + 15) / 16 * 16, c.in_features, c.num_multiprocessors);
  fill_random({}, head, 5);
  return head;
}

// Its logits: `scales` for token_scales(), not read where the head has one scale.
inline ops::cuda::HeadLogits logits_of(const HeadCase& c, int num_rows,
                                       const ops::cuda::DeviceBuffer& scales) {
  ops::cuda::HeadLogits logits;
  logits.num_rows = num_rows;
  logits.vocab_size = c.vocab;
  logits.scale = c.scale;
  if (c.type == ops::cuda::PackedType::kFp8Weights) {
    logits.scale = 0.0F;
    logits.scales = scales.as<float>();
  }
  logits.cap = c.cap;
  return logits;
}

}  // namespace tandem::tests
