// The ends of a round on the device: drafts are handed to the verify rows, compared with what the
// target chose, and committed. Everything is a function of device memory, so that a graph of a
// whole round can be replayed.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"

namespace tandem::ops::cuda {

inline constexpr int kMaxDrafts = 8;

// Entry e of a batch has the verify rows first_rows[e] .. first_rows[e] + num_drafts[e]: its newest
// token, then its drafts.
//
// Takes the guess of draft step `step` (from 0). The guess becomes the token of verify row
// first_rows[e] + 1 + step and the assistant's next input. An entry stops drafting at the first
// guess that is kNotFinite and at wanted[e]; num_drafts[e] then stays what it was. Steps run in
// order; step 0 sets num_drafts. The row of a draft that is not made gets token 0.
struct DraftToken {
  int step = 0;
  int num_entries = 0;
  const int32_t* first_rows = nullptr;  // [num_entries]
  const int32_t* wanted = nullptr;      // [num_entries] 0 .. kMaxDrafts
  int32_t* num_drafts = nullptr;        // [num_entries]
  int32_t* tokens = nullptr;            // [rows of the verify step]
  int32_t* assistant_tokens = nullptr;  // [num_entries] at least
};

// chosen [num_entries]: argmax of the assistant's rows. See argmax_rows() for the fused form.
void next_draft_token(const Stream& stream, const DraftToken& op, const int32_t* chosen);

// What a round gave one entry. tokens: accepted drafts, then the target's own; without the latter
// when `failed` (its row holds NaN or infinities) or `undecided` (draw.h): then the last accepted
// draft counts as the target's own, and those behind it as not drafted. Written to page-locked
// memory, a result is whole as soon as the host sees `finished` (load, acquire), the device's clock
// (record_time), which is never 0; the kernel may still be at work on the entry's state.
struct RoundResult {
  int32_t num_tokens;
  int32_t num_accepted;
  int32_t num_drafted;
  int32_t failed;
  int32_t undecided;
  int32_t tokens[kMaxDrafts + 1];
  uint64_t finished = 0;
};

// Accepts draft i with conditional[i] whether or not it is the target's token: benchmarks with
// random weights. Chance takes the round's newest token in, so that neighbours do not share it.
struct SyntheticRates {
  bool enabled = false;
  uint64_t seed = 0;
  double conditional[kMaxDrafts] = {};
};

// Where the next round begins, for the rows of this entry; any pointer may be null. L is the number
// of the entry's tokens after the round: its newest token goes to row first_rows[e], positions
// L-1, L, .. to rows first_rows[e] .. + max_drafts, and the assistant's row e gets that token, the
// position L-2 + draft_position_offset and the last key L-2. An entry that failed keeps its inputs.
struct NextRound {
  int max_drafts = 0;
  int draft_position_offset = 0;
  int32_t* tokens = nullptr;               // [rows of the verify step]
  int32_t* positions = nullptr;            // [rows of the verify step]
  int32_t* last_keys = nullptr;            // [rows of the verify step], as positions
  int32_t* assistant_tokens = nullptr;     // [num_entries]
  int32_t* assistant_positions = nullptr;  // [num_entries]
  int32_t* assistant_last_keys = nullptr;  // [num_entries]
};

// Greedy verification (speculation.md 3.1): the longest prefix of drafts that the target would have
// written, then the target's own token. The hidden row of the token before the newest one becomes
// the entry's state, which stays where an undecided entry has no token. An entry with slot -1 is
// not there: its result is all zeros but for `finished`, and nothing else is touched.
struct AcceptDrafts {
  int num_entries = 0;
  int hidden = 0;                         // a multiple of 8
  const int32_t* first_rows = nullptr;    // [num_entries]
  const int32_t* num_drafts = nullptr;    // [num_entries] 0 .. kMaxDrafts; null: none
  const int32_t* slots = nullptr;         // [num_entries] rows of `states`
  const int32_t* tokens = nullptr;        // [rows of the verify step]
  const int32_t* positions = nullptr;     // [rows of the verify step]
  const int32_t* chosen = nullptr;        // [rows of the verify step] what each row chose
  const uint16_t* hidden_rows = nullptr;  // [rows of the verify step, hidden] BF16
  uint16_t* states = nullptr;             // [num_slots, hidden] BF16
  RoundResult* results = nullptr;         // [num_entries]
  SyntheticRates synthetic;
  NextRound next;
};
void accept_drafts(const Stream& stream, const AcceptDrafts& op);

// For entries whose tokens the host chose: hidden row `row` becomes state `slot`.
struct KeptState {
  int32_t row;
  int32_t slot;
};
struct KeepStates {
  int count = 0;
  int hidden = 0;                         // a multiple of 8
  const KeptState* kept = nullptr;        // [count], on the device or page-locked
  const uint16_t* hidden_rows = nullptr;  // [rows of the verify step, hidden] BF16
  uint16_t* states = nullptr;             // [num_slots, hidden] BF16
};
void keep_states(const Stream& stream, const KeepStates& op);

}  // namespace tandem::ops::cuda
