// The runtime on a GPU: what the memory allows, then the step on the device.
#include <algorithm>
#include <utility>

#include "engine/runtime.h"
#include "engine/runtime_parts.h"
#include "gpu/step_plan.h"

namespace tandem::engine {
namespace {

// CUDA's own memory, fragments, the loader's staging buffers.
constexpr int64_t kReservedBytes = int64_t{1} << 30;

int64_t weight_bytes(const io::Checkpoint& checkpoint) {
  int64_t bytes = 0;
  for (const io::Checkpoint::StoredTensor& tensor : checkpoint.stored_tensors())
    if (!tensor.canonical_name.empty())
      bytes += tensor.view.shape.num_elements() *
               static_cast<int64_t>(core::dtype_bytes(tensor.view.dtype));
  return bytes;
}

int64_t screens_bytes(const model::Pair& pair) {
  int64_t bytes = gpu::screen_bytes(pair.target_checkpoint->head());
  if (pair.assistant_checkpoint && pair.draft_head == model::DraftHeadFormat::kCheckpoint)
    bytes += gpu::screen_bytes(pair.assistant_checkpoint->head());
  return bytes;
}

base::Result<int64_t> kv_budget(const RuntimeOptions& options, const model::Pair& pair,
                                core::DType kv_dtype, int64_t ring_len,
                                const gpu::DeviceInfo& info) {
  int64_t weights = weight_bytes(*pair.target_checkpoint);
  if (pair.assistant_checkpoint) {
    const core::TensorView& head = pair.assistant->head().weight().weight;
    weights += weight_bytes(*pair.assistant_checkpoint) +
               model::draft_head_bytes(head, pair.draft_head) -
               model::draft_head_bytes(head, model::DraftHeadFormat::kCheckpoint);
  }
  if (options.screens_heads) weights += screens_bytes(pair);
  const io::TextConfig& text = pair.target->config();
  const int64_t longest =
      options.max_model_len > 0 ? options.max_model_len : text.max_position_embeddings;
  const int64_t working =
      kReservedBytes + gpu::working_bytes(text, {.kv_dtype = kv_dtype,
                                                 .ring_len = ring_len,
                                                 .block_size = options.block_size,
                                                 .max_model_len = longest,
                                                 .max_sequences = options.max_num_seqs,
                                                 .max_step_rows = options.max_num_batched_tokens});
  const auto allowed =
      static_cast<int64_t>(options.gpu_memory_utilization * static_cast<double>(info.total_bytes));
  const int64_t used_by_others = info.total_bytes - info.free_bytes;
  const int64_t budget = allowed - used_by_others - weights - working;
  constexpr double kGiB = 1 << 30;
  if (budget <= 0)
    return base::make_error(
        base::ErrorCode::kResourceExhausted,
        fmt::format("--gpu-memory-utilization: expected room for {:.1f} GiB of weights beside the "
                    "{:.1f} GiB in use, got {:.2f} of {:.1f} GiB; raise it, or free the card{}",
                    static_cast<double>(weights) / kGiB,
                    static_cast<double>(used_by_others + working) / kGiB,
                    options.gpu_memory_utilization, static_cast<double>(info.total_bytes) / kGiB,
                    options.screens_heads ? ", or say --head-screen off" : ""));
  return std::min(options.kv_bytes, budget);
}

}  // namespace

base::Result<std::unique_ptr<Runtime>> Runtime::open_on_gpu(const RuntimeOptions& options,
                                                            const io::ModelConfig& config,
                                                            core::DType kv_dtype,
                                                            int64_t ring_len) {
  if (options.draws_drafts)
    return base::unsupported(
        "--speculative-config: draft_sample_method: expected \"greedy\" on a GPU, got "
        "\"probabilistic\"");
  TANDEM_ASSIGN_OR_RETURN(const gpu::DeviceInfo info, gpu::find_device());
  // The device rounds the drafts' head itself.
  model::PairOptions on_host = options.pair;
  on_host.model.draft_head = model::DraftHeadFormat::kCheckpoint;
  TANDEM_ASSIGN_OR_RETURN(model::Pair pair, model::load_pair(on_host));
  pair.draft_head = options.pair.model.draft_head;
  pair.screens_heads = options.screens_heads;
  RuntimeOptions sized = options;
  TANDEM_ASSIGN_OR_RETURN(sized.kv_bytes, kv_budget(options, pair, kv_dtype, ring_len, info));
  TANDEM_ASSIGN_OR_RETURN(const KvPlan plan, make_plan(sized, config.text, kv_dtype, ring_len));
  EngineOptions engine = engine_options(options, config.text, plan, ring_len);
  TANDEM_RETURN_IF_ERROR(Engine::validate(engine));
  engine.eos_token_ids = eos_token_ids(*pair.target);
  engine.suppress_tokens = pair.target_checkpoint->suppressed_ids();
  engine.pass_rows = gpu::kPassRows;
  TANDEM_ASSIGN_OR_RETURN(
      model::KvScaleLists scales,
      model::kv_scales(*pair.target_checkpoint, kv_dtype, options.kv_cache_dtype));
  const gpu::DeviceStepOptions step{
      .kv = {.block_size = options.block_size,
             .num_ring_blocks = plan.num_ring_blocks + plan.num_snapshot_blocks,
             .num_page_blocks = plan.num_page_blocks,
             .ring_len = ring_len,
             .dtype = kv_dtype},
      .kv_scales = std::move(scales),
      .max_sequences = plan.max_num_seqs,
      .max_step_rows = options.max_num_batched_tokens,
      .max_model_len = plan.max_model_len,
      .draft_head = pair.draft_head,
      .screens_heads = pair.screens_heads,
      .draft_position_offset = options.draft_position_offset,
      .synthetic = options.synthetic,
      .synthetic_seed = options.seed,
      .suppress_tokens = engine.suppress_tokens,
      .use_graphs = options.use_graphs,
      .max_shapes = options.max_shapes,
      .whole_rows = options.whole_rows,
      .draw_slack = options.draw_slack,
      .measures_times = options.auto_drafts};
  TANDEM_ASSIGN_OR_RETURN(
      auto device_step,
      gpu::open_device_step(*pair.target_checkpoint, pair.assistant_checkpoint.get(), step));
  std::unique_ptr<Runtime> runtime(new Runtime(options, std::move(pair), plan, std::move(engine),
                                               std::move(device_step), info.name));
  runtime->kv_dtype_ = kv_dtype;
  return runtime;
}

Runtime::Runtime(const RuntimeOptions& options, model::Pair pair, const KvPlan& kv_plan,
                 EngineOptions engine, std::unique_ptr<gpu::DeviceStep> device_step,
                 std::string gpu_name)
    : pool_(options.num_threads),
      pair_(std::move(pair)),
      kv_plan_(kv_plan),
      gpu_name_(std::move(gpu_name)),
      device_step_(std::move(device_step)) {
  engine_ = std::make_unique<Engine>(
      std::move(engine),
      [this](const speculation::SpecBatch& batch) { return device_step_->run(batch); });
  set_meanwhile({});
}

void Runtime::set_meanwhile(std::function<void()> work) {
  device_step_->set_meanwhile([this, work = std::move(work)] {
    if (work) work();
    engine_->prepare();
  });
}

}  // namespace tandem::engine
