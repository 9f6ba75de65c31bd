// The assistant: often it says what the target would, at times something else, at times nothing.
#include "gpu/models.h"
#include "ops/argmax.h"
#include "tests/gpu/emulated/device.h"
#include "tests/gpu/emulated/heads.h"
#include "tests/gpu/emulated/places.h"
#include "tests/gpu/emulated/text.h"

namespace tandem::gpu {
namespace {

using emulated::device;
using emulated::expect_equal;
using emulated::fault;
using emulated::kVocab;
using emulated::Word;

// One draft step of one round.
class Entry {
 public:
  Entry(const Pass& pass, const KvCache& kv, const ops::cuda::HeadArgmax& argmax, int index)
      : pass_(pass), draft_(argmax.draft), places_{&kv, pass.ring, pass.pages}, index_(index) {}

  // Fills in the guess. `state`: of the round's first step.
  void run(const Word* state, const ops::cuda::HeadArgmax& argmax) const {
    const uint64_t hash = text_so_far(state);
    int32_t guess =
        emulated::greedy_token(emulated::logits_of(hash), emulated::suppressed_ids(argmax.logits));
    if (device().happens(0.3)) guess = static_cast<int32_t>(device().rng() % kVocab);
    if (device().happens(0.02)) guess = ops::kNotFinite;
    argmax.tokens[index_] = guess;
    take(guess);
  }

 private:
  int num_made() const { return draft_.step == 0 ? 0 : draft_.num_drafts[index_]; }

  // Of the keys, then of the newest token and the drafts.
  uint64_t text_so_far(const Word* state) const {
    const int sequence = pass_.rows.sequences[index_];
    const int32_t last = pass_.rows.last_keys[index_];
    expect_equal("the row of a draft's tile", index_, pass_.tiles.first_rows[index_]);
    expect_equal("rows of a draft's tile", 1, pass_.tiles.num_rows[index_]);
    if (sequence < 0) {
      fault("the sequence of a draft, at least", 0, sequence);
      return 0;
    }
    if (last >= pass_.max_keys) fault("keys of a draft, at most", pass_.max_keys, last + 1);
    uint64_t hash = places_.hash_up_to(sequence, last);
    places_.check_ring(sequence, last, int64_t{last} + 1);
    if (state != nullptr) {
      expect_equal("the position of a sequence's state", last,
                   static_cast<int64_t>(state->position));
      expect_equal("the text of a sequence's state", static_cast<int64_t>(hash),
                   static_cast<int64_t>(state->hash));
    }
    const int32_t* const tokens = draft_.tokens + draft_.first_rows[index_];
    if (num_made() == draft_.step)
      expect_equal("the assistant's token", tokens[draft_.step], pass_.rows.tokens[index_]);
    for (int i = 0; i <= draft_.step && i <= num_made(); ++i)
      hash = emulated::extend(hash, tokens[i]);
    return hash;
  }

  // As next_draft_token() does.
  void take(int32_t guess) const {
    const bool takes =
        num_made() == draft_.step && draft_.step < draft_.wanted[index_] && guess >= 0;
    if (takes)
      draft_.num_drafts[index_] = draft_.step + 1;
    else if (draft_.step == 0)
      draft_.num_drafts[index_] = 0;
    const int32_t token = takes ? guess : 0;
    if (draft_.step < draft_.wanted[index_])
      draft_.tokens[draft_.first_rows[index_] + 1 + draft_.step] = token;
    draft_.assistant_tokens[index_] = token;
  }

  const Pass& pass_;
  const ops::cuda::DraftToken& draft_;
  emulated::Places places_;
  int index_;
};

}  // namespace

base::Result<Assistant> Assistant::load(WeightUploader&, const io::Checkpoint&,
                                        const io::Checkpoint&, model::DraftHeadFormat, bool) {
  return Assistant();
}

WorkspaceSizes Assistant::workspace_sizes(int64_t) const {
  return {};
}

void Assistant::step(const ops::cuda::Stream& stream, const Target&, const Pass& pass,
                     const KvCache& kv, States& states, float*, ops::cuda::HeadArgmax argmax,
                     Workspace&) const {
  const States before = states;
  states.store = nullptr;
  expect_equal("whether a draft step begins with stored states", argmax.draft.step == 0 ? 1 : 0,
               before.store != nullptr ? 1 : 0);
  emulated::submit(stream, [pass, &kv, before, argmax] {
    expect_equal("tiles of a draft step", argmax.logits.num_rows, pass.tiles.num_tiles);
    for (int index = 0; index < argmax.logits.num_rows; ++index) {
      Word state;
      const bool begins = before.store != nullptr;
      if (begins) state = emulated::word_at(before.store, before.slots[index]);
      Entry(pass, kv, argmax, index).run(begins ? &state : nullptr, argmax);
    }
  });
}

}  // namespace tandem::gpu
