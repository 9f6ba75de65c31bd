#include "text/grammar/compiled_grammar.h"

#include <dlpack/dlpack.h>
#include <xgrammar/compiler.h>
#include <xgrammar/matcher.h>

#include <algorithm>
#include <exception>
#include <list>
#include <mutex>
#include <optional>
#include <string>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

namespace tandem::text {
namespace {

class Constraint : public base::TokenConstraint {
 public:
  Constraint(const xgrammar::CompiledGrammar& grammar, int64_t vocab_size, double max_seconds)
      : matcher_(grammar),
        left_seconds_(max_seconds),
        mask_(static_cast<size_t>(xgrammar::GetBitmaskSize(static_cast<int>(vocab_size)))) {}

  std::span<const uint32_t> allowed() override {
    if (!fresh_) fill();
    return restricts_ ? std::span<const uint32_t>(mask_) : std::span<const uint32_t>();
  }

  bool accept(int32_t token) override {
    if (finished()) return false;
    try {
      if (!matcher_.AcceptToken(token)) return false;
    } catch (const std::exception& error) {
      give_up(error);
      return false;
    }
    fresh_ = false;
    return true;
  }

  void rollback(int count) override {
    if (count == 0) return;
    matcher_.Rollback(count);
    fresh_ = false;
  }

  bool finished() const override { return matcher_.IsTerminated(); }

 private:
  // From here on nothing may come: the answer ends, and nothing else does.
  void give_up(const std::exception& error) {
    base::log_error("a grammar failed: {}", error.what());
    left_seconds_ = -1;
  }

  void fill() {
    TANDEM_CHECK(!finished());
    int64_t shape = static_cast<int64_t>(mask_.size());
    DLTensor tensor{};
    tensor.data = mask_.data();
    tensor.device = {kDLCPU, 0};
    tensor.ndim = 1;
    tensor.dtype = xgrammar::GetBitmaskDLType();
    tensor.shape = &shape;
    const base::Stopwatch clock;
    try {
      restricts_ = matcher_.FillNextTokenBitmask(&tensor);
    } catch (const std::exception& error) {
      give_up(error);
    }
    left_seconds_ -= clock.seconds();
    if (left_seconds_ < 0) {
      restricts_ = true;
      std::ranges::fill(mask_, 0U);
    }
    fresh_ = true;
  }

  xgrammar::GrammarMatcher matcher_;
  double left_seconds_;
  std::vector<uint32_t> mask_;
  bool fresh_ = false;  // mask_ belongs to the place where the matcher is
  bool restricts_ = false;
};

class Grammar : public CompiledGrammar {
 public:
  Grammar(xgrammar::CompiledGrammar grammar, int64_t vocab_size, double max_mask_seconds)
      : grammar_(std::move(grammar)),
        vocab_size_(vocab_size),
        max_mask_seconds_(max_mask_seconds) {}

  std::unique_ptr<base::TokenConstraint> start() const override {
    return std::make_unique<Constraint>(grammar_, vocab_size_, max_mask_seconds_);
  }

  bool matches(const std::string& text) const override {
    xgrammar::GrammarMatcher matcher(grammar_);
    return matcher.AcceptString(text) && matcher.IsCompleted();
  }

  size_t memory_bytes() const override { return grammar_.MemorySizeBytes(); }

 private:
  xgrammar::CompiledGrammar grammar_;
  int64_t vocab_size_;
  double max_mask_seconds_;
};

// The bytes a token adds to an answer. Special tokens, which only a grammar that names them may
// allow, have bytes that are no character: the library never allows a token without any.
std::vector<std::string> token_bytes(const Tokenizer& tokenizer, int64_t vocab_size) {
  std::vector<std::string> result(static_cast<size_t>(vocab_size));
  const int32_t count = std::min(tokenizer.vocab_size(), static_cast<int32_t>(vocab_size));
  for (int32_t id = 0; id < count; ++id) {
    if (tokenizer.is_special(id)) {
      result[static_cast<size_t>(id)] = fmt::format("\xFF{}", id);
      continue;
    }
    const int byte = tokenizer.byte_value(id);
    result[static_cast<size_t>(id)] =
        byte >= 0 ? std::string(1, static_cast<char>(byte)) : std::string(tokenizer.piece(id));
  }
  return result;
}

// What the library says, without its time and place in its sources.
std::string cause(const std::exception& error) {
  const std::string text = error.what();
  const size_t colon = text.find(".cc:");
  const size_t start = colon == std::string::npos ? 0 : text.find(": ", colon);
  std::string result = start == std::string::npos || start == 0 ? text : text.substr(start + 2);
  while (!result.empty() && (result.back() == '\n' || result.back() == ' ')) result.pop_back();
  return result;
}

}  // namespace

struct GrammarCompiler::Impl {
  Impl(int64_t size, const GrammarLimits& cache_limits) : vocab_size(size), limits(cache_limits) {}

  struct Entry {
    std::string key;  // of root and rules
    std::shared_ptr<const CompiledGrammar> grammar;
  };

  std::shared_ptr<const CompiledGrammar> find(const std::string& key) {
    const std::lock_guard lock(cache_mutex);
    const auto found = std::ranges::find(entries, key, &Entry::key);
    if (found == entries.end()) return nullptr;
    entries.splice(entries.begin(), entries, found);
    return found->grammar;
  }

  void keep(const std::string& key, std::shared_ptr<const CompiledGrammar> grammar) {
    const std::lock_guard lock(cache_mutex);
    num_bytes += grammar->memory_bytes();
    entries.push_front({key, std::move(grammar)});
    while (entries.size() > limits.max_cached_grammars ||
           (num_bytes > limits.max_cached_bytes && !entries.empty())) {
      num_bytes -= entries.back().grammar->memory_bytes();
      entries.pop_back();
    }
  }

  int64_t vocab_size;
  GrammarLimits limits;
  std::mutex cache_mutex;
  std::list<Entry> entries;  // the last used first
  size_t num_bytes = 0;
  std::mutex compile_mutex;  // held while a grammar is compiled
  std::optional<xgrammar::GrammarCompiler> compiler;
};

GrammarCompiler::GrammarCompiler(const Tokenizer& tokenizer, std::vector<int32_t> end_ids,
                                 int64_t vocab_size, const GrammarLimits& limits)
    : tokenizer_(tokenizer),
      end_ids_(std::move(end_ids)),
      impl_(std::make_unique<Impl>(vocab_size, limits)) {}

GrammarCompiler::~GrammarCompiler() = default;

base::Result<std::shared_ptr<const CompiledGrammar>> GrammarCompiler::compile(
    const std::string& ebnf, const std::string& root, const std::string& where) {
  const std::string key = root + "\n" + ebnf;
  if (auto known = impl_->find(key)) return known;
  const std::lock_guard lock(impl_->compile_mutex);
  if (auto known = impl_->find(key)) return known;  // another thread's, while this one waited
  try {
    if (!impl_->compiler) {
      const xgrammar::TokenizerInfo info(token_bytes(tokenizer_, impl_->vocab_size),
                                         xgrammar::VocabType::RAW,
                                         static_cast<int>(impl_->vocab_size), end_ids_);
      impl_->compiler.emplace(info, /*max_threads=*/1, /*cache_enabled=*/false);
    }
    auto grammar =
        std::make_shared<const Grammar>(impl_->compiler->CompileGrammar(ebnf, root),
                                        impl_->vocab_size, impl_->limits.max_mask_seconds);
    impl_->keep(key, grammar);
    return grammar;
  } catch (const std::exception& error) {
    return base::invalid("{}: expected a grammar that can be compiled, got: {}", where,
                         cause(error));
  }
}

}  // namespace tandem::text
