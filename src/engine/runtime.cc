#include "engine/runtime.h"

#include <utility>

#include "core/memory.h"
#include "engine/runtime_parts.h"

namespace tandem::engine {
namespace {

base::Status check_options(const RuntimeOptions& options) {
  if (options.num_draft_tokens < 0 || options.num_draft_tokens > speculation::kMaxDraftTokens)
    return base::invalid("num_speculative_tokens: expected 0 to {}, got {}",
                         speculation::kMaxDraftTokens, options.num_draft_tokens);
  if (options.num_draft_tokens > 0 && !options.pair.assistant)
    return base::invalid(
        "num_speculative_tokens: expected 0 without an assistant, got {}; name one in "
        "--speculative-config '{{\"model\": DIR, ...}}'",
        options.num_draft_tokens);
  if (options.num_threads < 0)
    return base::invalid("threads: expected a number >= 0, got {}", options.num_threads);
  if (options.max_num_seqs < 1)
    return base::invalid("max_num_seqs: expected a number >= 1, got {}", options.max_num_seqs);
  if (options.max_num_batched_tokens < 1)
    return base::invalid("max_num_batched_tokens: expected a number >= 1, got {}",
                         options.max_num_batched_tokens);
  if (options.block_size < 1)
    return base::invalid("block_size: expected a number >= 1, got {}", options.block_size);
  if (options.kv_bytes < 0)
    return base::invalid("KV cache: expected a size >= 0, got {} bytes", options.kv_bytes);
  return {};
}

}  // namespace

// What is known before the weights are.
EngineOptions engine_options(const RuntimeOptions& options, const io::TextConfig& config,
                             const KvPlan& plan, int64_t ring_len) {
  EngineOptions engine;
  engine.limits = {.max_num_seqs = plan.max_num_seqs,
                   .max_num_batched_tokens = options.max_num_batched_tokens,
                   .max_chunk_tokens = options.max_chunk_tokens,
                   .block_size = options.block_size,
                   .num_page_blocks = plan.num_page_blocks};
  engine.ring_len = ring_len;
  engine.num_ring_blocks = plan.num_ring_blocks;
  engine.prefix_caching = options.prefix_caching;
  engine.sliding_window = config.sliding_window;
  engine.num_snapshot_blocks = plan.num_snapshot_blocks;
  engine.max_model_len = plan.max_model_len;
  engine.vocab_size = config.vocab_size;
  engine.num_draft_tokens = options.num_draft_tokens;
  engine.auto_drafts = options.auto_drafts;
  engine.drafts_from = options.drafts_from;
  engine.priorities = options.priorities;
  engine.max_num_queued = options.max_num_queued;
  engine.seed = options.seed;
  engine.watch_acceptance = !options.synthetic.has_value();
  return engine;
}

base::Result<KvPlan> make_plan(const RuntimeOptions& options, const io::TextConfig& config,
                               core::DType kv_dtype, int64_t ring_len) {
  const model::KvBlockBytes bytes = model::kv_block_bytes(config, options.block_size, kv_dtype);
  return plan_kv({.ring_block_bytes = bytes.ring_block_bytes,
                  .page_block_bytes = bytes.page_block_bytes,
                  .block_size = options.block_size,
                  .ring_len = ring_len,
                  .snapshot_blocks = options.prefix_caching
                                         ? blocks_for(config.sliding_window - 1, options.block_size)
                                         : 0,
                  .max_num_seqs = options.max_num_seqs,
                  .max_model_len = options.max_model_len,
                  .longest_model_len = config.max_position_embeddings,
                  .budget_bytes = options.kv_bytes});
}

std::vector<int32_t> eos_token_ids(const model::TargetModel& target) {
  const auto& generation = target.checkpoint().generation_config().eos_token_ids;
  return generation.empty() ? target.checkpoint().config().eos_token_ids : generation;
}

// Everything that numbers can refuse is refused before the weights are read.
base::Result<std::unique_ptr<Runtime>> Runtime::open(RuntimeOptions options) {
  TANDEM_RETURN_IF_ERROR(check_options(options));
  options.pair.model.max_rows = options.max_num_batched_tokens;
  const std::filesystem::path& dir = options.pair.target;
  const std::string& overrides = options.pair.load.hf_overrides;
  TANDEM_ASSIGN_OR_RETURN(const io::ModelConfig config, io::read_model_config(dir, overrides));
  TANDEM_RETURN_IF_ERROR(io::require_target(dir, config));
  TANDEM_ASSIGN_OR_RETURN(const io::QuantizationConfig quantization,
                          io::read_quantization_config(dir, overrides));
  const core::DType kv_dtype =
      model::kv_dtype(options.kv_cache_dtype, quantization.info, options.pair.model);
  const int64_t ring_len =
      model::ring_len_for(config.text.sliding_window, options.num_draft_tokens, options.block_size);
  if (options.on_gpu) return open_on_gpu(options, config, kv_dtype, ring_len);
  TANDEM_ASSIGN_OR_RETURN(const KvPlan plan, make_plan(options, config.text, kv_dtype, ring_len));
  TANDEM_RETURN_IF_ERROR(
      core::check_memory(static_cast<double>(plan.size_bytes), "the KV cache",
                         "lower --kv-cache-gib, --max-num-seqs or --max-model-len"));
  EngineOptions engine = engine_options(options, config.text, plan, ring_len);
  TANDEM_RETURN_IF_ERROR(Engine::validate(engine));

  TANDEM_ASSIGN_OR_RETURN(model::Pair pair, model::load_pair(options.pair));
  engine.eos_token_ids = eos_token_ids(*pair.target);
  engine.suppress_tokens = pair.target_checkpoint->suppressed_ids();
  TANDEM_ASSIGN_OR_RETURN(
      model::KvScaleLists scales,
      model::kv_scales(*pair.target_checkpoint, kv_dtype, options.kv_cache_dtype));
  const model::KvStoreConfig kv{.block_size = options.block_size,
                                .num_ring_blocks = plan.num_ring_blocks + plan.num_snapshot_blocks,
                                .num_page_blocks = plan.num_page_blocks,
                                .ring_len = ring_len,
                                .dtype = kv_dtype};
  return std::unique_ptr<Runtime>(
      new Runtime(options, std::move(pair), plan, std::move(engine), kv, std::move(scales)));
}

Runtime::Runtime(const RuntimeOptions& options, model::Pair pair, const KvPlan& kv_plan,
                 EngineOptions engine, const model::KvStoreConfig& kv, model::KvScaleLists scales)
    : pool_(options.num_threads), pair_(std::move(pair)), kv_plan_(kv_plan), kv_dtype_(kv.dtype) {
  kv_ = std::make_unique<model::KvStore>(pair_.target->config(), kv, std::move(scales.k),
                                         std::move(scales.v));
  step_ = std::make_unique<speculation::SpeculativeStep>(
      *pair_.target, pair_.assistant.get(), *kv_,
      speculation::SpeculativeStepOptions{.max_sequences = kv_plan.max_num_seqs,
                                          .draft_position_offset = options.draft_position_offset,
                                          .draws_drafts = options.draws_drafts,
                                          .synthetic = options.synthetic,
                                          .synthetic_seed = options.seed});
  engine_ =
      std::make_unique<Engine>(std::move(engine), [this](const speculation::SpecBatch& batch) {
        return step_->run({.backend = ops::Backend::kCpu, .pool = &pool_}, batch);
      });
}

}  // namespace tandem::engine
