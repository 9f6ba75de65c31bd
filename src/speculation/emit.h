// How a round's rows become tokens: the same arithmetic wherever the logits were computed.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "speculation/acceptance.h"
#include "speculation/spec_batch.h"

namespace tandem::speculation {

// Acceptance that does not hold drafts to the target's tokens, for benchmarks: by chance, of which
// the seed, the position and the round's newest token make a number.
struct SyntheticRule {
  std::optional<SyntheticAcceptance> acceptance;
  uint64_t seed = 0;
};

// What the sequence's sampler chooses at row `row` for absolute position `position`; row 0 is that
// of the newest known token. Tokens of earlier rows have been committed.
using ChooseRow = std::function<sampling::TokenChoice(int64_t row, int64_t position,
                                                      sampling::TokenMask allowed)>;

// Coupled acceptance (speculation.md 3.2): the token of a row is drawn from the target with noise
// keyed by its position; a draft is accepted when it equals that token. So the text is the one that
// plain decoding gives, whatever K is. Emits while drafts agree; returns the last row that became
// valid (0-based).
int64_t emit_tokens(const SpecSequence& sequence, std::span<const int32_t> drafts,
                    const ChooseRow& choose, const SyntheticRule& synthetic,
                    SpecSequenceResult& result);

}  // namespace tandem::speculation
