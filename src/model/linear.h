// Projections that share one input, whatever their precision.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "io/checkpoint.h"
#include "model/observer.h"
#include "model/options.h"
#include "ops/linear.h"

namespace tandem::model {

class Linear {
 public:
  Linear() = default;
  // modules: canonical names of projections with the same in_features, e.g. q, k and v. The weights
  // stay in the mapped checkpoint, which must outlive this object.
  Linear(const io::Checkpoint& checkpoint, std::vector<std::string> modules,
         const ModelOptions& options);

  // outputs[i] [n, out_i] = x [n, in] times the i-th projection.
  void forward(const ops::Context& context, const core::TensorView& x,
               std::span<const core::TensorView> outputs, Observer* observer) const;

  int64_t out_features(size_t i) const { return weights_[i].out_features(); }
  size_t size() const { return weights_.size(); }

 private:
  void merge_as_vllm();

  std::vector<std::string> modules_;
  std::vector<ops::LinearWeight> weights_;
  std::vector<core::Buffer> requantized_;  // kVllmParity only
};

}  // namespace tandem::model
