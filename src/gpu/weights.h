// From a checkpoint, or from nothing but its config, to packed weights on the device.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/checkpoint.h"
#include "ops/cuda/head_screen.h"
#include "ops/cuda/packed_linear.h"

namespace tandem::gpu {

// Projections that share one input, as one product: q, k and v; gate and up.
struct Projection {
  ops::cuda::PackedLinear weight;
  // Of the quantized input (FP8); 0 for BF16 weights, whose input stays BF16.
  float input_scale = 0.0F;
  // Value = BF16(sum * scale) of each part: input_scale * weight_scale, 1 for BF16.
  std::array<float, 3> scales = {1.0F, 1.0F, 1.0F};
  ops::cuda::DeviceBuffer feature_scales;  // [out_features, in whole sets] F32; of rounded_matrix()
};

// Bytes of an F32 value for each row of a weight, in whole sets.
inline size_t row_values_bytes(const ops::cuda::PackedLinear& weight) {
  return sizeof(float) * ops::cuda::kSetColumns * static_cast<size_t>(weight.num_sets);
}

// A head's copy in 8 bits, by which its tokens are found sooner (ops/cuda/head_screen.h).
struct Screen {
  ops::cuda::PackedLinear weight;
  ops::cuda::DeviceBuffer scales, errors;  // [out_features, in whole sets] F32
  ops::cuda::DeviceBuffer workspace;

  ops::cuda::HeadScreen view() const {
    return {&weight, scales.as<float>(), errors.as<float>(), workspace.data()};
  }
};

// Copies weights to the device through two page-locked buffers while earlier pieces are packed.
class WeightUploader {
 public:
  explicit WeightUploader(int num_multiprocessors);
  ~WeightUploader();
  WeightUploader(const WeightUploader&) = delete;
  WeightUploader& operator=(const WeightUploader&) = delete;

  // modules: canonical names with the same in_features. Refuses by name what a GPU does not run:
  // formats other than BF16 and per-tensor static FP8, parts of different precision or input scale.
  base::Result<Projection> projection(const io::Checkpoint& checkpoint,
                                      const std::vector<std::string>& modules);
  // Gate and up, in the order in which one kernel multiplies and joins them.
  base::Result<Projection> gated_projection(const io::Checkpoint& checkpoint,
                                            const std::string& gate, const std::string& up);
  // A BF16 matrix as a projection: the embedding and head. With `screen`, its screen as well,
  // if the head is one that screened_head() takes.
  base::Result<Projection> matrix(const core::TensorView& weight, const std::string& name,
                                  std::optional<Screen>* screen = nullptr);
  // The same rounded to E4M3 with a scale for each row, as model/draft_head.h does it; its input
  // stays BF16.
  base::Result<Projection> rounded_matrix(const core::TensorView& weight, const std::string& name);
  // A BF16 or F32 vector as it is, e.g. a norm's weight.
  ops::cuda::DeviceBuffer vector(const core::TensorView& tensor);
  // Waits for everything above.
  void finish();

 private:
  void pack_parts(const std::vector<io::LinearWeights>& parts, Projection& projection);
  void pack(const ops::cuda::PackedLinear& weight, const core::TensorView& rows, int first_feature);
  Screen pack_screened(const core::TensorView& rows, const ops::cuda::PackedLinear& weight);
  // visit(rows on the device, first, count) for some rows after the others.
  void upload(const core::TensorView& rows,
              const std::function<void(const void*, int, int)>& visit);

  int num_multiprocessors_;
  ops::cuda::Stream stream_;
  struct Staging {
    ops::cuda::PinnedBuffer host;
    ops::cuda::DeviceBuffer device;
    void* done = nullptr;  // event: the device buffer has been packed
  };
  std::array<Staging, 2> staging_;
  size_t next_ = 0;
};

}  // namespace tandem::gpu
