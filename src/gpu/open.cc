#include <cuda_runtime_api.h>

#include <algorithm>
#include <mutex>

#include "base/log.h"
#include "gpu/card.h"
#include "gpu/device_step.h"
#include "gpu/pair_step.h"
#include "gpu/prefill.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/row_facts.h"

namespace tandem::gpu {
namespace {

// Says so once: a command may ask for the device more than once.
void warn_if_untested(const Card& card) {
  static std::once_flag once;
  if (!is_tested(card))
    std::call_once(once, [&card] { base::log_warning("{}", untested_warning(card)); });
}

}  // namespace

base::Result<DeviceInfo> find_device() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0)
    return base::unsupported("--device cuda: expected an NVIDIA GPU and its driver, got: {}",
                             error == cudaSuccess ? "no device" : cudaGetErrorString(error));
  cudaDeviceProp properties{};
  TANDEM_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  DeviceInfo info;
  info.name = properties.name;
  info.num_multiprocessors = properties.multiProcessorCount;
  info.compute_capability = properties.major * 10 + properties.minor;
  const Card card{info.name, properties.major, properties.minor, ops::cuda::has_code_for_device()};
  TANDEM_RETURN_IF_ERROR(check_card(card, TANDEM_CUDA_ARCHITECTURES));
  warn_if_untested(card);
  size_t free = 0;
  size_t total = 0;
  TANDEM_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  info.free_bytes = static_cast<int64_t>(free);
  info.total_bytes = static_cast<int64_t>(total);
  return info;
}

int64_t working_bytes(const io::TextConfig& target, const WorkingSizes& sizes) {
  // The head's partial sums, a set of 128 in at most three pieces, and logits for the host
  // (LogitRows::kSlots).
  constexpr int64_t kFloat = 4;
  const int64_t logits = kMaxPassRows * target.vocab_size * kFloat;
  int64_t attention = 0;
  for (const io::LayerConfig& layer : target.layers) {
    const auto head_dim = static_cast<int>(layer.head_dim);
    const int64_t keys = layer.type == io::LayerType::kSliding
                             ? std::min(sizes.max_model_len, target.sliding_window + kMaxPassRows)
                             : sizes.max_model_len;
    attention = std::max(attention,
                         static_cast<int64_t>(ops::cuda::attention_workspace_bytes(
                             kMaxPassRows, static_cast<int>(target.num_attention_heads), head_dim,
                             ops::cuda::attention_max_segments(head_dim, keys + kMaxPassRows))));
  }
  const int64_t wide_rows = wide_capacity(sizes.max_step_rows);
  const int64_t passes = most_passes(
      sizes.max_step_rows, slack_of_ring(sizes.ring_len, target.sliding_window), wide_rows);
  // A row's hidden state, and what the host or a draw is told of its logits.
  const int64_t rows =
      passes * kMaxPassRows *
      (target.hidden_size * 2 +
       static_cast<int64_t>(sizeof(ops::cuda::RowFacts) + sizeof(ops::cuda::Likeliest)));
  const auto facts = static_cast<int64_t>(
      ops::cuda::row_facts_scratch_bytes(kMaxPassRows, static_cast<int>(target.vocab_size)));
  // Block tables.
  const int64_t tables = sizes.max_sequences * kFloat *
                         ((sizes.max_model_len + sizes.ring_len) / sizes.block_size + 2);
  return attention + 5 * logits + rows + facts + tables +
         wide_sizes(target, sizes.kv_dtype, sizes.max_model_len).most_bytes(wide_rows);
}

int64_t screen_bytes(const core::TensorView& head) {
  if (head.shape[1] % 32 != 0) return 0;  // no kernel takes it
  const ops::cuda::PackedLinear screen = ops::cuda::plan_packed_linear(
      ops::cuda::PackedType::kIntegers, static_cast<int>(head.shape[0]),
      static_cast<int>(head.shape[1]), ops::cuda::num_multiprocessors());
  return screen.size_bytes() + static_cast<int64_t>(2 * row_values_bytes(screen) +
                                                    ops::cuda::screen_workspace_bytes(screen) +
                                                    ops::cuda::likeliest_workspace_bytes(screen));
}

base::Result<std::unique_ptr<DeviceStep>> open_device_step(const io::Checkpoint& target,
                                                           const io::Checkpoint* assistant,
                                                           const DeviceStepOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const DeviceInfo info, find_device());
  if (options.kv.dtype != core::DType::kBF16 && options.kv.dtype != core::DType::kF8E4M3)
    return base::unsupported("--kv-cache-dtype: expected bfloat16 or fp8 on a GPU, got {}",
                             core::dtype_name(options.kv.dtype));
  if (options.max_sequences > ops::cuda::kMaxSequences)
    return base::unsupported("--max-num-seqs: expected at most {} on a GPU, got {}",
                             ops::cuda::kMaxSequences, options.max_sequences);
  WeightUploader uploader(info.num_multiprocessors);
  TANDEM_ASSIGN_OR_RETURN(Target loaded, Target::load(uploader, target, options.screens_heads));
  std::optional<Assistant> drafter;
  std::vector<int32_t> draft_suppress;
  if (assistant != nullptr) {
    TANDEM_ASSIGN_OR_RETURN(drafter, Assistant::load(uploader, *assistant, target,
                                                     options.draft_head, options.screens_heads));
    draft_suppress = assistant->generation_config().suppress_tokens;
  }
  uploader.finish();
  return std::unique_ptr<DeviceStep>(
      std::make_unique<PairStep>(std::move(loaded), std::move(drafter), draft_suppress, options));
}

}  // namespace tandem::gpu
