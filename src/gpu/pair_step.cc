#include "gpu/pair_step.h"

#include <algorithm>

namespace tandem::gpu {
namespace {

using speculation::SpecBatch;
using speculation::SpecResult;
using speculation::SpecSequence;

ControlSizes control_sizes(const DeviceStepOptions& options, int64_t ring_slack, bool runs_wide) {
  const int64_t wide_rows = runs_wide ? wide_capacity(options.max_step_rows) : 0;
  const int64_t wide_passes = runs_wide ? ceil_div(options.max_step_rows, wide_rows) : 0;
  return {.passes = static_cast<int>(most_passes(options.max_step_rows, ring_slack, wide_rows)),
          .entries = static_cast<int>(ceil_div(options.max_sequences, kPassRows) * kPassRows),
          .sequences = static_cast<int>(options.max_sequences),
          .ring_blocks =
              static_cast<int>(std::max<int64_t>(1, options.kv.ring_len / options.kv.block_size)),
          .page_blocks = static_cast<int>(ceil_div(
              options.max_model_len + speculation::kMaxDraftTokens + 1, options.kv.block_size)),
          .draws = static_cast<int>(options.max_sequences),
          .wide_passes = static_cast<int>(wide_passes),
          .wide_rows = static_cast<int>(wide_rows),
          // Each sequence, of which a row is at least, may leave a tile half empty.
          .wide_tiles = static_cast<int>(wide_rows / kWideTileQueries +
                                         std::min(options.max_sequences, wide_rows))};
}

WorkspaceSizes workspace_sizes(const Target& target, const std::optional<Assistant>& assistant,
                               int64_t max_keys) {
  WorkspaceSizes sizes = target.workspace_sizes(max_keys);
  if (assistant) sizes.cover(assistant->workspace_sizes(max_keys));
  return sizes;
}

template <typename T>
ops::cuda::DeviceBuffer upload(const std::vector<T>& values) {
  ops::cuda::DeviceBuffer buffer(values.size() * sizeof(T));
  if (!values.empty())
    TANDEM_CUDA_CHECK(
        cudaMemcpy(buffer.data(), values.data(), buffer.size_bytes(), cudaMemcpyHostToDevice));
  return buffer;
}

ops::cuda::SyntheticRates synthetic_rates(const DeviceStepOptions& options) {
  ops::cuda::SyntheticRates rates;
  if (!options.synthetic) return rates;
  rates.enabled = true;
  rates.seed = options.synthetic_seed;
  for (int i = 0; i < ops::cuda::kMaxDrafts; ++i)
    rates.conditional[i] = options.synthetic->conditional(i);
  return rates;
}

}  // namespace

PairStep::PairStep(Target target, std::optional<Assistant> assistant,
                   const std::vector<int32_t>& draft_suppress_tokens,
                   const DeviceStepOptions& options)
    : options_(options),
      target_(std::move(target)),
      assistant_(std::move(assistant)),
      kv_(target_.config(), options.kv, options.kv_scales),
      ring_slack_(slack_of_ring(options.kv.ring_len, target_.config().sliding_window)),
      max_keys_(options.max_model_len + speculation::kMaxDraftTokens + 1),
      control_(control_sizes(options, ring_slack_, target_.runs_wide()), options.kv.block_size),
      workspace_(workspace_sizes(target_, assistant_, max_keys_)),
      results_(static_cast<size_t>(control_.most().entries), options.patience) {
  TANDEM_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_.handle, cudaStreamNonBlocking));
  const auto row_bytes = static_cast<size_t>(target_.config().hidden_size * 2);
  const auto rows = static_cast<size_t>(control_.most().passes) * kPassRows;
  const auto entries = static_cast<size_t>(control_.most().entries);
  hidden_ = ops::cuda::DeviceBuffer(rows * row_bytes);
  states_ = ops::cuda::DeviceBuffer(static_cast<size_t>(options.max_sequences) * row_bytes);
  chosen_ = ops::cuda::DeviceBuffer(rows * sizeof(int32_t));
  draft_chosen_ = ops::cuda::DeviceBuffer(kPassRows * sizeof(int32_t));
  argmax_scratch_ = ops::cuda::DeviceBuffer(ops::cuda::argmax_scratch_bytes(kPassRows));
  host_tokens_ = ops::cuda::PinnedBuffer(rows * sizeof(int32_t));
  host_num_drafts_ = ops::cuda::PinnedBuffer(entries * sizeof(int32_t));
  host_moments_ = ops::cuda::PinnedBuffer(3 * sizeof(uint64_t));
  host_kept_ = ops::cuda::PinnedBuffer(entries * sizeof(ops::cuda::KeptState));
  if (target_.runs_wide())
    wide_.emplace(wide_sizes(target_.config(), options.kv.dtype, options.max_model_len),
                  options.max_step_rows, ops::cuda::num_multiprocessors());
  suppressed_ = upload(options.suppress_tokens);
  draft_suppressed_ = upload(draft_suppress_tokens);
  num_draft_suppressed_ = static_cast<int>(draft_suppress_tokens.size());
  if (assistant_)
    next_state_ = ops::cuda::DeviceBuffer(static_cast<size_t>(assistant_->next_state_bytes()));
  TANDEM_CUDA_CHECK(cudaMemset(argmax_scratch_.data(), 0, argmax_scratch_.size_bytes()));
  TANDEM_CUDA_CHECK(cudaMemset(states_.data(), 0, states_.size_bytes()));
  TANDEM_CUDA_CHECK(cudaDeviceSynchronize());
}

PairStep::~PairStep() {
  (void)cudaStreamSynchronize(stream_.handle);
  for (const auto& [shape, known] : shapes_)
    if (known.graph != nullptr)
      (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(known.graph));
  (void)cudaStreamDestroy(stream_.handle);
}

SpecResult PairStep::run(const SpecBatch& batch) {
  SpecResult result;
  result.sequences.resize(batch.sequences.size());
  if (batch.sequences.empty()) return result;
  kv_.copy_ring_blocks(stream_, batch.ring_copies);
  const StepLayout layout = layout_of(batch);
  const Choice choice = choice_of(batch, layout);
  control_.fill(batch, layout, options_.draft_position_offset, choice == Choice::kDraw);
  if (choice == Choice::kHost)
    run_with_host(batch, layout, result);
  else
    run_on_device(batch, layout, choice, result);
  return result;
}

StepLayout PairStep::layout_of(const SpecBatch& batch) const {
  if (!wide_) return plan_step(batch, ring_slack_);
  return plan_step(batch, ring_slack_, wide_->capacity, wide_->widened_rows);
}

void PairStep::run_on_device(const SpecBatch& batch, const StepLayout& layout, Choice choice,
                             SpecResult& result) {
  if (choice == Choice::kDraw) prepare_draws(batch, layout);
  results_.expect(layout.entries.size());
  launch_step(layout, choice);
  const auto rounds = results_.wait(stream_);
  note_end(rounds);
  add_times(layout, result);
  std::vector<size_t> undecided;
  for (size_t i = 0; i < layout.entries.size(); ++i) {
    const PlannedEntry& entry = layout.entries[i];
    const ops::cuda::RoundResult& round = rounds[i];
    speculation::SpecSequenceResult& out = result.sequences[entry.sequence];
    out.num_drafted = round.num_drafted;
    out.num_accepted = round.num_accepted;
    out.failed = round.failed != 0;
    if (round.undecided != 0 && round.num_tokens == 0) undecided.push_back(entry.sequence);
    num_draws_ += choice == Choice::kDraw ? 1 : 0;
    num_undecided_ += round.undecided != 0 ? 1 : 0;
    out.tokens.reserve(static_cast<size_t>(round.num_tokens));
    for (int t = 0; t < round.num_tokens; ++t) {
      sampling::TokenChoice choice;
      choice.token = round.tokens[t];
      out.tokens.push_back(std::move(choice));
      batch.sequences[entry.sequence].sampler->commit(round.tokens[t]);
    }
  }
  for (const size_t sequence : undecided) decide_on_host(batch, sequence, result);
}

PairStep::Shape PairStep::shape_of(const StepLayout& layout, Choice choice) const {
  Shape shape = {static_cast<int32_t>(choice), static_cast<int32_t>(layout.entries.size()),
                 layout.num_drafting, layout.max_drafts,
                 // With these, all that the control block's places depend on.
                 control_.sizes().sequences, control_.sizes().page_blocks};
  if (choice == Choice::kHost) {
    shape.push_back(rows_->questions().asks() ? 1 : 0);
    shape.push_back(rows_->questions().draws_from_all() ? 1 : 0);
  }
  if (choice == Choice::kDraw) shape.push_back(draws_through_screen() ? draw_depth_ : 0);
  shape.push_back(sees_settled_keys(layout) ? 1 : 0);
  for (const PlannedPass& pass : layout.passes) {
    shape.push_back(static_cast<int32_t>(pass.rows.size()));
    shape.push_back(static_cast<int32_t>(pass.tiles.size()));
    shape.push_back(pass.needs_logits ? 1 : 0);
    shape.push_back(padded(pass.max_keys));
  }
  return shape;
}

// The first step of a shape runs as it is, since it may be the only one; the second is recorded.
void PairStep::launch_step(const StepLayout& layout, Choice choice) {
  // Prompts come in every length, and their kernels are long beside a launch.
  settled_ = !options_.use_graphs;
  if (!layout.wide.empty()) {
    do_meanwhile();  // launching takes long
    record_step(layout, choice);
    return;
  }
  const auto [found, is_new] = shapes_.try_emplace(shape_of(layout, choice));
  KnownShape& known = found->second;
  known.last_launch = ++num_launches_;
  if (!options_.use_graphs || is_new) {
    do_meanwhile();
    record_step(layout, choice);
    if (shapes_.size() > options_.max_shapes) forget_oldest_shape();
    return;
  }
  if (known.graph == nullptr) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    TANDEM_CUDA_CHECK(cudaStreamBeginCapture(stream_.handle, cudaStreamCaptureModeThreadLocal));
    record_step(layout, choice);
    TANDEM_CUDA_CHECK(cudaStreamEndCapture(stream_.handle, &graph));
    TANDEM_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
    TANDEM_CUDA_CHECK(cudaGraphDestroy(graph));
    known.graph = executable;
  }
  TANDEM_CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(known.graph), stream_.handle));
  settled_ = true;
  do_meanwhile();
}

// Two launches or more ago, so the device is through with it.
void PairStep::forget_oldest_shape() {
  const auto oldest = std::ranges::min_element(
      shapes_, {}, [](const auto& entry) { return entry.second.last_launch; });
  if (void* const graph = oldest->second.graph)
    TANDEM_CUDA_CHECK(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
  shapes_.erase(oldest);
}

void PairStep::do_meanwhile() const {
  if (meanwhile_) meanwhile_();
}

void PairStep::record_start(const StepLayout& layout, Choice choice, StepPart part) {
  control_.copy_to_device(stream_, moment(Moment::kBegin));
  if (choice == Choice::kHost) rows_->questions().copy_to_device(stream_);
  if (part != StepPart::kDrafts) record_lists(layout);
  if (part != StepPart::kTarget) record_drafts(layout);
  if (part == StepPart::kDrafts) return;
  if (layout.max_drafts > 0) record_moment(Moment::kDrafted);
  if (choice == Choice::kHost) record_draft_copies();
  next_wide_ = 0;
}

void PairStep::record_step(const StepLayout& layout, Choice choice, StepPart part) {
  record_start(layout, choice, part);
  if (part == StepPart::kDrafts) return;
  for (size_t i = 0; i < layout.passes.size(); ++i) {
    const PlannedPass& pass = layout.passes[i];
    record_pass(layout, i);
    if (!pass.needs_logits) continue;
    if (choice == Choice::kHost) {
      record_rows(layout, i);
      continue;
    }
    if (choice == Choice::kDraw) {
      record_draws(layout, i);
      continue;
    }
    target_.choose(stream_, pass.num_padded_rows(),
                   {.logits = head_of(pass),
                    .scratch = argmax_scratch_.data(),
                    .tokens = chosen_.as<int32_t>() + i * kPassRows,
                    .draft = {}},
                   workspace_);
  }
  record_wide(layout, layout.wide.size());
  if (choice != Choice::kHost && !layout.entries.empty())
    record_acceptance(layout);
  else
    record_moment(Moment::kEnd);
}

ops::cuda::KvTable PairStep::ring_table() const {
  return {control_.device().ring_table, control_.sizes().ring_blocks,
          static_cast<int>(options_.kv.block_size), static_cast<int>(options_.kv.ring_len)};
}

ops::cuda::KvTable PairStep::page_table() const {
  return {control_.device().page_table, control_.sizes().page_blocks,
          static_cast<int>(options_.kv.block_size), 0};
}

Pass PairStep::draft_pass(const StepLayout& layout, int begin) const {
  const ControlView& c = control_.device();
  int64_t max_keys = 1;
  for (const PlannedPass& pass : layout.passes) max_keys = std::max(max_keys, pass.max_keys);
  const int count = std::min(layout.num_drafting - begin, kPassRows);
  return {.rows = {.num_rows = padded_rows(count),
                   .tokens = c.draft_tokens + begin,
                   .positions = c.draft_positions + begin,
                   .last_keys = c.draft_last_keys + begin,
                   .sequences = c.draft_sequences + begin,
                   .early_plan = true},
          .tiles = {.num_tiles = count,
                    .first_rows = c.draft_tile_first_rows + begin,
                    .num_rows = c.draft_tile_num_rows + begin},
          .ring = ring_table(),
          .pages = page_table(),
          .max_keys = static_cast<int>(std::min<int64_t>(padded(max_keys), max_keys_)),
          .real_rows = count};
}

Pass PairStep::target_pass(const StepLayout& layout, size_t index) const {
  const ControlView& c = control_.device();
  const PlannedPass& planned = layout.passes[index];
  const auto offset = static_cast<int64_t>(index) * kPassRows;
  return {.rows = {.num_rows = planned.num_padded_rows(),
                   .tokens = c.tokens + offset,
                   .positions = c.positions + offset,
                   .last_keys = c.positions + offset,  // a target row sees itself
                   .sequences = c.sequences + offset,
                   .early_plan = sees_settled_keys(layout)},
          .tiles = {.num_tiles = static_cast<int>(planned.tiles.size()),
                    .first_rows = c.tile_first_rows + offset,
                    .num_rows = c.tile_num_rows + offset},
          .ring = ring_table(),
          .pages = page_table(),
          .max_keys = static_cast<int>(std::min<int64_t>(padded(planned.max_keys), max_keys_)),
          .real_rows = static_cast<int>(planned.rows.size()),
          .lists_attention = lists_attention(layout)};
}

// Lists of few tiles are made while kernels in front of attention work.
bool PairStep::lists_attention(const StepLayout& layout) {
  return sees_settled_keys(layout) && layout.passes[0].tiles.size() > 8;
}

void PairStep::record_lists(const StepLayout& layout) {
  if (!lists_attention(layout)) return;
  target_.list_attention(stream_, target_pass(layout, 0), kv_, workspace_);
  stream_.next_waits = true;  // lists are read before the wait
}

void PairStep::record_drafts(const StepLayout& layout) {
  const ControlView& c = control_.device();
  for (int begin = 0; begin < layout.num_drafting; begin += kPassRows) {
    const Pass pass = draft_pass(layout, begin);
    const int count = pass.real_rows;
    Assistant::States states;
    states.store = states_.as<uint16_t>();
    states.slots = c.slots + begin;
    for (int step = 0; step < layout.max_drafts; ++step) {
      assistant_->step(stream_, target_, pass, kv_, states, next_state_.as<float>(),
                       {.logits = {.sums = {},
                                   .num_rows = count,
                                   .vocab_size = static_cast<int>(target_.config().vocab_size),
                                   .suppressed = draft_suppressed_.as<int32_t>(),
                                   .num_suppressed = num_draft_suppressed_},
                        .scratch = argmax_scratch_.data(),
                        .tokens = draft_chosen_.as<int32_t>(),
                        .draft = {.step = step,
                                  .num_entries = count,
                                  .first_rows = c.first_rows + begin,
                                  .wanted = c.wanted + begin,
                                  .num_drafts = c.num_drafts + begin,
                                  .tokens = c.tokens,
                                  .assistant_tokens = c.draft_tokens + begin}},
                       workspace_);
    }
  }
}

void PairStep::record_pass(const StepLayout& layout, size_t index) {
  const PlannedPass& planned = layout.passes[index];
  const auto offset = static_cast<int64_t>(index) * kPassRows;
  // Rows of prompts come before rows that may see them.
  record_wide(layout,
              planned.wide >= 0 ? static_cast<size_t>(planned.wide) + 1 : layout.wide.size());
  if (planned.wide >= 0)
    record_gather(planned, offset);
  else
    target_.forward(stream_, target_pass(layout, index), kv_,
                    hidden_.as<uint16_t>() + offset * target_.config().hidden_size, workspace_);
}

ops::cuda::HeadLogits PairStep::head_of(const PlannedPass& pass) const {
  return {.sums = {},
          .num_rows = static_cast<int>(pass.rows.size()),
          .vocab_size = static_cast<int>(target_.config().vocab_size),
          .cap = target_.softcap(),
          .suppressed = suppressed_.as<int32_t>(),
          .num_suppressed = static_cast<int>(options_.suppress_tokens.size())};
}

void PairStep::record_acceptance(const StepLayout& layout) {
  const ControlView& c = control_.device();
  ops::cuda::accept_drafts(stream_, {.num_entries = static_cast<int>(layout.entries.size()),
                                     .hidden = static_cast<int>(target_.config().hidden_size),
                                     .first_rows = c.first_rows,
                                     .num_drafts = c.num_drafts,
                                     .slots = c.slots,
                                     .tokens = c.tokens,
                                     .positions = c.positions,
                                     .chosen = chosen_.as<int32_t>(),
                                     .hidden_rows = hidden_.as<uint16_t>(),
                                     .states = states_.as<uint16_t>(),
                                     .results = results_.device(),
                                     .synthetic = synthetic_rates(options_),
                                     .next = {}});
}

}  // namespace tandem::gpu
