// How one step of the engine is laid out as passes of at most kPassRows rows: pure arithmetic.
#pragma once

#include <cstdint>
#include <vector>

#include "speculation/spec_batch.h"

namespace tandem::gpu {

inline constexpr int kPassRows = 192;  // places of a pass; a row's index is 192 * pass + place
inline constexpr int kMaxScreenedRows = 64;  // of a pass whose tokens come through a head's screen
inline constexpr int kTileQueries = 9;       // rows of one sequence that attention takes together

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// The next number of rows that kernels are made for; kPassRows at most.
constexpr int padded_rows(int64_t count) {
  for (const int size : {8, 16, 32, 64, 96, 128, 160})
    if (count <= size) return size;
  return kPassRows;
}

// The next of 8, 16, 32, ...: graphs are made for contexts up to one of them.
constexpr int padded(int64_t count) {
  int size = 8;
  while (size < count) size *= 2;
  return size;
}

struct PlannedRow {
  int32_t sequence = -1;  // entry of the batch; -1: padding
  int32_t token = 0;      // known ones; drafts are filled in on the device
  int32_t position = 0;
};

struct PlannedTile {
  int32_t first_row = 0;  // within its pass
  int32_t num_rows = 0;
};

struct PlannedPass {
  // >= 0: these rows went through wide pass `wide` as its rows `sources`; only the head is left.
  int wide = -1;
  std::vector<int32_t> sources;
  std::vector<PlannedRow> rows;
  std::vector<PlannedTile> tiles;
  bool needs_logits = false;
  int64_t max_keys = 0;

  int num_padded_rows() const { return padded_rows(static_cast<int64_t>(rows.size())); }
};

// Neighbouring rows of one sequence in a wide pass, at most kWideTileQueries.
inline constexpr int kWideTileQueries = 64;
struct PlannedWideTile {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  // Positions of the sequence's rows in this pass: begin .. end - 1.
  int32_t begin = 0;
  int32_t end = 0;
  int32_t widened_row = 0;  // where its position 0 lies among widened keys
};

// Neighbouring tiles whose sequences' keys have room beside each other (ops/cuda/wide_keys.h).
struct PlannedWideGroup {
  int first_tile = 0;
  int num_tiles = 0;
  int blocks_of_tile = 1;
};

// Rows of prompts, which go through kernels for many rows (prefill.h).
struct PlannedWidePass {
  std::vector<PlannedRow> rows;
  std::vector<PlannedWideTile> tiles;
  std::vector<PlannedWideGroup> groups;  // all tiles, where keys are widened
};

// A sequence that emits tokens in this step. Those that draft come first.
struct PlannedEntry {
  size_t sequence = 0;     // entry of the batch
  int32_t first_row = 0;   // row of its newest token
  int32_t num_drafts = 0;  // wanted
};

struct StepLayout {
  std::vector<PlannedWidePass> wide;  // before all others
  std::vector<PlannedPass> passes;    // those that take rows from wide passes come first
  std::vector<PlannedEntry> entries;
  int num_drafting = 0;  // the first entries
  int max_drafts = 0;
};

// Whether nothing but its own tile writes keys that a tile of the step's one pass sees: then all
// others can be read before the kernels in front of attention have finished (Rows::early_plan).
bool sees_settled_keys(const StepLayout& layout);

// `ring_slack`: most rows of one sequence in a pass, so that none overwrites a key that another one
// still sees. A round (newest token and drafts) stays in one pass.
// `wide_rows`: most rows of a wide pass; 0: the rows of prompts are rows like others.
// `widened_rows`: room for widened keys, those of one sequence at least; 0: none are.
StepLayout plan_step(const speculation::SpecBatch& batch, int64_t ring_slack, int64_t wide_rows = 0,
                     int64_t widened_rows = 0);

// What runs where the device could not choose the sequence's next token: its newest row and its
// drafts. The others have left their keys, and where they are many, the ring has lost those that
// the first of them saw.
speculation::SpecSequence newest_of(speculation::SpecSequence sequence);

// Most rows of one sequence in a pass: the ring has so many places beside a row's window.
constexpr int64_t slack_of_ring(int64_t ring_len, int64_t window) {
  return ring_len - window + 1;
}

// Most passes of a step of `max_rows` rows, those that take rows from wide passes included.
int64_t most_passes(int64_t max_rows, int64_t ring_slack, int64_t wide_rows = 0);

// Rows that the widened keys of `num_keys` positions take.
constexpr int64_t widened_rows_of(int64_t num_keys) {
  constexpr int64_t kStep = 64;  // of attention, which reads whole steps
  return (num_keys + kStep - 1) / kStep * kStep;
}

}  // namespace tandem::gpu
