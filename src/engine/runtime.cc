#include "engine/runtime.h"

#include <algorithm>
#include <utility>

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

// What generation_config.json forbids, and the places for images and sound, which mean nothing in a
// text.
std::vector<int32_t> suppressed_ids(const io::Checkpoint& target) {
  std::vector<int32_t> ids = target.generation_config().suppress_tokens;
  for (const int32_t id : target.config().modality_token_ids)
    if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  return ids;
}

EngineOptions engine_options(const RuntimeOptions& options, const model::Pair& pair,
                             const KvPlan& plan, int64_t ring_len) {
  EngineOptions engine;
  engine.limits = {.max_num_seqs = plan.max_num_seqs,
                   .max_num_batched_tokens = options.max_num_batched_tokens,
                   .max_chunk_tokens = options.max_chunk_tokens,
                   .block_size = options.block_size,
                   .num_page_blocks = plan.num_page_blocks};
  engine.ring_len = ring_len;
  engine.num_ring_blocks = plan.num_ring_blocks;
  engine.max_model_len = plan.max_model_len;
  engine.vocab_size = pair.target->config().vocab_size;
  engine.num_draft_tokens = options.num_draft_tokens;
  engine.max_num_queued = options.max_num_queued;
  engine.eos_token_ids = eos_token_ids(*pair.target);
  engine.suppress_tokens = suppressed_ids(pair.target->checkpoint());
  engine.seed = options.seed;
  engine.watch_acceptance = !options.synthetic.has_value();
  return engine;
}

}  // namespace

std::vector<int32_t> eos_token_ids(const model::TargetModel& target) {
  const auto& generation = target.checkpoint().generation_config().eos_token_ids;
  return generation.empty() ? target.checkpoint().config().eos_token_ids : generation;
}

base::Result<std::unique_ptr<Runtime>> Runtime::open(RuntimeOptions options) {
  TANDEM_RETURN_IF_ERROR(check_options(options));
  options.pair.model.max_rows = options.max_num_batched_tokens;
  TANDEM_ASSIGN_OR_RETURN(model::Pair pair, model::load_pair(options.pair));
  const auto& config = pair.target->config();
  const int64_t ring_len =
      model::ring_len_for(config.sliding_window, options.num_draft_tokens, options.block_size);
  const model::KvBlockBytes bytes =
      model::kv_block_bytes(config, options.block_size, options.pair.model.activation_dtype());
  TANDEM_ASSIGN_OR_RETURN(const KvPlan plan,
                          plan_kv({.ring_block_bytes = bytes.ring_block_bytes,
                                   .page_block_bytes = bytes.page_block_bytes,
                                   .block_size = options.block_size,
                                   .ring_len = ring_len,
                                   .max_num_seqs = options.max_num_seqs,
                                   .max_model_len = options.max_model_len,
                                   .longest_model_len = config.max_position_embeddings,
                                   .budget_bytes = options.kv_bytes}));
  TANDEM_RETURN_IF_ERROR(Engine::validate(engine_options(options, pair, plan, ring_len)));
  return std::unique_ptr<Runtime>(new Runtime(options, std::move(pair), plan, ring_len));
}

Runtime::Runtime(const RuntimeOptions& options, model::Pair pair, const KvPlan& kv_plan,
                 int64_t ring_len)
    : pool_(options.num_threads), pair_(std::move(pair)), kv_plan_(kv_plan) {
  kv_ = std::make_unique<model::KvStore>(
      pair_.target->config(), model::KvStoreConfig{.block_size = options.block_size,
                                                   .num_ring_blocks = kv_plan.num_ring_blocks,
                                                   .num_page_blocks = kv_plan.num_page_blocks,
                                                   .ring_len = ring_len,
                                                   .dtype = options.pair.model.activation_dtype()});
  step_ = std::make_unique<speculation::SpeculativeStep>(
      *pair_.target, pair_.assistant.get(), *kv_,
      speculation::SpeculativeStepOptions{.max_sequences = kv_plan.max_num_seqs,
                                          .draft_position_offset = options.draft_position_offset,
                                          .synthetic = options.synthetic,
                                          .synthetic_seed = options.seed});
  engine_ = std::make_unique<Engine>(engine_options(options, pair_, kv_plan, ring_len),
                                     [this](const speculation::SpecBatch& batch) {
                                       return step_->run(
                                           {.backend = ops::Backend::kCpu, .pool = &pool_}, batch);
                                     });
}

}  // namespace tandem::engine
