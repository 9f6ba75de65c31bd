// A pair, its KV cache and an engine over them, wired once: what `generate`, `chat` and the server
// open.
#pragma once

#include <functional>
#include <memory>

#include "base/status.h"
#include "core/thread_pool.h"
#include "engine/engine.h"
#include "engine/kv_plan.h"
#include "gpu/device_step.h"
#include "model/kv_format.h"
#include "model/pair.h"
#include "speculation/speculative_step.h"

namespace tandem::engine {

struct RuntimeOptions {
  model::PairOptions pair;   // pair.model.max_rows is set from max_num_batched_tokens
  int num_threads = 0;       // 0: all usable cores
  int num_draft_tokens = 0;  // K; needs an assistant when > 0
  bool auto_drafts = false;  // each round has its own K, up to num_draft_tokens
  std::map<int64_t, int> drafts_from = {};  // as EngineOptions has it
  int draft_position_offset = 0;
  bool draws_drafts = false;  // SpeculativeStepOptions
  std::optional<speculation::SyntheticAcceptance> synthetic;
  int64_t max_num_seqs = 8;
  int64_t max_num_batched_tokens = 512;
  int64_t max_chunk_tokens = 512;
  int64_t max_model_len = 0;  // 0: as the KV memory allows
  int64_t max_num_queued = 0;
  bool priorities = false;
  int64_t kv_bytes = int64_t{4} << 30;
  int64_t block_size = 32;
  model::KvCacheDtype kv_cache_dtype = model::KvCacheDtype::kAuto;
  bool prefix_caching = true;
  uint64_t seed = 0;
  // On a GPU the KV cache takes what gpu_memory_utilization of the card's memory leaves beside
  // weights and working memory, but no more than kv_bytes.
  bool on_gpu = false;
  double gpu_memory_utilization = 0.9;
  bool use_graphs = true;
  bool screens_heads = true;  // DeviceStepOptions
  // For tests: DeviceStepOptions.
  bool whole_rows = false;
  double draw_slack = 1e-10;
  size_t max_shapes = 256;
};

class Runtime {
 public:
  // Refuses what the options, the pair or the memory do not allow. Logs nothing of its own.
  static base::Result<std::unique_ptr<Runtime>> open(RuntimeOptions options);

  Engine& engine() { return *engine_; }
  const model::Pair& pair() const { return pair_; }
  const KvPlan& kv_plan() const { return kv_plan_; }
  model::KvStore& kv() { return *kv_; }  // on a CPU
  core::DType kv_dtype() const { return kv_dtype_; }
  // Where steps run: the card's name, or nothing for the CPU.
  const std::string& gpu_name() const { return gpu_name_; }
  gpu::DeviceStep* device_step() { return device_step_.get(); }  // null on a CPU
  // Work that every step does while it waits for the device: DeviceStep::set_meanwhile, beside the
  // engine's own.
  void set_meanwhile(std::function<void()> work);
  int num_threads() const { return pool_.num_threads(); }

 private:
  Runtime(const RuntimeOptions& options, model::Pair pair, const KvPlan& kv_plan,
          EngineOptions engine, const model::KvStoreConfig& kv, model::KvScaleLists scales);
  Runtime(const RuntimeOptions& options, model::Pair pair, const KvPlan& kv_plan,
          EngineOptions engine, std::unique_ptr<gpu::DeviceStep> device_step, std::string gpu_name);
  static base::Result<std::unique_ptr<Runtime>> open_on_gpu(const RuntimeOptions& options,
                                                            const io::ModelConfig& config,
                                                            core::DType kv_dtype, int64_t ring_len);

  core::ThreadPool pool_;
  model::Pair pair_;
  KvPlan kv_plan_;
  core::DType kv_dtype_ = core::DType::kBF16;
  std::string gpu_name_;
  std::unique_ptr<model::KvStore> kv_;  // null on a GPU, as the next one
  std::unique_ptr<speculation::SpeculativeStep> step_;
  std::unique_ptr<gpu::DeviceStep> device_step_;  // null on a CPU
  std::unique_ptr<Engine> engine_;
};

// Where a target's answers end: generation_config.json's eos ids, else config.json's.
std::vector<int32_t> eos_token_ids(const model::TargetModel& target);

}  // namespace tandem::engine
