// A grammar made ready for a vocabulary, and the compiler that keeps the last ones. Only the
// source of this file knows the library behind it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/token_constraint.h"
#include "text/tokenizer.h"

namespace tandem::text {

// Immutable; shared by the answers that follow it.
class CompiledGrammar {
 public:
  virtual ~CompiledGrammar() = default;

  // At the grammar's beginning; keeps the grammar alive.
  virtual std::unique_ptr<base::TokenConstraint> start() const = 0;
  // Whether the grammar produces exactly this text.
  virtual bool matches(const std::string& text) const = 0;
  virtual size_t memory_bytes() const = 0;
};

struct GrammarLimits {
  size_t max_cached_grammars = 32;
  size_t max_cached_bytes = size_t{128} << 20;
  // Of finding out what may come, for one answer. Some grammars take long at every token, and
  // others wait meanwhile: then nothing may come any more.
  double max_mask_seconds = 20;
};

class GrammarCompiler {
 public:
  // `end_ids` may follow a complete answer and nothing else. Reads the vocabulary at the first
  // compile: servers that never need a grammar do not pay for it.
  GrammarCompiler(const Tokenizer& tokenizer, std::vector<int32_t> end_ids, int64_t vocab_size,
                  const GrammarLimits& limits = {});
  ~GrammarCompiler();

  // From the rule `root`. Thread-safe; one grammar is compiled at a time. The message begins with
  // `where`.
  base::Result<std::shared_ptr<const CompiledGrammar>> compile(const std::string& ebnf,
                                                               const std::string& root,
                                                               const std::string& where);
  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::vector<int32_t>& end_ids() const { return end_ids_; }

 private:
  struct Impl;

  Tokenizer tokenizer_;
  std::vector<int32_t> end_ids_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::text
