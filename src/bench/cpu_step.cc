// The parts of a round on the CPU: exactly the code that serves.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "bench/cpu_device.h"
#include "bench/step_model.h"
#include "core/buffer.h"
#include "model/single_sequence.h"
#include "ops/argmax.h"
#include "sampling/sampler.h"
#include "speculation/speculative_step.h"

namespace tandem::bench {
namespace {

using core::DType;
using core::Shape;
using core::TensorView;

// Rounds begin at this many positions in turn: synthetic acceptance is keyed by position.
constexpr int64_t kPositions = 64;
constexpr int32_t kToken = 2;

speculation::SpeculativeStepOptions step_options(const StepSetup& setup) {
  speculation::SpeculativeStepOptions options;
  options.draft_position_offset = setup.draft_position_offset;
  options.synthetic = setup.synthetic;
  return options;
}

class CpuStep : public StepModel {
 public:
  CpuStep(Device& device, model::Pair& pair, const StepSetup& setup, core::DType kv_dtype,
          model::KvScaleLists scales)
      : context_(device.context()),
        pair_(pair),
        setup_(setup),
        activation_(pair.target->options().activation_dtype()),
        sequence_(pair.target->config(),
                  std::max(setup.context + kPositions + setup.max_rows, setup.prefill_tokens),
                  speculation::kMaxDraftTokens, kv_dtype, std::move(scales.k), std::move(scales.v)),
        step_(*pair.target, pair.assistant.get(), sequence_.kv(), step_options(setup)),
        sampler_(sampling_of(setup), pair.target->config().vocab_size, {}, {}, {}, 0) {
    fill_kv();
    logits_ = core::Buffer(DType::kF32, Shape{setup.max_rows, pair.target->config().vocab_size});
    state_ = core::Buffer(activation_, Shape{1, pair.target->config().hidden_size});
    state_.fill_bytes(0);
  }

  std::vector<double> verify(const Timing& timing, int rows) override {
    return time_calls(timing, [&](int64_t) {
      const TensorView hidden = forward(setup_.context, rows);
      pair_.target->logits(context_, hidden, logits_.rows(rows));
    });
  }

  std::vector<double> draft(const Timing& timing) override {
    TANDEM_CHECK(pair_.assistant != nullptr);
    const auto last_key = static_cast<int32_t>(setup_.context) - 1;
    const int32_t token[] = {kToken};
    const int32_t position[] = {last_key + setup_.draft_position_offset};
    const int32_t key[] = {last_key};
    const int32_t sequence[] = {0};
    const model::DraftBatch batch{token,    position,         key,
                                  sequence, sequence_.ring(), sequence_.pages()};
    int32_t best[] = {0};
    return time_calls(timing, [&](int64_t) {
      pair_.assistant->step(context_, batch, sequence_.kv(), state_.view(), logits_.rows(1),
                            nullptr);
      ops::argmax(context_, logits_.rows(1), pair_.assistant->suppress_tokens(), best);
    });
  }

  std::vector<double> round(const Timing& timing, int num_draft_tokens,
                            RoundCounts& counts) override {
    run_round(0, 0);  // leaves the state row that drafts begin with
    const std::vector<double> seconds = time_calls(timing, [&](int64_t call) {
      const size_t tokens = run_round(call % kPositions, num_draft_tokens);
      if (call > 0) counts.num_tokens += static_cast<int64_t>(tokens);
    });
    return seconds;
  }

  std::vector<double> prefill(const Timing& timing, int64_t num_tokens) override {
    const std::vector<double> seconds = time_calls(timing, [&](int64_t) {
      const TensorView hidden = forward(0, num_tokens);
      pair_.target->logits(context_, hidden.slice_rows(num_tokens - 1, num_tokens),
                           logits_.rows(1));
    });
    fill_kv();
    return seconds;
  }

 private:
  // As if `context` tokens had been read: small finite numbers.
  void fill_kv() {
    for (int64_t i = 0; i < pair_.target->config().num_layers(); ++i)
      for (const TensorView& view : {sequence_.kv().layer(i).k, sequence_.kv().layer(i).v})
        std::memset(view.data, 0x3c,
                    static_cast<size_t>(view.shape.num_elements()) * core::dtype_bytes(view.dtype));
  }

  TensorView forward(int64_t first_position, int64_t rows) {
    const auto n = static_cast<size_t>(rows);
    const std::vector<int32_t> tokens(n, kToken);
    const std::vector<int32_t> sequences(n, 0);
    std::vector<int32_t> positions(n);
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(first_position));
    return pair_.target->forward(
        context_, {tokens, positions, sequences, sequence_.ring(), sequence_.pages()},
        sequence_.kv());
  }

  size_t run_round(int64_t offset, int num_draft_tokens) {
    const int32_t newest[] = {kToken};
    speculation::SpecBatch batch;
    batch.ring = sequence_.ring();
    batch.pages = sequence_.pages();
    speculation::SpecSequence entry;
    entry.tokens = newest;
    entry.start_position = setup_.context + offset;
    entry.samples = true;
    entry.num_draft_tokens = num_draft_tokens;
    entry.sampler = &sampler_;
    batch.sequences.push_back(entry);
    return step_.run(context_, batch).sequences[0].tokens.size();
  }

  const ops::Context& context_;
  model::Pair& pair_;
  StepSetup setup_;
  DType activation_;
  model::SingleSequence sequence_;
  speculation::SpeculativeStep step_;
  sampling::Sampler sampler_;
  core::Buffer logits_;  // [max_rows, vocab] F32
  core::Buffer state_;   // [1, hidden]
};

}  // namespace

std::unique_ptr<StepModel> make_cpu_step(Device& device, model::Pair& pair, const StepSetup& setup,
                                         core::DType kv_dtype, model::KvScaleLists scales) {
  return std::make_unique<CpuStep>(device, pair, setup, kv_dtype, std::move(scales));
}

}  // namespace tandem::bench
