// The family's real tokenizer, loaded once for a test program.
#pragma once

#include <gtest/gtest.h>

#include "text/tokenizer.h"

namespace tandem::text {

inline const Tokenizer& real_tokenizer() {
  static const base::Result<Tokenizer> tokenizer = Tokenizer::load(TANDEM_REAL_TOKENIZER);
  if (!tokenizer) {
    ADD_FAILURE() << tokenizer.error().message;
    std::abort();
  }
  return *tokenizer;
}

}  // namespace tandem::text
