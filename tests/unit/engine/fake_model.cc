#include "tests/unit/engine/fake_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

namespace tandem::engine::test {

FakeModel::FakeModel(const EngineOptions& engine, const FakeModelOptions& options)
    : options_(options),
      page_store_(static_cast<size_t>(engine.limits.num_page_blocks * engine.limits.block_size),
                  -1),
      ring_store_(static_cast<size_t>((engine.num_ring_blocks + engine.num_snapshot_blocks) *
                                      engine.limits.block_size),
                  -1) {}

void FakeModel::write(const speculation::SpecBatch& batch, int64_t entry, int64_t position,
                      int32_t token) {
  page_store_.at(static_cast<size_t>(batch.pages.slot(entry, position))) = token;
  ring_store_.at(static_cast<size_t>(batch.ring.slot(entry, position))) = token;
}

std::vector<int32_t> FakeModel::read(const speculation::SpecBatch& batch, int64_t entry,
                                     int64_t position) {
  std::vector<int32_t> history;
  for (int64_t p = 0; p <= position; ++p)
    history.push_back(page_store_.at(static_cast<size_t>(batch.pages.slot(entry, p))));
  for (int64_t p = std::max<int64_t>(0, position - options_.window + 1); p <= position; ++p) {
    const int32_t in_ring = ring_store_.at(static_cast<size_t>(batch.ring.slot(entry, p)));
    EXPECT_EQ(in_ring, history[static_cast<size_t>(p)]) << "ring of entry " << entry << " at " << p;
  }
  return history;
}

std::vector<float> FakeModel::logits(const std::vector<int32_t>& history) const {
  uint64_t hash = 1469598103934665603ULL;
  for (const int32_t token : history)
    hash = (hash ^ static_cast<uint64_t>(token + 1)) * 1099511628211ULL;
  std::mt19937_64 random(hash);
  std::vector<float> row(static_cast<size_t>(options_.vocab_size));
  for (float& x : row) x = static_cast<float>(random() % 4096) / 512.0F;
  const auto position = static_cast<int64_t>(history.size()) - 1;
  if (position == options_.nan_position && history.front() == options_.nan_first_token)
    row[3] = std::numeric_limits<float>::quiet_NaN();
  return row;
}

int32_t FakeModel::draft(const speculation::SpecSequence& sequence,
                         const std::vector<int32_t>& history) {
  const auto anything =
      static_cast<int32_t>(random_() % static_cast<uint64_t>(options_.vocab_size));
  // Right for greedy requests; a good guess for sampled ones, whose penalties it does not know.
  sampling::Sampler guesser = *sequence.sampler;
  const int32_t right = guesser.choose(logits(history), static_cast<int64_t>(history.size())).token;
  switch (options_.style) {
    case DraftStyle::kRight:
      return right < 0 ? anything : right;
    case DraftStyle::kWrong:
      return right == 0 ? 1 : 0;
    case DraftStyle::kMixed:
      return right < 0 || random_() % 3 == 0 ? anything : right;
  }
  return anything;
}

void FakeModel::round(const speculation::SpecBatch& batch, int64_t entry,
                      speculation::SpecSequenceResult& result) {
  const speculation::SpecSequence& sequence = batch.sequences[static_cast<size_t>(entry)];
  const int64_t newest = sequence.start_position + static_cast<int64_t>(sequence.tokens.size()) - 1;
  std::vector<int32_t> guess = read(batch, entry, newest);
  std::vector<int32_t> drafts;
  while (static_cast<int>(drafts.size()) < sequence.num_draft_tokens) {
    drafts.push_back(draft(sequence, guess));
    guess.push_back(drafts.back());
    write(batch, entry, newest + static_cast<int64_t>(drafts.size()), drafts.back());
  }
  result.num_drafted = static_cast<int>(drafts.size());
  for (size_t row = 0;; ++row) {
    const auto index = static_cast<int64_t>(row);
    const std::vector<int32_t> history = read(batch, entry, newest + index);
    sampling::TokenChoice choice = sequence.sampler->choose(logits(history), newest + 1 + index);
    if (choice.token == sampling::kNotFinite) {
      result.failed = true;
      return;
    }
    sequence.sampler->commit(choice.token);
    result.tokens.push_back(choice);
    if (row >= drafts.size() || drafts[row] != choice.token) return;
    ++result.num_accepted;
  }
}

speculation::SpecResult FakeModel::run(const speculation::SpecBatch& batch) {
  speculation::SpecResult result;
  result.sequences.resize(batch.sequences.size());
  for (const model::RingBlockCopy& copy : batch.ring_copies)
    for (int64_t i = 0; i < batch.ring.block_size; ++i)
      ring_store_.at(static_cast<size_t>(copy.to * batch.ring.block_size + i)) =
          ring_store_.at(static_cast<size_t>(copy.from * batch.ring.block_size + i));
  int64_t rows = 0;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const speculation::SpecSequence& sequence = batch.sequences[i];
    const auto entry = static_cast<int64_t>(i);
    int64_t position = sequence.start_position;
    // Row by row, as the sliding layers take their slices: a chunk may be longer than the ring.
    for (const int32_t token : sequence.tokens) {
      write(batch, entry, position, token);
      const std::vector<int32_t> history = read(batch, entry, position);
      const auto row = static_cast<size_t>(position++ - sequence.start_position);
      if (row < sequence.scored_tokens.size())
        result.sequences[i].scores.push_back(sampling::score_token(
            logits(history), sequence.scored_tokens[row], sequence.num_scored_top));
    }
    rows += static_cast<int64_t>(sequence.tokens.size()) + sequence.num_draft_tokens;
    if (sequence.samples) round(batch, entry, result.sequences[i]);
  }
  most_rows_ = std::max(most_rows_, rows);
  most_sequences_ = std::max(most_sequences_, static_cast<int64_t>(batch.sequences.size()));
  return result;
}

EngineOptions tiny_options(const TinyEngine& tiny, const FakeModelOptions& model) {
  EngineOptions options;
  options.limits = {.max_num_seqs = tiny.max_num_seqs,
                    .max_num_batched_tokens = tiny.max_num_batched_tokens,
                    .max_chunk_tokens = tiny.max_chunk_tokens,
                    .block_size = tiny.block_size,
                    .num_page_blocks = tiny.num_pages};
  const int64_t ring_blocks = blocks_for(model.window + tiny.num_draft_tokens, tiny.block_size);
  options.ring_len = ring_blocks * tiny.block_size;
  options.num_ring_blocks = ring_blocks * tiny.max_num_seqs;
  options.max_model_len = tiny.max_model_len;
  options.prefix_caching = tiny.prefix_caching;
  options.sliding_window = model.window;
  options.num_snapshot_blocks = tiny.num_snapshot_blocks;
  options.vocab_size = model.vocab_size;
  options.num_draft_tokens = tiny.num_draft_tokens;
  options.eos_token_ids = {1};
  options.suppress_tokens = {2};
  options.watch_acceptance = false;
  return options;
}

}  // namespace tandem::engine::test
