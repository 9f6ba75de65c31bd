// The promise of speculation: whatever is proposed, the text is that of plain decoding.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "model/pair.h"
#include "speculation/sequence_runner.h"

namespace tandem::speculation {
namespace {

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(TANDEM_TEST_DATA) / "golden" / name;
}

// A small random pair of the golden set (made with transformers, see tools/golden).
class Pair : public ::testing::Test {
 protected:
  void SetUp() override { load("unified/target", "unified/assistant"); }

  void load(const std::string& target, const std::string& assistant,
            model::DraftHeadFormat head = model::DraftHeadFormat::kCheckpoint) {
    model::PairOptions options;
    options.model.draft_head = head;
    options.target = golden(target);
    options.assistant = golden(assistant);
    auto pair = model::load_pair(options);
    ASSERT_TRUE(pair.has_value()) << pair.error().message;
    pair_ = std::move(*pair);
    for (int i = 0; i < 23; ++i) prompt_.push_back((7 * i + 3) % 190);
  }

  RunOutput run(model::Drafter* drafter, int num_drafts, double temperature,
                const std::vector<int32_t>& prompt, bool draws_drafts = false) {
    RunnerOptions options;
    options.draws_drafts = draws_drafts;
    options.max_tokens = 256;
    options.num_draft_tokens = num_drafts;
    SequenceRunner runner(*pair_.target, drafter, options);
    runner.sequence().kv().poison();  // what was never written must never be read
    RunRequest request;
    request.prompt = prompt;
    request.sampling.temperature = temperature;
    request.max_new_tokens = 90;  // far past the window of 16
    request.seed = 11;
    return runner.run(context_, request);
  }

  core::ThreadPool pool_{2};
  ops::Context context_{ops::Backend::kCpu, &pool_};
  model::Pair pair_;
  std::vector<int32_t> prompt_;
};

// Proposes from a script: token_at(position) is the guess for that position.
class ScriptedDrafter : public model::Drafter {
 public:
  explicit ScriptedDrafter(std::function<int32_t(int64_t position)> token_at)
      : token_at_(std::move(token_at)) {}

  void step(const ops::Context&, const model::DraftBatch& batch, const model::KvStore&,
            const core::TensorView&, const core::TensorView& logits, model::Observer*) override {
    // The same last key means one more step of the same round.
    if (batch.last_keys[0] != last_key_) step_ = 0;
    last_key_ = batch.last_keys[0];
    const int64_t position = last_key_ + 2 + step_++;
    float* row = logits.row<float>(0);
    std::fill(row, row + logits.cols(), 0.0F);
    const int32_t token = token_at_(position);
    if (token < 0)
      row[3] = std::numeric_limits<float>::quiet_NaN();
    else
      row[token] = 1.0F;
  }
  std::span<const int32_t> suppress_tokens() const override { return {}; }

 private:
  std::function<int32_t(int64_t)> token_at_;
  int64_t last_key_ = -1;
  int64_t step_ = 0;
};

TEST_F(Pair, TheAssistantChangesNoToken) {
  for (const double temperature : {0.0, 1.0}) {
    const RunOutput plain = run(nullptr, 0, temperature, prompt_);
    ASSERT_EQ(plain.tokens.size(), 90U);
    for (int k = 1; k <= kMaxDraftTokens; ++k) {
      const RunOutput drafted = run(pair_.assistant.get(), k, temperature, prompt_);
      EXPECT_EQ(drafted.tokens, plain.tokens) << "K = " << k << ", temperature " << temperature;
      EXPECT_GT(drafted.stats.num_draft_tokens, 0);
    }
  }
}

// So hot that mostly the noise decides, which both models share.
TEST_F(Pair, DrawnDraftsKeepTheTextAndAgreeMoreOften) {
  for (const double temperature : {0.0, 1.0, 100.0}) {
    const RunOutput plain = run(nullptr, 0, temperature, prompt_);
    for (const int k : {1, 4, 8}) {
      const RunOutput greedy = run(pair_.assistant.get(), k, temperature, prompt_);
      const RunOutput drawn = run(pair_.assistant.get(), k, temperature, prompt_, true);
      EXPECT_EQ(drawn.tokens, plain.tokens) << "K = " << k << ", temperature " << temperature;
      if (temperature == 0.0) {
        EXPECT_EQ(drawn.stats.num_accepted_tokens, greedy.stats.num_accepted_tokens);
      } else if (temperature == 100.0) {
        EXPECT_GT(drawn.stats.num_accepted_tokens, 4 * greedy.stats.num_accepted_tokens + 10)
            << "K = " << k;
      }
    }
  }
}

TEST_F(Pair, ADrafterThatIsAlwaysRightIsAcceptedWhole) {
  const RunOutput plain = run(nullptr, 0, 0.0, prompt_);
  ScriptedDrafter right([&](int64_t position) {
    const auto index = static_cast<size_t>(position) - prompt_.size();
    return index < plain.tokens.size() ? plain.tokens[index] : 0;
  });
  const RunOutput drafted = run(&right, 4, 0.0, prompt_);
  EXPECT_EQ(drafted.tokens, plain.tokens);
  EXPECT_EQ(drafted.stats.num_accepted_tokens, drafted.stats.num_draft_tokens);
  // One token from the prompt, then 5 a round.
  EXPECT_EQ(drafted.num_rounds, (90 - 1 + 4) / 5);
}

TEST_F(Pair, ADrafterThatIsAlwaysWrongCostsNoToken) {
  const RunOutput plain = run(nullptr, 0, 1.0, prompt_);
  ScriptedDrafter wrong([&](int64_t position) {
    const auto index = static_cast<size_t>(position) - prompt_.size();
    return index < plain.tokens.size() ? (plain.tokens[index] + 1) % 190 : 0;
  });
  const RunOutput drafted = run(&wrong, 8, 1.0, prompt_);
  EXPECT_EQ(drafted.tokens, plain.tokens);
  EXPECT_EQ(drafted.stats.num_accepted_tokens, 0);
}

TEST_F(Pair, ADrafterThatFailsEndsItsDraftingOnly) {
  const RunOutput plain = run(nullptr, 0, 0.0, prompt_);
  ScriptedDrafter broken([](int64_t position) { return position % 3 == 0 ? -1 : 5; });
  const RunOutput drafted = run(&broken, 6, 0.0, prompt_);
  EXPECT_EQ(drafted.tokens, plain.tokens);
  EXPECT_FALSE(drafted.failed);
}

TEST_F(Pair, AlternatingProposalsKeepTheText) {
  const RunOutput plain = run(nullptr, 0, 1.0, prompt_);
  // Right for two positions of three: rounds end at every place, rings wrap after rejections.
  ScriptedDrafter mixed([&](int64_t position) {
    const auto index = static_cast<size_t>(position) - prompt_.size();
    if (index >= plain.tokens.size() || position % 3 == 0) return int32_t{1};
    return plain.tokens[index];
  });
  for (int k = 1; k <= kMaxDraftTokens; ++k)
    EXPECT_EQ(run(&mixed, k, 1.0, prompt_).tokens, plain.tokens) << "K = " << k;
}

TEST_F(Pair, Fp8PairsKeepTheTextToo) {
  load("unified/target-fp8", "unified/assistant-fp8");
  const RunOutput plain = run(nullptr, 0, 0.0, prompt_);
  for (int k = 1; k <= kMaxDraftTokens; ++k)
    EXPECT_EQ(run(pair_.assistant.get(), k, 0.0, prompt_).tokens, plain.tokens) << "K = " << k;
}

TEST_F(Pair, ADraftHeadInFp8KeepsTheText) {
  const RunOutput plain = run(nullptr, 0, 0.0, prompt_);
  load("unified/target", "unified/assistant", model::DraftHeadFormat::kFp8);
  ASSERT_EQ(pair_.assistant->head().weight().format, ops::LinearFormat::kFp8Channel);
  for (int k = 1; k <= kMaxDraftTokens; ++k)
    EXPECT_EQ(run(pair_.assistant.get(), k, 0.0, prompt_).tokens, plain.tokens) << "K = " << k;
}

// A made-up language: ids with the same remainder by 3 as their place; after `length` of them only
// the end. Counts what it was asked, so that a test sees where it stands.
class Counting : public base::TokenConstraint {
 public:
  static constexpr int32_t kEnd = 5;

  Counting(size_t length, size_t vocab_size) : length_(length), mask_((vocab_size + 31) / 32) {}

  std::span<const uint32_t> allowed() override {
    EXPECT_FALSE(finished());
    std::fill(mask_.begin(), mask_.end(), 0U);
    for (size_t id = 0; id < mask_.size() * 32; ++id)
      if (allows(static_cast<int32_t>(id))) mask_[id / 32] |= 1U << (id % 32);
    return mask_;
  }
  bool accept(int32_t token) override {
    if (finished() || !allows(token)) return false;
    tokens_.push_back(token);
    return true;
  }
  void rollback(int count) override { tokens_.resize(tokens_.size() - static_cast<size_t>(count)); }
  bool finished() const override { return !tokens_.empty() && tokens_.back() == kEnd; }

  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  bool allows(int32_t token) const {
    if (tokens_.size() == length_) return token == kEnd;
    return token != kEnd && static_cast<size_t>(token) % 3 == tokens_.size() % 3;
  }

  size_t length_;
  std::vector<uint32_t> mask_;
  std::vector<int32_t> tokens_;
};

TEST_F(Pair, AConstraintHoldsForEveryKAndEndsTheText) {
  const auto vocab = static_cast<size_t>(pair_.target->config().vocab_size);
  const auto constrained = [&](model::Drafter* drafter, int k, double temperature) {
    Counting constraint(40, vocab);
    RunnerOptions options;
    options.max_tokens = 256;
    options.num_draft_tokens = k;
    SequenceRunner runner(*pair_.target, drafter, options);
    RunRequest request;
    request.prompt = prompt_;
    request.sampling.temperature = temperature;
    request.max_new_tokens = 90;
    request.seed = 11;
    request.constraint = &constraint;
    RunOutput output = runner.run(context_, request);
    // It has moved over what came out, and over nothing else.
    EXPECT_EQ(constraint.tokens(), output.tokens) << "K = " << k;
    return output;
  };
  for (const double temperature : {0.0, 1.0}) {
    const RunOutput plain = constrained(nullptr, 0, temperature);
    ASSERT_EQ(plain.tokens.size(), 41U);
    EXPECT_EQ(plain.tokens.back(), Counting::kEnd);
    EXPECT_NE(plain.tokens, run(nullptr, 0, temperature, prompt_).tokens);
    for (int k = 1; k <= kMaxDraftTokens; ++k) {
      const RunOutput drafted = constrained(pair_.assistant.get(), k, temperature);
      EXPECT_EQ(drafted.tokens, plain.tokens) << "K = " << k << ", temperature " << temperature;
      EXPECT_GT(drafted.stats.num_draft_tokens, 0);
    }
    // One that is always right is accepted whole: drafts are held to the constraint as well.
    ScriptedDrafter right([&](int64_t position) {
      const auto index = static_cast<size_t>(position) - prompt_.size();
      return index < plain.tokens.size() ? plain.tokens[index] : 0;
    });
    const RunOutput best = constrained(&right, 4, temperature);
    EXPECT_EQ(best.tokens, plain.tokens);
    EXPECT_EQ(best.stats.num_accepted_tokens, best.stats.num_draft_tokens);
    // One that breaks the rules all the time proposes nothing that may not come.
    ScriptedDrafter wild([](int64_t) { return Counting::kEnd; });
    EXPECT_EQ(constrained(&wild, 4, temperature).tokens, plain.tokens);
  }
}

TEST_F(Pair, AOneTokenPromptDrafts) {
  const std::vector<int32_t> prompt = {2};
  const RunOutput plain = run(nullptr, 0, 0.0, prompt);
  EXPECT_EQ(run(pair_.assistant.get(), 4, 0.0, prompt).tokens, plain.tokens);
}

}  // namespace
}  // namespace tandem::speculation
