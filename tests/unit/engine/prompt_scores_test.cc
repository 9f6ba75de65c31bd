// Log-probabilities of prompts: those of decoding, whatever the chunks, the neighbours, the drafts
// and the preemptions are.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "base/log.h"
#include "engine/runtime.h"
#include "tests/unit/engine/fake_model.h"

namespace tandem::engine {
namespace {

using Scores = std::vector<sampling::TokenScore>;

struct Outcome {
  std::map<uint64_t, Scores> scores;
  std::map<uint64_t, std::vector<sampling::TokenChoice>> tokens;
  std::map<uint64_t, int> num_told;
};

Outcome run(Engine& engine, const std::vector<EngineRequest>& requests) {
  Outcome outcome;
  for (const EngineRequest& request : requests)
    EXPECT_TRUE(engine.add_request(request).has_value());
  while (engine.has_work()) {
    for (TokenEvent& event : engine.step()) {
      if (!event.prompt_scores.empty()) {
        ++outcome.num_told[event.id];
        outcome.scores[event.id] = std::move(event.prompt_scores);
      }
      for (auto& choice : event.tokens) outcome.tokens[event.id].push_back(std::move(choice));
    }
    EXPECT_EQ(engine.find_fault(), "");
  }
  return outcome;
}

void expect_same(const Scores& got, const Scores& want, uint64_t id) {
  ASSERT_EQ(got.size(), want.size()) << id;
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].token, want[i].token) << id << " at " << i;
    EXPECT_EQ(got[i].logprob, want[i].logprob) << id << " at " << i;
    EXPECT_EQ(got[i].rank, want[i].rank) << id << " at " << i;
    EXPECT_EQ(got[i].top.size(), want[i].top.size()) << id << " at " << i;
  }
}

std::vector<EngineRequest> fake_requests(uint64_t count) {
  std::vector<EngineRequest> requests;
  for (uint64_t id = 0; id < count; ++id) {
    EngineRequest r;
    r.id = id;
    for (size_t i = 0; i < 1 + id * 7 % 40; ++i)
      r.prompt_ids.push_back(static_cast<int32_t>(3 + (id * 5 + i * 11) % 37));
    r.sampling.temperature = 0;
    r.sampling.ignore_eos = true;
    r.sampling.num_prompt_logprobs = id % 3 == 2 ? -1 : static_cast<int32_t>(id % 3);
    r.max_tokens = 25;
    requests.push_back(r);
  }
  return requests;
}

TEST(PromptScores, SurviveChunksNeighboursAndPreemption) {
  const test::FakeModelOptions fake;
  test::TinyEngine alone{.max_num_seqs = 1, .max_num_batched_tokens = 64, .max_chunk_tokens = 64};
  alone.num_draft_tokens = 0;
  const test::TinyEngine crowded{
      .max_num_batched_tokens = 9, .max_chunk_tokens = 5, .num_pages = 20};
  const auto requests = fake_requests(24);
  const auto run_tiny = [&](const test::TinyEngine& tiny, int64_t& num_preemptions) {
    const EngineOptions options = test::tiny_options(tiny, fake);
    test::FakeModel model(options, fake);
    Engine engine(options, [&](const speculation::SpecBatch& batch) { return model.run(batch); });
    Outcome outcome = run(engine, requests);
    num_preemptions = engine.stats().num_preemptions;
    return outcome;
  };
  int64_t none = 0, some = 0;
  const Outcome want = run_tiny(alone, none);
  const Outcome got = run_tiny(crowded, some);
  EXPECT_GT(some, 3);
  for (const EngineRequest& r : requests) {
    const bool wanted = r.sampling.num_prompt_logprobs >= 0 && r.prompt_ids.size() > 1;
    ASSERT_EQ(want.scores.contains(r.id), wanted) << r.id;
    ASSERT_EQ(got.scores.contains(r.id), wanted) << r.id;
    if (!wanted) continue;
    EXPECT_EQ(got.num_told.at(r.id), 1) << r.id;
    const Scores& scores = want.scores.at(r.id);
    ASSERT_EQ(scores.size(), r.prompt_ids.size() - 1) << r.id;
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_EQ(scores[i].token, r.prompt_ids[i + 1]);
      ASSERT_EQ(scores[i].top.size(), static_cast<size_t>(r.sampling.num_prompt_logprobs));
    }
    expect_same(got.scores.at(r.id), scores, r.id);
  }
}

// The real forward: what a token's row said when it was generated is what the prompt's row says.
TEST(PromptScores, AreThoseOfDecoding) {
  base::set_log_level(base::LogLevel::kError);
  const auto golden = std::filesystem::path(TANDEM_TEST_DATA) / "golden" / "unified";
  for (const int k : {0, 4}) {
    RuntimeOptions options;
    options.pair.target = golden / "target";
    options.pair.assistant = golden / "assistant";
    options.num_threads = 1;
    options.max_model_len = 160;
    options.max_num_batched_tokens = 64;
    options.max_chunk_tokens = k == 0 ? 64 : 11;
    options.block_size = 16;
    options.num_draft_tokens = k;
    const auto runtime = Runtime::open(options);
    ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
    EngineRequest first;
    first.id = 1;
    for (int32_t i = 0; i < 37; ++i) first.prompt_ids.push_back(3 + (i * 29) % 150);
    first.sampling.seed = 9;
    first.sampling.ignore_eos = true;
    first.sampling.num_logprobs = 3;
    first.max_tokens = 60;
    const Outcome told = run((*runtime)->engine(), {first});
    const auto& tokens = told.tokens.at(1);
    ASSERT_EQ(tokens.size(), 60U);
    EngineRequest again = first;
    again.id = 2;
    again.max_tokens = 1;
    again.sampling.num_prompt_logprobs = 3;
    for (const auto& choice : tokens) again.prompt_ids.push_back(choice.token);
    EngineRequest other = again;  // a neighbour, so that its rows begin in the middle of a step
    other.id = 3;
    const Outcome scored = run((*runtime)->engine(), {again, other});
    for (const uint64_t id : {uint64_t{2}, uint64_t{3}}) {
      const Scores& scores = scored.scores.at(id);
      ASSERT_EQ(scores.size(), 96U);
      for (size_t i = 0; i < tokens.size(); ++i) {
        const sampling::TokenScore& score = scores[36 + i];
        EXPECT_EQ(score.token, tokens[i].token);
        EXPECT_EQ(score.logprob, tokens[i].logprob) << "K = " << k << ", token " << i;
        ASSERT_EQ(score.top.size(), 3U);
        for (size_t j = 0; j < 3; ++j) {
          EXPECT_EQ(score.top[j].token, tokens[i].top[j].token);
          EXPECT_EQ(score.top[j].logprob, tokens[i].top[j].logprob);
          EXPECT_EQ(score.rank == static_cast<int64_t>(j) + 1, score.top[j].token == score.token);
        }
      }
    }
  }
}

TEST(PromptScores, RanksAndProbabilities) {
  const float row[] = {1.0F, 3.0F, 3.0F, -2.0F};
  double sum = 0;
  for (const float x : row) sum += std::exp(static_cast<double>(x));
  const int64_t ranks[] = {3, 1, 2, 4};
  for (int32_t token = 0; token < 4; ++token) {
    const sampling::TokenScore score = sampling::score_token(row, token, 2);
    EXPECT_EQ(score.rank, ranks[token]);
    EXPECT_NEAR(score.logprob, static_cast<double>(row[token]) - std::log(sum), 1e-6);
    ASSERT_EQ(score.top.size(), 2U);
    EXPECT_EQ(score.top[0].token, 1);
    EXPECT_EQ(score.top[1].token, 2);
  }
  const float broken[] = {1.0F, std::nanf("")};
  EXPECT_EQ(sampling::score_token(broken, 0, 1).token, ops::kNotFinite);
}

}  // namespace
}  // namespace tandem::engine
