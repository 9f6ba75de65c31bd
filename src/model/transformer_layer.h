// One decoder layer of Gemma 4, for the target and for the assistant (which has no K and V of its
// own). One forward for prefill, decode, verify and draft rows (gemma4_pair 4 and 5).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "io/checkpoint.h"
#include "model/activations.h"
#include "model/linear.h"
#include "ops/attention.h"

namespace tandem::model {

// What a layer needs to know of the rows it works on.
struct LayerRows {
  std::span<const int32_t> sequences;  // [n]
  std::span<const int32_t> positions;  // [n] where K and V are written (targets)
  std::span<const int32_t> last_keys;  // [n] the last key each row sees
  const RopeTable* rope = nullptr;     // angles of the query (and key) positions
  ops::KvPlaces places;                // of this layer's pool
};

class TransformerLayer {
 public:
  TransformerLayer(const io::Checkpoint& checkpoint, int64_t index, const ModelOptions& options);

  // Works on the first n rows of activations.x. `kv` is written (targets) and read.
  void forward(const ops::Context& context, const LayerRows& rows, const ops::KvView& kv,
               Activations& activations, Observer* observer) const;

  const io::LayerConfig& config() const { return config_; }
  bool writes_kv() const { return writes_kv_; }

 private:
  struct Rows;  // views of the activations for n rows
  void project(const ops::Context& context, const LayerRows& rows, const Rows& views,
               Observer* observer) const;
  void attend(const ops::Context& context, const LayerRows& rows, const ops::KvView& kv,
              const Rows& views) const;
  void feed_forward(const ops::Context& context, const Rows& views, Observer* observer) const;

  io::LayerConfig config_;
  int64_t index_ = 0;
  int64_t num_heads_ = 0;
  int64_t window_ = 0;  // 0: full attention
  float eps_ = 0;
  bool writes_kv_ = false;
  float layer_scalar_ = 1;

  Linear qkv_;  // q, k, v; q, k in full layers with k_eq_v; q alone in an assistant
  Linear o_proj_;
  Linear gate_up_;
  Linear down_proj_;
  core::TensorView input_norm_, post_attention_norm_, pre_feedforward_norm_,
      post_feedforward_norm_;         // [hidden] BF16
  core::TensorView q_norm_, k_norm_;  // [head_dim] BF16
};

}  // namespace tandem::model
