// How long an answer may think: behind so many tokens of a thought, its end must follow.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/token_constraint.h"
#include "text/tokenizer.h"

namespace tandem::text {

// The tokens around a thought.
struct ThoughtMarks {
  int32_t begin = 0;
  int32_t end = 0;
};
// Nothing for a vocabulary without them.
std::optional<ThoughtMarks> thought_marks(const Tokenizer& tokenizer);

// A constraint that allows what `inner` allows (null: anything), but no more than `budget` tokens
// inside thoughts, all of them together. `open`: the prompt has begun one.
std::shared_ptr<base::TokenConstraint> limit_thoughts(std::shared_ptr<base::TokenConstraint> inner,
                                                      const ThoughtMarks& marks, int64_t budget,
                                                      bool open, int64_t vocab_size);

}  // namespace tandem::text
