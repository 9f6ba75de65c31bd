// One step of the pair on the device: drafts, verify passes, acceptance and commit as one chain of
// kernels, replayed as a CUDA graph where its shape has been seen before.
#pragma once

#include <map>
#include <memory>
#include <span>

#include "core/thread_pool.h"
#include "gpu/control.h"
#include "gpu/device_step.h"
#include "gpu/logit_rows.h"
#include "gpu/models.h"
#include "gpu/prefill.h"
#include "gpu/round_results.h"
#include "ops/cuda/accept.h"
#include "ops/cuda/head.h"
#include "sampling/sampler.h"

namespace tandem::gpu {

class PairStep final : public DeviceStep {
 public:
  PairStep(Target target, std::optional<Assistant> assistant,
           const std::vector<int32_t>& draft_suppress_tokens, const DeviceStepOptions& options);
  ~PairStep() override;

  speculation::SpecResult run(const speculation::SpecBatch& batch) override;
  void set_meanwhile(std::function<void()> work) override { meanwhile_ = std::move(work); }
  std::optional<double> idle_seconds() const override { return idle_seconds_; }
  void clear_cache() override { kv_.clear(); }
  std::vector<double> device_seconds(const speculation::SpecBatch& batch, StepPart part,
                                     int count) override;

 private:
  // How a step's tokens are chosen: on the device, where all samplers are plain and greedy, or
  // plain and draw among the likeliest tokens; else by the host.
  enum class Choice { kGreedy, kDraw, kHost };
  Choice choice_of(const speculation::SpecBatch& batch, const StepLayout& layout) const;

  // What a graph of a step depends on besides the numbers in the control block.
  using Shape = std::vector<int32_t>;
  Shape shape_of(const StepLayout& layout, Choice choice) const;

  StepLayout layout_of(const speculation::SpecBatch& batch) const;
  void run_on_device(const speculation::SpecBatch& batch, const StepLayout& layout, Choice choice,
                     speculation::SpecResult& result);
  // A sequence of which the device could not decide the first token.
  void decide_on_host(const speculation::SpecBatch& batch, size_t sequence,
                      speculation::SpecResult& result);
  void run_with_host(const speculation::SpecBatch& batch, const StepLayout& layout,
                     speculation::SpecResult& result);
  // Pass by pass, the host choosing beside the device.
  void run_passes(const speculation::SpecBatch& batch, const StepLayout& layout,
                  speculation::SpecResult& result);

  ops::cuda::KvTable ring_table() const;
  ops::cuda::KvTable page_table() const;
  void launch_step(const StepLayout& layout, Choice choice);
  void forget_oldest_shape();
  void record_step(const StepLayout& layout, Choice choice, StepPart part = StepPart::kWhole);
  // A step up to its first pass, or to the end of its drafts.
  void record_start(const StepLayout& layout, Choice choice, StepPart part);
  Pass draft_pass(const StepLayout& layout, int begin) const;
  Pass target_pass(const StepLayout& layout, size_t index) const;
  // Whether the lists of the target's attention are made at the step's beginning, and that.
  static bool lists_attention(const StepLayout& layout);
  void record_lists(const StepLayout& layout);
  void record_drafts(const StepLayout& layout);
  // Pass `index` up to the head's operand.
  void record_pass(const StepLayout& layout, size_t index);
  // What its head leaves; the sums are still to come.
  ops::cuda::HeadLogits head_of(const PlannedPass& pass) const;
  // Wide passes up to `end` that have not been launched in this step.
  void record_wide(const StepLayout& layout, size_t end);
  // Rows of the last wide pass as if they had gone through a pass of their own.
  void record_gather(const PlannedPass& planned, int64_t offset);
  bool draws_through_screen() const;
  // The head of pass `index`, and the tokens of its rows, where some draw.
  void record_draws(const StepLayout& layout, size_t index);
  void record_acceptance(const StepLayout& layout);
  // The device's clock at places of a step. The beginning is always noted, when the control block
  // is there, and the end by the rounds' results; all else costs a kernel, where measures_times.
  enum class Moment { kBegin, kDrafted, kEnd };
  uint64_t* moment(Moment moment) const;
  void record_moment(Moment moment);
  void note_end(std::span<const ops::cuda::RoundResult> rounds);
  void add_times(const StepLayout& layout, speculation::SpecResult& result) const;
  // Drafts, and how many there are, to the host.
  void record_draft_copies();
  // The head of pass `index`, and what the host wants to know of its rows.
  void record_rows(const StepLayout& layout, size_t index);
  // What rows of logits need, when it is first needed.
  void make_rows();
  // And draws; sees how many of the likeliest tokens these take.
  void prepare_draws(const speculation::SpecBatch& batch, const StepLayout& layout);
  // Scores and chooses on the host for the entries of one pass.
  void finish_pass(const speculation::SpecBatch& batch, const StepLayout& layout, size_t pass,
                   speculation::SpecResult& result);
  // The tokens of one entry, and the state it keeps.
  ops::cuda::KeptState emit_entry(const speculation::SpecBatch& batch, const StepLayout& layout,
                                  size_t pass, size_t index, speculation::SpecResult& result);
  void score_pass(const speculation::SpecBatch& batch, const StepLayout& layout, size_t pass,
                  speculation::SpecResult& result);
  // States of the entries that finish_pass() chose for.
  void keep_states();

  void do_meanwhile() const;

  DeviceStepOptions options_;
  std::function<void()> meanwhile_;
  Target target_;
  std::optional<Assistant> assistant_;
  KvCache kv_;
  ops::cuda::Stream stream_;
  int64_t ring_slack_ = 0;
  int64_t max_keys_ = 0;
  Control control_;
  Workspace workspace_;
  std::optional<WideWorkspace> wide_;  // where the target runs_wide()
  size_t next_wide_ = 0;
  ops::cuda::DeviceBuffer hidden_;        // [most passes * kPassRows, hidden] BF16
  ops::cuda::DeviceBuffer states_;        // [max_sequences, hidden] BF16
  ops::cuda::DeviceBuffer next_state_;    // partial sums of post_projection
  ops::cuda::DeviceBuffer chosen_;        // [most passes * kPassRows] argmax of each row
  ops::cuda::DeviceBuffer draft_chosen_;  // [kPassRows]
  ops::cuda::DeviceBuffer argmax_scratch_;
  ops::cuda::DeviceBuffer suppressed_, draft_suppressed_;
  int num_draft_suppressed_ = 0;
  RoundResults results_;
  // For rows of logits; made when first needed.
  std::unique_ptr<LogitRows> rows_;
  std::unique_ptr<core::ThreadPool> choosers_;
  ops::cuda::DeviceBuffer likeliest_;  // [most passes * kPassRows]
  ops::cuda::DeviceBuffer likeliest_workspace_;
  int draw_depth_ = 0;  // how many of the likeliest tokens the step's draws take
  int64_t num_draws_ = 0, num_undecided_ = 0;  // rounds
  ops::cuda::PinnedBuffer host_tokens_;        // [most passes * kPassRows] tokens with their drafts
  ops::cuda::PinnedBuffer host_num_drafts_;
  ops::cuda::PinnedBuffer host_moments_;  // [3] nanoseconds
  ops::cuda::PinnedBuffer host_kept_;     // [most entries] KeptState
  int num_kept_ = 0;
  uint64_t last_end_ = 0;  // of the step before; 0: not known
  std::optional<double> idle_seconds_;
  struct KnownShape {
    void* graph = nullptr;  // cudaGraphExec_t; null: seen once
    uint64_t last_launch = 0;
  };
  std::map<Shape, KnownShape> shapes_;  // those that were launched last
  bool settled_ = true;                 // later steps like this one take as long: StepTime
  uint64_t num_launches_ = 0;
};

}  // namespace tandem::gpu
