// A model folder, opened and checked: config, quantization, tensors. The only thing the model
// needs from the disk.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/tensor_view.h"
#include "io/load_options.h"
#include "io/model_config.h"
#include "io/quantization_config.h"

namespace tandem::io {

struct LinearWeights {
  WeightFormat format = WeightFormat::kBF16;
  core::TensorView weight;    // [out, in] BF16 or F8_E4M3, points into the mapped file
  float weight_scale = 1.0F;  // kFp8PerTensor
  // kFp8PerTensor: the static scale of the input; 0 when the checkpoint is weight-only and has
  // none. kFp8PerChannelPerToken: 0, or the static scale some compressed-tensors files give
  // instead.
  float input_scale = 1.0F;
  core::TensorView weight_scales;  // F32; shape by format (owned by the checkpoint)
};

// Absolute, and the same with and without a slash at its end.
std::filesystem::path normal_folder(const std::filesystem::path& dir);
// What a model folder is called: "target" for demo/target, demo/target/ and for . in it.
std::string folder_name(const std::filesystem::path& dir);

// Canonical names: no prefix ("embed_tokens.weight", "norm.weight",
// "layers.3.self_attn.q_proj.weight", "pre_projection.weight"), whichever spelling the file has.
class Checkpoint {
 public:
  // Opens and checks everything a header, a config and the scales can show: names, dtypes, shapes,
  // scales, exclusions, missing and unexpected tensors. Weight values are checked by
  // check_values(). Errors: `FILE: tensor NAME: expected X, got Y`. Dummy weights need no files but
  // the configs.
  static base::Result<Checkpoint> open(const std::filesystem::path& dir,
                                       const LoadOptions& options = {});

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const std::filesystem::path& dir() const;
  const ModelConfig& config() const;
  const GenerationConfig& generation_config() const;
  const QuantizationInfo& quantization() const;
  // Of a target, ids that no answer may hold: what generation_config.json forbids, and the places
  // for images and sound, which mean nothing in a text.
  std::vector<int32_t> suppressed_ids() const;

  // "lm_head.weight" is there when the model is untied; a tied model may repeat its embedding
  // there. The tensor of a canonical name; nothing if the checkpoint does not have it.
  std::optional<core::TensorView> find(std::string_view canonical_name) const;
  // The tensor of a canonical name that open() has already required: CHECKs that it exists.
  core::TensorView tensor(std::string_view canonical_name) const;
  // What turns hidden states into logits, [vocab, hidden]: "lm_head.weight", or the embedding.
  core::TensorView head() const;
  // The Linear of a canonical module ("layers.3.mlp.up_proj").
  LinearWeights linear(std::string_view canonical_module) const;
  // Canonical names of all quantizable or plain Linear modules, in layer order.
  std::vector<std::string> linear_modules() const;

  // Calibrated KV scales of a target layer; 1 when the checkpoint has none.
  struct KvScales {
    float k_scale = 1.0F;
    float v_scale = 1.0F;
    bool calibrated = false;
  };
  KvScales kv_scales(int64_t layer) const;

  // Reads every weight once: NaN or infinity (BF16) and NaN bytes (E4M3) are refused by name.
  base::Status check_values(
      const std::function<void(int64_t done_bytes, int64_t total_bytes)>& progress = {}) const;

  // Uses other weights for a Linear from now on: to measure what a quantization would cost before
  // it is written. Call it before models are made; the views must outlive the checkpoint.
  void replace_linear(std::string_view canonical_module, const LinearWeights& weights);

  // Weights leave the mapped files for memory of this process, in large pages where the system has
  // them, aligned: faster to read. Returns how many bytes that takes; dummy weights are there
  // already. Call it before models are made: earlier views are no longer right.
  int64_t copy_into_memory();

  // For passes over all weights: bytes of a tensor that are not needed soon leave this process's
  // memory. They are read from the file again when they are.
  void release_pages(const void* bytes, size_t count) const;

  // All tensors of the files with their stored names, in file order (for quantize and inspect).
  struct StoredTensor {
    std::string stored_name;
    std::string canonical_name;  // empty for towers Tandem does not run (vision, audio)
    core::TensorView view;
    std::string file;
  };
  const std::vector<StoredTensor>& stored_tensors() const;

 private:
  struct Impl;
  explicit Checkpoint(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::io
