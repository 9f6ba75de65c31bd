// What a config asks of the tensors: names and shapes.
#pragma once

#include <string>
#include <vector>

#include "core/tensor_view.h"
#include "io/model_config.h"

namespace tandem::io {

// Plain BF16 tensors: embeddings, norms, layer scalars.
struct RequiredTensor {
  std::string name;  // canonical
  core::Shape shape;
  bool optional = false;
};

// A Linear: `name`.weight [out, in], with scales when it is quantized.
struct RequiredLinear {
  std::string name;  // canonical module
  int64_t out = 0;
  int64_t in = 0;
  bool always_bf16 = false;  // pre_projection, post_projection
};

std::vector<RequiredTensor> required_tensors(const ModelConfig& config);
// In layer order; an assistant's pre_projection first and post_projection last.
std::vector<RequiredLinear> required_linears(const ModelConfig& config);

}  // namespace tandem::io
