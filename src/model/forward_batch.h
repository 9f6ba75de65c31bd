// The rows of one forward pass: prefill chunks, decode and verify rows alike.
#pragma once

#include <cstdint>
#include <span>

#include "ops/attention.h"

namespace tandem::model {

// A copy of one block of all sliding layers.
struct RingBlockCopy {
  int32_t from = 0;
  int32_t to = 0;
};

// Rows of one sequence are consecutive, positions rising by one. All spans [num_rows].
struct ForwardBatch {
  std::span<const int32_t> token_ids;
  std::span<const int32_t> positions;
  std::span<const int32_t> sequences;  // index into the places' tables
  ops::KvPlaces ring;                  // sliding layers
  ops::KvPlaces pages;                 // full layers

  int64_t num_rows() const { return static_cast<int64_t>(token_ids.size()); }
};

// One draft step: one row per sequence. All spans [num_rows].
struct DraftBatch {
  std::span<const int32_t> token_ids;  // the newest token, then the drafts
  std::span<const int32_t> positions;  // of the query's RoPE, the same for every step of a round
  std::span<const int32_t> last_keys;  // last visible key position: L-2
  std::span<const int32_t> sequences;
  ops::KvPlaces ring;
  ops::KvPlaces pages;

  int64_t num_rows() const { return static_cast<int64_t>(token_ids.size()); }
};

}  // namespace tandem::model
