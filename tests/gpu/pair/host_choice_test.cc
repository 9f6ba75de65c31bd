// Requests whose tokens the host chooses: what the device tells of a row against the whole row, for
// the demo pair and everything that a request may ask. Run from the root of the tree.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "tests/gpu/pair/outcome.h"

namespace tandem {
namespace {

using engine::EngineRequest;
using tests::expect_same_text;
using tests::Outcome;

constexpr int64_t kVocab = 4096;

// Which tokens come next depends on those before: every `spread`-th one, or, now and then, few or
// all.
class PatternConstraint final : public base::TokenConstraint {
 public:
  PatternConstraint(uint64_t seed, uint64_t spread) : seed_(seed), spread_(spread) {}

  std::span<const uint32_t> allowed() override {
    if (state() % 5 == 4) return {};
    for (size_t word = 0; word < mask_.size(); ++word) mask_[word] = 0;
    for (uint64_t id = 0; id < kVocab; ++id)
      if (is_allowed(id)) mask_[id / 32] |= 1U << (id % 32);
    return mask_;
  }
  bool accept(int32_t token) override {
    if (!is_allowed(static_cast<uint64_t>(token))) return false;
    tokens_.push_back(token);
    return true;
  }
  void rollback(int count) override { tokens_.resize(tokens_.size() - static_cast<size_t>(count)); }
  bool finished() const override { return false; }

 private:
  uint64_t state() const {
    const uint64_t last = tokens_.empty() ? 0 : static_cast<uint64_t>(tokens_.back());
    return seed_ * 31 + tokens_.size() * 7 + last * 13;
  }
  bool is_allowed(uint64_t id) const {
    const uint64_t s = state();
    if (s % 5 == 4) return true;
    const uint64_t spread = s % 5 == 3 ? 8 * spread_ : spread_;
    return ((id * 0x9E3779B97F4A7C15ULL >> 40) + s) % spread == 0;
  }

  uint64_t seed_;
  uint64_t spread_;
  std::vector<int32_t> tokens_;
  std::vector<uint32_t> mask_ = std::vector<uint32_t>((kVocab + 31) / 32);
};

// Something else of every request, and often more than one thing.
void ask(EngineRequest& request) {
  const uint64_t id = request.id;
  sampling::SamplingParams& s = request.sampling;
  s.seed = 1000 + id;
  s.temperature = id % 3 == 0 ? 0.0 : 0.5 + 0.25 * static_cast<double>(id % 4);
  s.top_k = id % 4 == 1 ? 0 : 64;
  s.top_p = id % 5 == 2 ? 1.0 : 0.95;
  s.min_p = id % 7 == 3 ? 0.05 : 0.0;
  if (id % 2 == 0) s.num_logprobs = static_cast<int32_t>(id % 21);
  if (id % 8 == 6) s.logprob_token_ids = {5, 4000, 2, 77};
  if (id % 5 == 0) s.presence_penalty = 0.8;
  if (id % 5 == 1) s.frequency_penalty = id % 2 == 0 ? 0.7 : -0.7;
  if (id % 5 == 2) s.repetition_penalty = id % 4 == 2 ? 0.9 : 1.3;
  if (id % 6 == 4) s.logit_bias = {{400, 100.0F}, {401, -100.0F}, {402, 3.0F}};
  if (id % 6 == 5) s.logit_bias = {{300, -100.0F}, {301, -1.0F}};
  if (id % 7 == 5) s.allowed_token_ids = {310, 320, 330, 340, 350, 3999};
  if (id % 9 == 7) s.banned_token_ids = {300, 301, 302, 303, 304};
  if (id % 9 == 8) s.banned_sequences = {{350, 351}, {352}};
  if (id % 11 == 3) s.min_tokens = 10;
}

std::vector<EngineRequest> requests(bool constrained) {
  std::vector<EngineRequest> made;
  for (uint64_t id = 0; id < 48; ++id) {
    EngineRequest request;
    request.id = id;
    request.prompt_ids = tests::some_prompt(id, 1 + id * 37 % 150);
    request.sampling.ignore_eos = id % 2 == 0;
    request.max_tokens = 30 + static_cast<int64_t>(id * 7 % 20);
    ask(request);
    if (constrained && request.sampling.allowed_token_ids.empty())
      request.constraint = std::make_shared<PatternConstraint>(id, 2 + id * id % 60);
    made.push_back(std::move(request));
  }
  return made;
}

struct Setup {
  bool whole_rows = false;
  int num_draft_tokens = 0;
  int64_t max_num_seqs = 1;
  bool use_graphs = true;
};

Outcome run(const Setup& setup, std::vector<EngineRequest> asked) {
  engine::RuntimeOptions options = tests::demo_options();
  options.whole_rows = setup.whole_rows;
  options.use_graphs = setup.use_graphs;
  options.num_draft_tokens = setup.num_draft_tokens;
  options.max_num_seqs = setup.max_num_seqs;
  return tests::run_requests(std::move(options), std::move(asked));
}

void expect_same_logprobs(const Outcome& got, const Outcome& want) {
  for (const auto& [id, expected] : want.logprobs)
    for (size_t i = 0; i < expected.size() && i < got.logprobs.at(id).size(); ++i)
      ASSERT_NEAR(got.logprobs.at(id)[i], expected[i], 2e-5F) << "request " << id << " token " << i;
}

// 32 sequences with 8 drafts are three passes, whose rows the host takes while others run.
TEST(HostChoiceTest, IsThatFromWholeRows) {
  for (const bool constrained : {false, true}) {
    const Outcome want = run({.whole_rows = true}, requests(constrained));
    const std::string name = constrained ? "constrained, " : "free, ";
    for (const auto& [drafts, seqs, graphs] :
         {std::tuple(0, 1, true), std::tuple(4, 1, true), std::tuple(4, 8, true),
          std::tuple(3, 8, false), std::tuple(8, 32, true)}) {
      const Outcome got =
          run({.num_draft_tokens = drafts, .max_num_seqs = seqs, .use_graphs = graphs},
              requests(constrained));
      expect_same_text(got, want,
                       name + "K " + std::to_string(drafts) + ", batch " + std::to_string(seqs));
      expect_same_logprobs(got, want);
    }
    expect_same_text(
        run({.whole_rows = true, .num_draft_tokens = 8, .max_num_seqs = 32}, requests(constrained)),
        want, name + "whole rows, K 8, batch 32");
  }
}

}  // namespace
}  // namespace tandem
