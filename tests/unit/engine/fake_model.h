// A model of integers: its "KV cache" stores tokens at the places the engine hands out, and the
// next token is a function of every token read back from there. Any mix-up of blocks, lengths or
// rollbacks changes the text or trips a check.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "engine/engine.h"
#include "speculation/spec_batch.h"

namespace tandem::engine::test {

enum class DraftStyle { kRight, kWrong, kMixed };

struct FakeModelOptions {
  int64_t vocab_size = 40;
  int64_t window = 8;
  DraftStyle style = DraftStyle::kMixed;
  // The row at this position gives NaN logits for requests whose first token is `nan_first_token`.
  int64_t nan_position = -1;
  int32_t nan_first_token = -1;
};

class FakeModel {
 public:
  FakeModel(const EngineOptions& engine, const FakeModelOptions& options);

  speculation::SpecResult run(const speculation::SpecBatch& batch);

  int64_t most_rows() const { return most_rows_; }
  int64_t most_sequences() const { return most_sequences_; }

 private:
  void write(const speculation::SpecBatch& batch, int64_t entry, int64_t position, int32_t token);
  // All tokens 0 .. position, read through the page table; checks the window through the ring.
  std::vector<int32_t> read(const speculation::SpecBatch& batch, int64_t entry, int64_t position);
  std::vector<float> logits(const std::vector<int32_t>& history) const;
  void round(const speculation::SpecBatch& batch, int64_t entry,
             speculation::SpecSequenceResult& result);
  int32_t draft(const speculation::SpecSequence& sequence, const std::vector<int32_t>& history);

  FakeModelOptions options_;
  std::vector<int32_t> page_store_;  // [num_page_blocks * block_size]
  std::vector<int32_t> ring_store_;  // [num_ring_blocks * block_size]
  std::mt19937_64 random_{123};
  int64_t most_rows_ = 0;
  int64_t most_sequences_ = 0;
};

// Options of an engine over tiny pools.
struct TinyEngine {
  int64_t max_num_seqs = 4;
  int64_t max_num_batched_tokens = 16;
  int64_t max_chunk_tokens = 16;
  int64_t num_pages = 24;
  int64_t block_size = 4;
  int64_t max_model_len = 80;
  int num_draft_tokens = 4;
  bool prefix_caching = true;
  int64_t num_snapshot_blocks = 9;
};
EngineOptions tiny_options(const TinyEngine& tiny, const FakeModelOptions& model);

}  // namespace tandem::engine::test
