// The parts of a speculative round on one device, each to be timed alone. A backend joins by one
// more implementation.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "bench/device.h"
#include "gpu/step_plan.h"
#include "model/kv_format.h"
#include "model/pair.h"
#include "sampling/params.h"
#include "speculation/acceptance.h"

namespace tandem::bench {

struct StepSetup {
  int64_t context = 1024;  // tokens of the one sequence that are in the KV cache
  int max_rows = 9;        // of a verify
  int64_t prefill_tokens = 128;
  int num_draft_tokens = 0;
  int draft_position_offset = 0;
  std::optional<speculation::SyntheticAcceptance> synthetic = {};
  bool sampled = false;  // rounds draw with Gemma's own defaults instead of being greedy
};
sampling::SamplingParams sampling_of(const StepSetup& setup);

// What rounds gave beside their times.
struct RoundCounts {
  int64_t num_tokens = 0;
  // Seconds for which the device waited for the host before each; none where the host is the
  // device.
  std::vector<double> idle_seconds = {};
};

class StepModel {
 public:
  virtual ~StepModel() = default;

  // A target forward over `rows` rows of the sequence, and the logits of each.
  virtual std::vector<double> verify(const Timing& timing, int rows) = 0;
  // One step of the assistant, its logits and the argmax.
  virtual std::vector<double> draft(const Timing& timing) = 0;
  // Draft, verify, choose, for K drafts; K = 0 is plain decoding. Adds to `counts`.
  virtual std::vector<double> round(const Timing& timing, int num_draft_tokens,
                                    RoundCounts& counts) = 0;
  // Such rounds on the device's own clock; nothing where the host is the device.
  virtual std::vector<double> round_on_device(const Timing& /*timing*/, int /*num_draft_tokens*/) {
    return {};
  }
  // A prompt of `num_tokens` into an empty cache, and one row of logits.
  virtual std::vector<double> prefill(const Timing& timing, int64_t num_tokens) = 0;
};

// On the CPU. The pair outlives it; its activation buffers must hold max_rows and prefill_tokens.
// Scales are those of an FP8 cache.
std::unique_ptr<StepModel> make_cpu_step(Device& device, model::Pair& pair, const StepSetup& setup,
                                         core::DType kv_dtype, model::KvScaleLists scales = {});

// What one pass must read, by arithmetic on the checkpoints.
struct StepBytes {
  int64_t target_body = 0;  // projections of all layers
  int64_t target_head = 0;
  int64_t target_kv = 0;  // keys and values that `context` tokens have
  int64_t draft = 0;      // one draft step: projections, head, and the KV layers it sees
  int64_t draft_kv = 0;   // those layers alone
  // What screens of the heads spare a pass, and a draft step, of at most gpu::kMaxScreenedRows.
  int64_t target_spared = 0;
  int64_t draft_spared = 0;

  int64_t verify(int64_t rows = 1) const {
    return target_body + target_head + target_kv - spared(target_spared, rows);
  }
  int64_t draft_step(int64_t rows = 1) const { return draft - spared(draft_spared, rows); }
  // A round of `num_sequences`: drafts, and the verify pass.
  int64_t round(int64_t num_sequences, int num_draft_tokens) const {
    return verify(num_sequences * (num_draft_tokens + 1)) + (num_sequences - 1) * target_kv +
           num_draft_tokens * (draft_step(num_sequences) + (num_sequences - 1) * draft_kv);
  }

 private:
  static int64_t spared(int64_t bytes, int64_t rows) {
    return rows <= gpu::kMaxScreenedRows ? bytes : 0;
  }
};
StepBytes step_bytes(const model::Pair& pair, int64_t context, core::DType kv_dtype);

}  // namespace tandem::bench
