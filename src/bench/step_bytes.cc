#include <algorithm>

#include "bench/step_model.h"

namespace tandem::bench {
namespace {

int64_t size_of(const core::TensorView& view) {
  return view.data == nullptr
             ? 0
             : view.shape.num_elements() * static_cast<int64_t>(core::dtype_bytes(view.dtype));
}

int64_t body_bytes(const io::Checkpoint& checkpoint) {
  int64_t bytes = 0;
  for (const std::string& module : checkpoint.linear_modules()) {
    const io::LinearWeights linear = checkpoint.linear(module);
    bytes += size_of(linear.weight) + size_of(linear.weight_scales);
  }
  return bytes;
}

// A head of BF16 less its codes of 8 bits, and the scale and the bound of each token.
int64_t spared_by_screen(const core::TensorView& head) {
  return size_of(head) - head.shape[0] * (head.shape[1] + 8);
}

int64_t kv_bytes(const io::TextConfig& text, const io::LayerConfig& layer, int64_t context,
                 core::DType dtype) {
  const int64_t keys =
      layer.type == io::LayerType::kSliding ? std::min(context, text.sliding_window) : context;
  return 2 * keys * layer.num_key_value_heads * layer.head_dim *
         static_cast<int64_t>(core::dtype_bytes(dtype));
}

}  // namespace

StepBytes step_bytes(const model::Pair& pair, int64_t context, core::DType kv_dtype) {
  const io::Checkpoint& target = *pair.target_checkpoint;
  StepBytes bytes;
  bytes.target_body = body_bytes(target);
  bytes.target_head = size_of(target.head());
  if (pair.screens_heads) bytes.target_spared = spared_by_screen(target.head());
  for (const io::LayerConfig& layer : target.config().text.layers)
    bytes.target_kv += kv_bytes(target.config().text, layer, context, kv_dtype);
  if (pair.assistant_checkpoint == nullptr) return bytes;
  const io::Checkpoint& assistant = *pair.assistant_checkpoint;
  const core::TensorView head = assistant.head();
  bytes.draft = body_bytes(assistant) + model::draft_head_bytes(head, pair.draft_head);
  if (pair.screens_heads && pair.draft_head == model::DraftHeadFormat::kCheckpoint)
    bytes.draft_spared = spared_by_screen(head);
  for (const int64_t layer : io::shared_kv_layers(target.config(), assistant.config()))
    bytes.draft_kv +=
        kv_bytes(target.config().text, target.config().text.layers[static_cast<size_t>(layer)],
                 context, kv_dtype);
  bytes.draft += bytes.draft_kv;
  return bytes;
}

}  // namespace tandem::bench
