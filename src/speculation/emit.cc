#include "speculation/emit.h"

#include <utility>

#include "ops/argmax.h"
#include "sampling/rng.h"

namespace tandem::speculation {
namespace {

bool accepts(const SyntheticRule& synthetic, int row, int64_t position, int32_t draft,
             int32_t chosen) {
  if (!synthetic.acceptance) return draft == chosen;
  const double draw = sampling::uniform(synthetic.seed, position, sampling::Purpose::kAccept);
  return draw < synthetic.acceptance->conditional(row);
}

}  // namespace

int64_t emit_tokens(const SpecSequence& sequence, std::span<const int32_t> drafts,
                    const RowLogits& logits, const SyntheticRule& synthetic,
                    SpecSequenceResult& result) {
  const auto newest = sequence.start_position + static_cast<int64_t>(sequence.tokens.size()) - 1;
  result.num_drafted = static_cast<int>(drafts.size());
  for (size_t row = 0;; ++row) {
    const auto index = static_cast<int64_t>(row);
    const int64_t position = newest + 1 + index;
    sampling::TokenChoice choice = sequence.sampler->choose(
        logits(index), position, row == 0 ? sequence.allowed_tokens : std::span<const uint32_t>());
    if (choice.token == ops::kNotFinite) {
      result.failed = true;
      return index;
    }
    const bool accepted = row < drafts.size() && accepts(synthetic, static_cast<int>(row), position,
                                                         drafts[row], choice.token);
    if (accepted) choice.token = drafts[row];
    sequence.sampler->commit(choice.token);
    result.tokens.push_back(std::move(choice));
    if (!accepted) return index;
    ++result.num_accepted;
  }
}

}  // namespace tandem::speculation
