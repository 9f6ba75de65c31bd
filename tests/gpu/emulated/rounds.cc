// The kernels at the ends of a step: inputs, rounds, states.
#include <algorithm>
#include <cstring>

#include "ops/cuda/accept.h"
#include "ops/cuda/clock.h"
#include "ops/cuda/draw.h"
#include "ops/cuda/fetch.h"
#include "ops/cuda/wide_rows.h"
#include "tests/gpu/emulated/device.h"
#include "tests/gpu/emulated/places.h"

namespace tandem::ops::cuda {
namespace {

using emulated::device;
using emulated::submit;

void copy_row(const uint16_t* from, int64_t from_row, uint16_t* to, int64_t to_row, int hidden) {
  std::memcpy(to + to_row * hidden, from + from_row * hidden,
              static_cast<size_t>(hidden) * sizeof(uint16_t));
}

int count_accepted(const int32_t* chosen, const int32_t* tokens, int num_drafts) {
  int count = 0;
  while (count < num_drafts && chosen[count] >= 0 && tokens[1 + count] == chosen[count]) ++count;
  return count;
}

void accept_entry(const AcceptDrafts& op, int entry) {
  RoundResult& result = op.results[entry];
  result = {};
  const int first = op.first_rows[entry];
  const int num_drafts = op.num_drafts == nullptr ? 0 : op.num_drafts[entry];
  const int accepted = count_accepted(op.chosen + first, op.tokens + first, num_drafts);
  const int32_t own = op.chosen[first + accepted];
  const bool is_undecided = own == kUndecided;
  std::copy_n(op.tokens + first + 1, accepted, result.tokens);
  if (own >= 0) result.tokens[accepted] = own;
  result.num_tokens = accepted + (own >= 0 ? 1 : 0);
  result.num_accepted = is_undecided && accepted > 0 ? accepted - 1 : accepted;
  result.num_drafted = is_undecided ? result.num_accepted : num_drafts;
  result.failed = own < 0 && !is_undecided ? 1 : 0;
  result.undecided = is_undecided ? 1 : 0;
  const int kept = is_undecided ? accepted - 1 : accepted;
  if (kept >= 0)
    copy_row(op.hidden_rows, int64_t{first} + kept, op.states, op.slots[entry], op.hidden);
  device().counts.right_drafts += accepted;
}

}  // namespace

void fetch(const Stream& stream, const void* host, void* device_memory, size_t bytes,
           uint64_t* fetched) {
  submit(stream, [=] {
    std::memcpy(device_memory, host, bytes);
    if (fetched != nullptr) *fetched = device().tick();
  });
}

void record_time(const Stream& stream, uint64_t* out) {
  submit(stream, [=] { *out = device().tick(); });
}

void accept_drafts(const Stream& stream, const AcceptDrafts& op) {
  submit(stream, [op] {
    for (int entry = 0; entry < op.num_entries; ++entry) {
      if (op.slots[entry] < 0)
        emulated::fault("the slot of an entry, at least", 0, op.slots[entry]);
      else
        accept_entry(op, entry);
      op.results[entry].finished = device().tick();
    }
  });
}

void keep_states(const Stream& stream, const KeepStates& op) {
  submit(stream, [op] {
    for (int i = 0; i < op.count; ++i)
      copy_row(op.hidden_rows, op.kept[i].row, op.states, op.kept[i].slot, op.hidden);
  });
}

void gather_rows(const Stream& stream, const uint16_t* hidden_rows, const int32_t* sources,
                 int num_rows, int hidden, uint16_t* out, const Operand& operand) {
  auto* const words = static_cast<emulated::Word*>(operand.data);
  emulated::expect_equal("values of a state", emulated::kHidden, hidden);
  submit(stream, [=] {
    for (int row = 0; row < num_rows; ++row) {
      words[row] =
          sources[row] < 0 ? emulated::Word{} : emulated::word_at(hidden_rows, sources[row]);
      emulated::set_word(words[row], out, row);
    }
  });
}

}  // namespace tandem::ops::cuda
