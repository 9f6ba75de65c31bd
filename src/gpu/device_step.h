// The speculative step on an NVIDIA GPU, as the engine sees it: a step function and what it costs.
// Its specification is speculation::SpeculativeStep over the same pair; tests hold both together.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/checkpoint.h"
#include "model/kv_format.h"
#include "model/kv_store.h"
#include "model/options.h"
#include "speculation/acceptance.h"
#include "speculation/spec_batch.h"

namespace tandem::gpu {

struct DeviceInfo {
  std::string name;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
  int num_multiprocessors = 0;
  int compute_capability = 0;  // 90: 9.0
};

// The GPU that runs kernels of this build. Says what is missing: a driver, a card, or CUDA in the
// build.
base::Result<DeviceInfo> find_device();

struct DeviceStepOptions {
  model::KvStoreConfig kv;        // BF16 or F8_E4M3
  model::KvScaleLists kv_scales;  // of F8_E4M3, one per layer
  int64_t max_sequences = 1;      // rows of the state store
  int64_t max_step_rows = 64;     // tokens and drafts of one step, as the scheduler bounds them
  int64_t max_model_len = 0;      // most tokens of a sequence
  model::DraftHeadFormat draft_head = model::DraftHeadFormat::kCheckpoint;
  bool screens_heads = false;  // greedy tokens through 8-bit copies of BF16 heads, the same tokens
  int draft_position_offset = 0;
  std::optional<speculation::SyntheticAcceptance> synthetic;
  uint64_t synthetic_seed = 0;
  std::vector<int32_t> suppress_tokens;  // of the target: what a plain greedy sampler leaves out
  bool use_graphs = true;
  size_t max_shapes = 256;  // of steps, of which graphs are kept; at least 2
  bool whole_rows = false;  // for tests: where the host chooses, it looks at whole rows
  // Draws closer than this are decided by the host; tests raise it.
  double draw_slack = 1e-10;
  // How long a step's results are looked for before CUDA is asked; tests, whose device only goes on
  // when it is asked, lower it.
  std::chrono::milliseconds patience{50};
  bool measures_times = false;  // fills SpecResult's times, at the cost of a small kernel
};

// What of a step is measured.
enum class StepPart { kWhole, kDrafts, kTarget };

class DeviceStep {
 public:
  virtual ~DeviceStep() = default;
  // As SpeculativeStep::run.
  virtual speculation::SpecResult run(const speculation::SpecBatch& batch) = 0;
  // Work of the caller that run() does once in every step, where it can while the device works.
  virtual void set_meanwhile(std::function<void()> work) = 0;

  // How long the device waited for the host before the last step: from the step before having its
  // results to this one having its inputs. Nothing where one of the two was not that simple.
  virtual std::optional<double> idle_seconds() const = 0;

  // For benchmarks, before anything runs: what nobody has written to the KV cache is zero, where it
  // was NaN, so that steps over it are those of finite rows.
  virtual void clear_cache() = 0;

  // For benchmarks: seconds that each of `count` such steps takes on the device when they follow
  // each other without waiting for the host. Every sequence of `batch` must be greedy or draw among
  // its likeliest tokens, and nothing else; what is left in its KV blocks and state slots is of no
  // use.
  virtual std::vector<double> device_seconds(const speculation::SpecBatch& batch, StepPart part,
                                             int count) = 0;
};
struct WorkingSizes {
  core::DType kv_dtype = core::DType::kBF16;
  int64_t ring_len = 0;
  int64_t block_size = 0;
  int64_t max_model_len = 0;  // tokens of a sequence
  int64_t max_sequences = 0;
  int64_t max_step_rows = 0;
};
// Bytes on the device beside weights and KV cache, from the config alone: an upper bound, so that
// memory can be divided before weights are read.
int64_t working_bytes(const io::TextConfig& target, const WorkingSizes& sizes);

// What DeviceStepOptions::screens_heads takes for a head [vocab, hidden].
int64_t screen_bytes(const core::TensorView& head);

// Packs the weights on the device. assistant may be null. The checkpoints are not needed
// afterwards.
base::Result<std::unique_ptr<DeviceStep>> open_device_step(const io::Checkpoint& target,
                                                           const io::Checkpoint* assistant,
                                                           const DeviceStepOptions& options);

}  // namespace tandem::gpu
