// The projections of a model as one forward runs them: which share an input, and what they hold.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/model_config.h"
#include "io/quantization_config.h"
#include "ops/linear.h"

namespace tandem::bench {

struct LinearShape {
  std::string name;  // "sliding qkv", "gate_up", "head"
  int64_t in = 0;
  std::vector<int64_t> outs;  // of each projection of the group
  ops::LinearFormat format = ops::LinearFormat::kBF16;
  ops::ActivationQuantization activation = ops::ActivationQuantization::kNone;
  int64_t num_in_model = 0;  // calls of one forward

  int64_t out() const;
  // Of the weights; scales are left out.
  int64_t weight_bytes() const;
};

// Each kind once, in the order of a forward, the head last. `prefix` begins the names of an
// assistant's.
std::vector<LinearShape> linear_shapes(const io::ModelConfig& config,
                                       const io::QuantizationConfig& quantization,
                                       const std::string& prefix = {});

}  // namespace tandem::bench
