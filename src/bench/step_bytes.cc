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

int64_t head_bytes(const io::Checkpoint& checkpoint) {
  const auto head = checkpoint.find("lm_head.weight");
  return size_of(head ? *head : checkpoint.tensor("embed_tokens.weight"));
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
  bytes.target_head = head_bytes(target);
  for (const io::LayerConfig& layer : target.config().text.layers)
    bytes.target_kv += kv_bytes(target.config().text, layer, context, kv_dtype);
  if (pair.assistant_checkpoint == nullptr) return bytes;
  const io::Checkpoint& assistant = *pair.assistant_checkpoint;
  const auto head = assistant.find("lm_head.weight");
  bytes.draft = body_bytes(assistant) +
                model::draft_head_bytes(head ? *head : assistant.tensor("embed_tokens.weight"),
                                        pair.draft_head);
  for (const int64_t layer : io::shared_kv_layers(target.config(), assistant.config()))
    bytes.draft_kv +=
        kv_bytes(target.config().text, target.config().text.layers[static_cast<size_t>(layer)],
                 context, kv_dtype);
  bytes.draft += bytes.draft_kv;
  return bytes;
}

}  // namespace tandem::bench
