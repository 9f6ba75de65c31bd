// The two models on the GPU. Their specification is model/target_model.h and assistant_model.h.
#pragma once

#include <vector>

#include "gpu/kv_cache.h"
#include "gpu/layer.h"
#include "model/options.h"
#include "ops/cuda/head_likeliest.h"
#include "ops/cuda/row_ops.h"

namespace tandem::gpu {

// Rows of one pass, at most kMaxPassRows, and the block tables they look their keys up in.
struct Pass {
  ops::cuda::Rows rows;
  ops::cuda::QueryTiles tiles;
  ops::cuda::KvTable ring;   // sliding layers
  ops::cuda::KvTable pages;  // full layers
  int max_keys = 0;
  int real_rows = 0;  // of `rows`, the first ones; padding follows
  // Whether list_attention() has left the lists of sliding and of full layers.
  bool lists_attention = false;
};

// What of a pass one layer needs.
LayerPass layer_pass(const LayerWeights& layer, const Pass& pass, const ops::cuda::KvLayer& kv);

struct WidePass;
struct WideWorkspace;

class Target {
 public:
  // screens_head: with a screen of the head, for greedy tokens of few rows.
  static base::Result<Target> load(WeightUploader& uploader, const io::Checkpoint& checkpoint,
                                   bool screens_head);

  WorkspaceSizes workspace_sizes(int64_t max_model_len) const;
  // The lists of a pass's attention, for all of its layers.
  void list_attention(const ops::cuda::Stream& stream, const Pass& pass, const KvCache& kv,
                      Workspace& workspace) const;
  // All layers over the rows of the pass: writes their K and V, leaves the hidden states after the
  // final norm in `hidden` [num_rows, hidden] BF16, and as the head's operand in the workspace.
  void forward(const ops::cuda::Stream& stream, const Pass& pass, const KvCache& kv,
               uint16_t* hidden, Workspace& workspace) const;
  // The same for the rows of prompts, many at a time (prefill.h): hidden states stay in the
  // workspace. Only where runs_wide().
  bool runs_wide() const;
  void forward_wide(const ops::cuda::Stream& stream, const WidePass& pass, const KvCache& kv,
                    const WideWorkspace& workspace) const;
  // The tokens of the rows of the operand that forward() left, as `argmax` says; its sums, scale
  // and exchange are filled in. num_rows with the padding.
  void choose(const ops::cuda::Stream& stream, int num_rows, ops::cuda::HeadArgmax argmax,
              Workspace& workspace) const;
  // The likeliest tokens of the same rows, as `job` says, through the head's screen; its scale and
  // exchange are filled in. Returns whether there is one that takes them; launches nothing if not.
  bool find_likeliest(const ops::cuda::Stream& stream, int num_rows, ops::cuda::HeadLikeliest job,
                      Workspace& workspace) const;
  // Of HeadLikeliest::workspace; 0: there is no screen.
  size_t likeliest_bytes() const;
  // The head's partial sums of that operand.
  ops::cuda::Partials head(const ops::cuda::Stream& stream, int num_rows,
                           Workspace& workspace) const;

  ops::cuda::EmbedTable embed_table() const;
  const io::TextConfig& config() const { return config_; }
  float softcap() const { return static_cast<float>(config_.final_logit_softcapping); }

 private:
  io::TextConfig config_;
  Projection embed_;  // [vocab, hidden], the embedding and, when tied, the head
  std::optional<Projection> head_;
  std::optional<Screen> screen_;  // of head_projection()
  const Projection& head_projection() const { return head_ ? *head_ : embed_; }
  std::vector<LayerWeights> layers_;
  ops::cuda::DeviceBuffer norm_;
  ops::cuda::DeviceBuffer head_exchange_;  // of head_product(); empty where it does not fit
  float embed_scale_ = 1.0F;
};

class Assistant {
 public:
  static base::Result<Assistant> load(WeightUploader& uploader, const io::Checkpoint& checkpoint,
                                      const io::Checkpoint& target, model::DraftHeadFormat head,
                                      bool screens_head);

  WorkspaceSizes workspace_sizes(int64_t max_model_len) const;

  // Where a draft step takes its states from: rows `slots` of the store in the first step of a
  // round, afterwards what the step before left in `sums`.
  struct States {
    const uint16_t* store = nullptr;  // [num_slots, hidden of the target] BF16, or null
    const int32_t* slots = nullptr;   // [num_rows]
    ops::cuda::Partials sums;
  };
  // One draft step of the pass's real rows: their tokens, as `argmax` says; its
  // sums and exchange are filled in. The sums of the next state are written to next_state and
  // returned through states.
  void step(const ops::cuda::Stream& stream, const Target& target, const Pass& pass,
            const KvCache& kv, States& states, float* next_state, ops::cuda::HeadArgmax argmax,
            Workspace& workspace) const;
  int64_t next_state_bytes() const { return post_projection_.weight.partial_bytes(kMaxPassRows); }

 private:
  ops::cuda::AssistantInput input(const Target& target, const Pass& pass, const States& states,
                                  int num_rows) const;
  // What pre_projection left becomes the first layer's residual and operand.
  void start(const ops::cuda::Stream& stream, int num_rows, int num_padded_rows,
             Workspace& workspace) const;
  // What a step of few rows does in other kernels, with the same bits (draft.cc).
  bool runs_few(const ops::cuda::HeadLogits& logits) const;
  void step_few(const ops::cuda::Stream& stream, const Target& target, const Pass& pass,
                const KvCache& kv, const States& states, float* next_state,
                ops::cuda::HeadArgmax argmax, Workspace& workspace) const;
  void layer_few(const ops::cuda::Stream& stream, size_t index, const LayerPass& pass,
                 ops::cuda::NormedRows& rows, Workspace& workspace) const;

  io::TextConfig config_;
  std::vector<int64_t> kv_layers_;
  std::vector<LayerWeights> layers_;
  Projection pre_projection_, post_projection_;
  Projection head_;
  std::optional<Screen> screen_;  // of a head as stored
  ops::cuda::DeviceBuffer norm_;
  ops::cuda::DeviceBuffer head_exchange_;  // of head_product()
  ops::cuda::DeviceBuffer q_sums_;         // of q, where the few rows of its input are sums too
};

}  // namespace tandem::gpu
