#include "speculation/emit.h"

#include <utility>

#include "ops/argmax.h"
#include "sampling/rng.h"

namespace tandem::speculation {
namespace {

bool accepts(const SyntheticRule& synthetic, int row, int64_t position, int32_t newest_token,
             int32_t draft, int32_t chosen) {
  if (!synthetic.acceptance) return draft == chosen;
  const double draw = sampling::uniform(synthetic.seed, position, sampling::Purpose::kAccept,
                                        static_cast<uint32_t>(newest_token));
  return draw < synthetic.acceptance->conditional(row);
}

}  // namespace

int64_t emit_tokens(const SpecSequence& sequence, std::span<const int32_t> drafts,
                    const ChooseRow& choose, const SyntheticRule& synthetic,
                    SpecSequenceResult& result) {
  const auto newest = sequence.start_position + static_cast<int64_t>(sequence.tokens.size()) - 1;
  base::TokenConstraint* const constraint = sequence.constraint;
  result.num_drafted = static_cast<int>(drafts.size());
  for (size_t row = 0;; ++row) {
    const auto index = static_cast<int64_t>(row);
    const int64_t position = newest + 1 + index;
    const sampling::TokenMask mask =
        constraint == nullptr ? sampling::TokenMask() : constraint->allowed();
    sampling::TokenChoice choice = choose(index, position, mask);
    if (choice.token == ops::kNotFinite) {
      result.failed = true;
      return index;
    }
    // Drafts that nobody held to the constraint only ever equal a token that is.
    const bool accepted = row < drafts.size() && sampling::is_allowed(mask, drafts[row]) &&
                          accepts(synthetic, static_cast<int>(row), position,
                                  sequence.tokens.back(), drafts[row], choice.token);
    if (accepted) choice.token = drafts[row];
    // A constraint that contradicts itself ends this sequence, not the process.
    if (constraint != nullptr && !constraint->accept(choice.token)) {
      result.failed = true;
      return index;
    }
    sequence.sampler->commit(choice.token);
    result.tokens.push_back(std::move(choice));
    // Nothing may follow an end, be it drafted or not.
    if (!accepted || (constraint != nullptr && constraint->finished())) return index;
    ++result.num_accepted;
  }
}

}  // namespace tandem::speculation
