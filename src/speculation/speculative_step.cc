#include "speculation/speculative_step.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/clock.h"
#include "ops/activation.h"
#include "ops/argmax.h"
#include "speculation/emit.h"

namespace tandem::speculation {
namespace {

// Rows whose logits are held at once: bounds memory at 262,144 entries each (32 MB in all).
constexpr int64_t kLogitRows = 32;
static_assert(kLogitRows > kMaxDraftTokens);

}  // namespace

SpeculativeStep::SpeculativeStep(model::TargetModel& target, model::Drafter* assistant,
                                 model::KvStore& kv, const SpeculativeStepOptions& options)
    : target_(target), assistant_(assistant), kv_(kv), options_(options) {
  const int64_t hidden = target.config().hidden_size;
  const core::DType dtype = target.options().activation_dtype();
  const int64_t max_drafting = std::min(options.max_sequences, target.options().max_rows);
  states_ = core::Buffer(dtype, {options.max_sequences, hidden});
  logits_ = core::Buffer(core::DType::kF32, {kLogitRows, target.config().vocab_size});
  head_rows_ = core::Buffer(dtype, {kLogitRows, hidden});
  if (assistant != nullptr) {
    draft_state_ = core::Buffer(dtype, {max_drafting, hidden});
    draft_next_ = core::Buffer(dtype, {max_drafting, hidden});
  }
}

SpecResult SpeculativeStep::run(const ops::Context& context, const SpecBatch& batch) {
  SpecResult result;
  result.sequences.resize(batch.sequences.size());
  kv_.copy_ring_blocks(batch.ring_copies);
  if (batch.sequences.empty()) return result;
  draft(context, batch, result);
  const base::Stopwatch clock;
  const core::TensorView hidden = verify(context, batch);
  score(context, batch, hidden, result);
  choose(context, batch, hidden, result);
  result.verify_time = {hidden.rows(), clock.seconds()};
  return result;
}

void SpeculativeStep::draft(const ops::Context& context, const SpecBatch& batch,
                            SpecResult& result) {
  drafts_.assign(batch.sequences.size(), {});
  if (assistant_ == nullptr) return;
  std::vector<size_t> active;  // entries that draft one more token
  std::vector<int32_t> rows;   // where the state of each lies
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[i];
    TANDEM_CHECK_LE(sequence.num_draft_tokens, kMaxDraftTokens);
    if (sequence.num_draft_tokens == 0) continue;
    TANDEM_CHECK_EQ(sequence.tokens.size(), size_t{1});
    active.push_back(i);
    rows.push_back(sequence.state_slot);
  }
  core::TensorView source = states_.view();
  while (!active.empty()) {
    const base::Stopwatch clock;
    const auto n = static_cast<int64_t>(active.size());
    ops::gather_rows(context, source, rows, draft_next_.rows(n));
    std::swap(draft_state_, draft_next_);
    draft_step(context, batch, active);
    result.draft_times.push_back({n, clock.seconds()});
    source = draft_state_.view();
    std::vector<size_t> still;
    rows.clear();
    for (size_t r = 0; r < active.size(); ++r) {
      const size_t entry = active[r];
      if (!take_draft(batch.sequences[entry], draft_tokens_[r], drafts_[entry])) continue;
      still.push_back(entry);
      rows.push_back(static_cast<int32_t>(r));
    }
    active = std::move(still);
  }
  // Drafts are guesses: the constraints stand where they stood.
  for (size_t i = 0; i < batch.sequences.size(); ++i)
    if (batch.sequences[i].constraint != nullptr)
      batch.sequences[i].constraint->rollback(static_cast<int>(drafts_[i].size()));
}

bool SpeculativeStep::take_draft(const SpecSequence& sequence, int32_t token,
                                 std::vector<int32_t>& drafts) const {
  if (token == ops::kNotFinite) return false;
  if (sequence.constraint != nullptr) {
    if (!sequence.constraint->accept(token)) return false;
    // An end is not worth a row: whoever is right about it saves nothing.
    if (sequence.constraint->finished()) {
      sequence.constraint->rollback(1);
      return false;
    }
  }
  drafts.push_back(token);
  return static_cast<int>(drafts.size()) < sequence.num_draft_tokens;
}

// One step of the assistant for the active entries; leaves the guesses in draft_tokens_ and the
// next states in draft_state_.
void SpeculativeStep::draft_step(const ops::Context& context, const SpecBatch& batch,
                                 std::span<const size_t> active) {
  std::vector<int32_t> tokens, positions, last_keys, sequences;
  for (const size_t entry : active) {
    const SpecSequence& sequence = batch.sequences[entry];
    tokens.push_back(drafts_[entry].empty() ? sequence.tokens.back() : drafts_[entry].back());
    const auto last_key = static_cast<int32_t>(sequence.start_position) - 1;  // L - 2
    positions.push_back(last_key + options_.draft_position_offset);
    last_keys.push_back(last_key);
    sequences.push_back(static_cast<int32_t>(entry));
  }
  const auto n = static_cast<int64_t>(active.size());
  const model::DraftBatch rows{tokens, positions, last_keys, sequences, batch.ring, batch.pages};
  draft_tokens_.resize(active.size());
  for (int64_t begin = 0; begin < n; begin += kLogitRows) {
    const int64_t end = std::min(n, begin + kLogitRows);
    const auto offset = static_cast<size_t>(begin);
    const auto count = static_cast<size_t>(end - begin);
    const model::DraftBatch part{rows.token_ids.subspan(offset, count),
                                 rows.positions.subspan(offset, count),
                                 rows.last_keys.subspan(offset, count),
                                 rows.sequences.subspan(offset, count),
                                 batch.ring,
                                 batch.pages};
    const core::TensorView logits = logits_.rows(end - begin);
    assistant_->step(context, part, kv_, draft_state_.view().slice_rows(begin, end), logits,
                     assistant_observer_);
    for (size_t r = 0; r < count; ++r) {
      base::TokenConstraint* constraint = batch.sequences[active[offset + r]].constraint;
      if (constraint == nullptr) continue;
      sampling::keep_allowed(constraint->allowed(), {logits.row<float>(static_cast<int64_t>(r)),
                                                     static_cast<size_t>(logits.cols())});
    }
    const auto guesses = std::span(draft_tokens_).subspan(offset, count);
    ops::argmax(context, logits, assistant_->suppress_tokens(), guesses);
    if (options_.draws_drafts) draw_guesses(batch, active.subspan(offset, count), logits, guesses);
  }
}

void SpeculativeStep::draw_guesses(const SpecBatch& batch, std::span<const size_t> entries,
                                   const core::TensorView& logits,
                                   std::span<int32_t> guesses) const {
  for (size_t r = 0; r < entries.size(); ++r) {
    const SpecSequence& sequence = batch.sequences[entries[r]];
    if (sequence.sampler->params().greedy()) continue;
    const std::span row(logits.row<float>(static_cast<int64_t>(r)),
                        static_cast<size_t>(logits.cols()));
    for (const int32_t id : assistant_->suppress_tokens())
      row[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
    const auto place = static_cast<int64_t>(drafts_[entries[r]].size());
    guesses[r] = sequence.sampler->guess(row, sequence.start_position + 1 + place);
  }
}

// The target over every row of the step: chunks, newest tokens and drafts in one pass.
core::TensorView SpeculativeStep::verify(const ops::Context& context, const SpecBatch& batch) {
  std::vector<int32_t> tokens, positions, sequences;
  first_rows_.clear();
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[i];
    first_rows_.push_back(static_cast<int64_t>(tokens.size()));
    tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
    tokens.insert(tokens.end(), drafts_[i].begin(), drafts_[i].end());
    auto position = static_cast<int32_t>(sequence.start_position);
    while (positions.size() < tokens.size()) {
      positions.push_back(position++);
      sequences.push_back(static_cast<int32_t>(i));
    }
  }
  const model::ForwardBatch rows{tokens, positions, sequences, batch.ring, batch.pages};
  return target_.forward(context, rows, kv_, target_observer_);
}

void SpeculativeStep::score(const ops::Context& context, const SpecBatch& batch,
                            const core::TensorView& hidden, SpecResult& result) {
  const auto vocab = static_cast<size_t>(target_.config().vocab_size);
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[i];
    TANDEM_CHECK_LE(sequence.scored_tokens.size(), sequence.tokens.size());
    const auto count = static_cast<int64_t>(sequence.scored_tokens.size());
    for (int64_t begin = 0; begin < count; begin += kLogitRows) {
      std::vector<int32_t> rows;
      while (begin + static_cast<int64_t>(rows.size()) < count &&
             static_cast<int64_t>(rows.size()) < kLogitRows)
        rows.push_back(
            static_cast<int32_t>(first_rows_[i] + begin + static_cast<int64_t>(rows.size())));
      const auto n = static_cast<int64_t>(rows.size());
      ops::gather_rows(context, hidden, rows, head_rows_.rows(n));
      target_.logits(context, head_rows_.rows(n), logits_.rows(n));
      for (int64_t j = 0; j < n; ++j)
        result.sequences[i].scores.push_back(sampling::score_token(
            std::span<const float>(logits_.view().row<float>(j), vocab),
            sequence.scored_tokens[static_cast<size_t>(begin + j)], sequence.num_scored_top));
    }
  }
}

// Logits in groups of entries, then the choice of tokens; keeps the state row of each entry.
void SpeculativeStep::choose(const ops::Context& context, const SpecBatch& batch,
                             const core::TensorView& hidden, SpecResult& result) {
  const auto vocab = static_cast<size_t>(target_.config().vocab_size);
  std::vector<size_t> group;
  std::vector<int32_t> rows;
  const auto flush = [&] {
    if (group.empty()) return;
    const auto n = static_cast<int64_t>(rows.size());
    ops::gather_rows(context, hidden, rows, head_rows_.rows(n));
    target_.logits(context, head_rows_.rows(n), logits_.rows(n));
    int64_t row = 0;
    for (const size_t entry : group) {
      const SpecSequence& sequence = batch.sequences[entry];
      const auto choose_row = [&, first = row](int64_t i, int64_t position,
                                               sampling::TokenMask allowed) {
        return sequence.sampler->choose({logits_.view().row<float>(first + i), vocab}, position,
                                        allowed);
      };
      const int64_t last =
          emit_tokens(sequence, drafts_[entry], choose_row,
                      {options_.synthetic, options_.synthetic_seed}, result.sequences[entry]);
      const int32_t state[] = {rows[static_cast<size_t>(row + last)]};
      ops::gather_rows(context, hidden, state,
                       states_.view().slice_rows(sequence.state_slot, sequence.state_slot + 1));
      row += static_cast<int64_t>(drafts_[entry].size()) + 1;
    }
    group.clear();
    rows.clear();
  };
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const SpecSequence& sequence = batch.sequences[i];
    if (!sequence.samples) continue;
    const size_t needed = drafts_[i].size() + 1;
    if (rows.size() + needed > static_cast<size_t>(kLogitRows)) flush();
    group.push_back(i);
    const auto newest = static_cast<int64_t>(sequence.tokens.size()) - 1;
    for (size_t j = 0; j < needed; ++j)
      rows.push_back(static_cast<int32_t>(first_rows_[i] + newest + static_cast<int64_t>(j)));
  }
  flush();
}

}  // namespace tandem::speculation
