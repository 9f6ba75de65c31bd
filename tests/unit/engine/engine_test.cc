// The engine over a model of integers: text, limits, events, refusals.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <random>
#include <set>

#include "tests/unit/engine/fake_model.h"

namespace tandem::engine {
namespace {

using test::DraftStyle;
using test::FakeModel;
using test::FakeModelOptions;
using test::TinyEngine;

struct Answer {
  std::vector<int32_t> tokens;
  Finish finish;
};

struct Harness {
  explicit Harness(const TinyEngine& tiny = {}, const FakeModelOptions& fake = {})
      : options(test::tiny_options(tiny, fake)),
        model(options, fake),
        engine(options, [this](const speculation::SpecBatch& batch) { return model.run(batch); }) {}

  void take(const TokenEvent& event) {
    Answer& answer = answers[event.id];
    for (const auto& choice : event.tokens) answer.tokens.push_back(choice.token);
    EXPECT_LE(event.num_accepted, static_cast<int>(event.tokens.size()));
    if (event.finish) answer.finish = *event.finish;
  }
  bool step() {
    for (const TokenEvent& event : engine.step()) take(event);
    EXPECT_EQ(engine.find_fault(), "");
    return engine.has_work();
  }
  void run(int64_t most_steps = 100000) {
    while (most_steps-- > 0 && step()) {
    }
    EXPECT_FALSE(engine.has_work());
    EXPECT_EQ(engine.stats().num_held_pages, 0);
  }

  EngineOptions options;
  FakeModel model;
  Engine engine;
  std::map<uint64_t, Answer> answers;
};

EngineRequest request(uint64_t id, size_t prompt_len, int64_t max_tokens, double temperature = 0) {
  EngineRequest r;
  r.id = id;
  for (size_t i = 0; i < prompt_len; ++i)
    r.prompt_ids.push_back(static_cast<int32_t>(3 + (id * 7 + i * 5) % 37));
  r.sampling.temperature = temperature;
  r.sampling.seed = 1000 + id;
  r.max_tokens = max_tokens;
  return r;
}

// Greedy, sampled, penalised, with and without eos, long and short.
EngineRequest varied_request(uint64_t id) {
  EngineRequest r = request(id, 1 + id * 5 % 31, 1 + static_cast<int64_t>(id * 11 % 40),
                            id % 3 == 0 ? 0.0 : 0.3 + 0.1 * static_cast<double>(id % 5));
  if (id % 4 == 1) r.sampling.top_k = 6;
  if (id % 4 == 2) r.sampling.presence_penalty = 0.7;
  if (id % 5 == 3) r.sampling.repetition_penalty = 1.3;
  if (id % 2 == 0) r.sampling.ignore_eos = true;
  if (id % 6 == 5) r.sampling.stop_token_ids = {9, 10};
  if (id % 7 == 2) r.sampling.min_tokens = std::min<int64_t>(5, r.max_tokens);
  return r;
}

std::vector<Answer> run_all(const TinyEngine& tiny, const FakeModelOptions& fake, uint64_t count,
                            int64_t* num_preemptions = nullptr) {
  Harness harness(tiny, fake);
  for (uint64_t id = 0; id < count; ++id) {
    const auto status = harness.engine.add_request(varied_request(id));
    EXPECT_TRUE(status.has_value()) << status.error().message;
  }
  harness.run();
  EXPECT_LE(harness.model.most_rows(), tiny.max_num_batched_tokens);
  EXPECT_LE(harness.model.most_sequences(), tiny.max_num_seqs);
  if (num_preemptions != nullptr) *num_preemptions = harness.engine.stats().num_preemptions;
  std::vector<Answer> answers;
  for (auto& [id, answer] : harness.answers) answers.push_back(std::move(answer));
  return answers;
}

void expect_same(const std::vector<Answer>& got, const std::vector<Answer>& want,
                 const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens) << what << ", request " << i;
    EXPECT_EQ(got[i].finish.reason, want[i].finish.reason) << what << ", request " << i;
    EXPECT_EQ(got[i].finish.stop_token, want[i].finish.stop_token) << what << ", request " << i;
    EXPECT_EQ(got[i].finish.stats.num_output_tokens, static_cast<int64_t>(got[i].tokens.size()));
  }
}

constexpr uint64_t kCount = 30;

// One request at a time, K = 0, whole prompts.
std::vector<Answer> plain_answers() {
  return run_all({.max_num_seqs = 1,
                  .max_num_batched_tokens = 100,
                  .max_chunk_tokens = 100,
                  .num_draft_tokens = 0},
                 {}, kCount);
}

TEST(EngineText, DoesNotDependOnDraftsBatchChunksOrBudget) {
  const std::vector<Answer> want = plain_answers();
  int stops = 0;
  for (const Answer& answer : want) stops += answer.finish.reason == FinishReason::kStop ? 1 : 0;
  EXPECT_GT(stops, 3);
  for (int k = 0; k <= 8; ++k)
    for (const int64_t seqs : {1, 3, 8})
      for (const int64_t chunk : {1, 5, 64})
        for (const DraftStyle style : {DraftStyle::kRight, DraftStyle::kWrong, DraftStyle::kMixed})
          expect_same(run_all({.max_num_seqs = seqs,
                               .max_num_batched_tokens = 10 + 2 * seqs,
                               .max_chunk_tokens = chunk,
                               .num_pages = 200,
                               .num_draft_tokens = k},
                              {.style = style}, kCount),
                      want, fmt::format("K {} seqs {} chunk {}", k, seqs, chunk));
}

TEST(EngineText, SurvivesPreemption) {
  const std::vector<Answer> want = plain_answers();
  for (const int k : {0, 1, 4, 8}) {
    int64_t num_preemptions = 0;
    // The largest request needs 18 pages of 4; eight at once need several times the pool.
    expect_same(run_all({.max_num_seqs = 8,
                         .max_num_batched_tokens = 32,
                         .num_pages = 18,
                         .num_draft_tokens = k},
                        {}, kCount, &num_preemptions),
                want, fmt::format("K {}", k));
    EXPECT_GT(num_preemptions, 5) << k;
  }
}

TEST(EngineText, RightDraftsAreAllAccepted) {
  Harness harness({.num_draft_tokens = 4}, {.style = DraftStyle::kRight});
  EngineRequest r = request(1, 5, 41);
  r.sampling.ignore_eos = true;
  ASSERT_TRUE(harness.engine.add_request(r).has_value());
  harness.run();
  const Finish& finish = harness.answers[1].finish;
  // One token from the prompt, then rounds of 5: 40 tokens in 8 rounds.
  EXPECT_EQ(finish.stats.acceptance.num_drafts, 8);
  EXPECT_EQ(finish.stats.acceptance.num_draft_tokens, 32);
  EXPECT_EQ(finish.stats.acceptance.num_accepted_tokens, 32);
  EXPECT_EQ(finish.stats.num_output_tokens, 41);
  EXPECT_EQ(finish.reason, FinishReason::kLength);
  EXPECT_EQ(harness.engine.stats().num_steps, 9);
}

TEST(EngineText, DraftsNeverReachPastMaxTokens) {
  Harness harness({.num_draft_tokens = 8}, {.style = DraftStyle::kRight});
  EngineRequest r = request(1, 3, 5);
  r.sampling.ignore_eos = true;
  ASSERT_TRUE(harness.engine.add_request(r).has_value());
  harness.run();
  EXPECT_EQ(harness.answers[1].tokens.size(), 5U);
  EXPECT_EQ(harness.answers[1].finish.stats.acceptance.num_draft_tokens, 3);
}

TEST(EngineText, RequestsMayChooseTheirOwnK) {
  Harness harness({.num_draft_tokens = 6}, {.style = DraftStyle::kRight});
  for (const int k : {0, 2, 6}) {
    EngineRequest r = request(static_cast<uint64_t>(k), 3, 20);
    r.sampling.ignore_eos = true;
    r.num_draft_tokens = k;
    ASSERT_TRUE(harness.engine.add_request(r).has_value());
  }
  harness.run();
  EXPECT_EQ(harness.answers[0].finish.stats.acceptance.num_drafts, 0);
  EXPECT_EQ(harness.answers[2].finish.stats.acceptance.proposed_per_pos[2], 0);
  EXPECT_GT(harness.answers[6].finish.stats.acceptance.proposed_per_pos[5], 0);
}

TEST(EngineFailure, NanEndsThatRequestOnly) {
  const FakeModelOptions fake{.nan_position = 12, .nan_first_token = 10};
  Harness harness({}, fake);
  Harness healthy;
  for (uint64_t id = 1; id <= 3; ++id) {
    EngineRequest r = request(id, 4, 20);
    r.sampling.ignore_eos = true;
    ASSERT_TRUE(harness.engine.add_request(r).has_value());
    ASSERT_TRUE(healthy.engine.add_request(r).has_value());
  }
  harness.run();
  healthy.run();
  EXPECT_EQ(harness.answers[1].finish.reason, FinishReason::kError);
  EXPECT_NE(harness.answers[1].finish.error.find("NaN"), std::string::npos);
  // Prompt positions 0..3; the row at position 12 fails, so positions 4..12 came out before.
  EXPECT_EQ(harness.answers[1].tokens.size(), 9U);
  for (uint64_t id = 2; id <= 3; ++id) {
    EXPECT_EQ(harness.answers[id].tokens, healthy.answers[id].tokens);
    EXPECT_EQ(harness.answers[id].finish.reason, FinishReason::kLength);
  }
}

TEST(EngineCancel, AtEveryPhaseGivesEverythingBack) {
  for (int steps = 0; steps < 12; ++steps) {
    Harness harness({.max_num_seqs = 2, .max_num_batched_tokens = 6, .max_chunk_tokens = 3});
    for (uint64_t id = 1; id <= 3; ++id) {
      EngineRequest r = request(id, 9, 20);
      r.sampling.ignore_eos = true;
      ASSERT_TRUE(harness.engine.add_request(r).has_value());
    }
    for (int i = 0; i < steps; ++i) harness.step();
    for (uint64_t id = 1; id <= 3; id += 2) {
      const auto event = harness.engine.cancel(id);
      ASSERT_TRUE(event.has_value());
      EXPECT_EQ(event->finish->reason, FinishReason::kCancelled);
      EXPECT_EQ(event->finish->stats.num_output_tokens,
                static_cast<int64_t>(harness.answers[id].tokens.size()));
      EXPECT_EQ(harness.engine.find_fault(), "");
    }
    EXPECT_FALSE(harness.engine.cancel(1).has_value());
    harness.run();
    EXPECT_EQ(harness.answers[2].tokens.size(), 20U);
  }
}

// Requests come and a quarter is cancelled somewhere: the others never notice, and what a cancelled
// one had is the beginning of its own text.
TEST(EngineCancel, SoakOverATinyPool) {
  constexpr uint64_t kSoak = 600;
  const std::vector<Answer> want =
      run_all({.max_num_seqs = 1, .max_num_batched_tokens = 100, .num_draft_tokens = 0}, {}, kSoak);
  Harness harness({.max_num_seqs = 6,
                   .max_num_batched_tokens = 24,
                   .max_chunk_tokens = 7,
                   .num_pages = 20,
                   .num_draft_tokens = 5});
  std::mt19937_64 random(17);
  std::set<uint64_t> cancelled;
  uint64_t next = 0;
  while (next < kSoak || harness.engine.has_work()) {
    while (next < kSoak && harness.engine.stats().num_waiting < 5)
      ASSERT_TRUE(harness.engine.add_request(varied_request(next++)).has_value());
    harness.step();
    if (random() % 12 != 0) continue;
    const uint64_t id = next - 1 - random() % std::min<uint64_t>(next, 10);
    if (const auto event = harness.engine.cancel(id)) {
      harness.take(*event);
      cancelled.insert(id);
    }
    ASSERT_EQ(harness.engine.find_fault(), "");
  }
  EXPECT_EQ(harness.engine.stats().num_held_pages, 0);
  EXPECT_GT(harness.engine.stats().num_preemptions, 50);
  EXPECT_GT(cancelled.size(), 50U);
  for (uint64_t id = 0; id < kSoak; ++id) {
    const std::vector<int32_t>& got = harness.answers[id].tokens;
    if (!cancelled.contains(id)) {
      EXPECT_EQ(got, want[id].tokens) << id;
      continue;
    }
    EXPECT_EQ(harness.answers[id].finish.reason, FinishReason::kCancelled);
    EXPECT_TRUE(got.size() <= want[id].tokens.size() &&
                std::equal(got.begin(), got.end(), want[id].tokens.begin()))
        << id;
  }
}

TEST(EngineOrder, FirstComeFirstServed) {
  Harness harness({.max_num_seqs = 1});
  for (uint64_t id = 5; id >= 1; --id) {
    EngineRequest r = request(id, 4, 6);
    r.sampling.ignore_eos = true;
    ASSERT_TRUE(harness.engine.add_request(r).has_value());
  }
  std::vector<uint64_t> order;
  while (harness.engine.has_work())
    for (const TokenEvent& event : harness.engine.step())
      if (event.finish) order.push_back(event.id);
  EXPECT_EQ(order, (std::vector<uint64_t>{5, 4, 3, 2, 1}));
}

TEST(EngineStatsTest, CountsWhatHappened) {
  Harness harness;
  EXPECT_TRUE(harness.engine.step().empty());
  ASSERT_TRUE(harness.engine.add_request(request(1, 6, 4)).has_value());
  EXPECT_EQ(harness.engine.stats().num_waiting, 1);
  harness.step();
  EXPECT_EQ(harness.engine.stats().num_running, 1);
  EXPECT_GT(harness.engine.stats().num_held_pages, 0);
  harness.run();
  const EngineStats stats = harness.engine.stats();
  EXPECT_EQ(stats.num_finished, 1);
  EXPECT_EQ(stats.num_prompt_tokens, 6);
  EXPECT_EQ(stats.num_output_tokens, static_cast<int64_t>(harness.answers[1].tokens.size()));
  const RequestStats& own = harness.answers[1].finish.stats;
  EXPECT_GT(own.first_token_seconds, 0);
  EXPECT_GE(own.total_seconds, own.first_token_seconds);
}

struct BadRequest {
  std::string want;  // in the message
  std::function<void(EngineRequest&)> spoil;
};

TEST(EngineRefusal, NamesTheFieldAndBothNumbers) {
  const std::vector<BadRequest> cases = {
      {"prompt: expected at least one token", [](EngineRequest& r) { r.prompt_ids.clear(); }},
      {"prompt: expected token ids from 0 to 39, got 40",
       [](EngineRequest& r) { r.prompt_ids[1] = 40; }},
      {"prompt: expected token ids from 0 to 39, got -1",
       [](EngineRequest& r) { r.prompt_ids[0] = -1; }},
      {"max_tokens: expected a number >= 1, got 0", [](EngineRequest& r) { r.max_tokens = 0; }},
      {"min_tokens: expected at most max_tokens (10), got 11",
       [](EngineRequest& r) { r.sampling.min_tokens = 11; }},
      {"80 tokens together (max_model_len), got 4 + 77",
       [](EngineRequest& r) { r.max_tokens = 77; }},
      {"(max_model_len)",
       [](EngineRequest& r) { r.max_tokens = std::numeric_limits<int64_t>::max(); }},
      {"(max_model_len), got 80 + 10", [](EngineRequest& r) { r.prompt_ids.assign(80, 5); }},
      {"65 tokens together (all the KV cache holds), got 4 + 62",
       [](EngineRequest& r) { r.max_tokens = 62; }},
      {"num_speculative_tokens: expected 0 to 4, got 5",
       [](EngineRequest& r) { r.num_draft_tokens = 5; }},
      {"num_speculative_tokens: expected 0 to 4, got -1",
       [](EngineRequest& r) { r.num_draft_tokens = -1; }},
      {"top_p: expected", [](EngineRequest& r) { r.sampling.top_p = 2; }},
      {"stop_token_ids: expected", [](EngineRequest& r) { r.sampling.stop_token_ids = {40}; }},
  };
  Harness harness({.num_pages = 16});
  for (const BadRequest& bad : cases) {
    EngineRequest r = request(1, 4, 10);
    bad.spoil(r);
    const base::Status status = harness.engine.add_request(r);
    ASSERT_FALSE(status.has_value()) << bad.want;
    EXPECT_NE(status.error().message.find(bad.want), std::string::npos) << status.error().message;
    EXPECT_EQ(status.error().code, base::ErrorCode::kInvalidArgument);
  }
  EXPECT_FALSE(harness.engine.has_work());
  ASSERT_TRUE(harness.engine.add_request(request(1, 4, 10)).has_value());
  EXPECT_FALSE(harness.engine.add_request(request(1, 4, 10)).has_value());
}

TEST(EngineRefusal, WhatJustFitsRunsToItsEnd) {
  Harness harness({.num_pages = 16, .num_draft_tokens = 8});
  EngineRequest r = request(1, 40, 25);  // 65 tokens over 64 places: the last needs none
  r.sampling.ignore_eos = true;
  ASSERT_EQ(harness.engine.max_request_tokens(), 65);
  ASSERT_TRUE(harness.engine.add_request(r).has_value());
  harness.run();
  EXPECT_EQ(harness.answers[1].tokens.size(), 25U);
}

TEST(EngineRefusal, FullQueue) {
  Harness harness;
  EngineOptions options = harness.options;
  options.max_num_queued = 2;
  Engine engine(options, [&](const auto& batch) { return harness.model.run(batch); });
  EXPECT_TRUE(engine.add_request(request(1, 4, 4)).has_value());
  EXPECT_TRUE(engine.add_request(request(2, 4, 4)).has_value());
  const base::Status status = engine.add_request(request(3, 4, 4));
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, base::ErrorCode::kResourceExhausted);
  engine.step();
  EXPECT_TRUE(engine.add_request(request(3, 4, 4)).has_value());
}

TEST(EngineOptionsTest, RefusedByName) {
  const auto message = [](const std::function<void(EngineOptions&)>& spoil) {
    EngineOptions options = test::tiny_options({}, {});
    EXPECT_TRUE(Engine::validate(options).has_value());
    spoil(options);
    const base::Status status = Engine::validate(options);
    return status ? std::string("accepted") : status.error().message;
  };
  using Options = EngineOptions;
  EXPECT_EQ(message([](Options& o) { o.limits.max_num_seqs = 0; }).rfind("max_num_seqs", 0), 0U);
  EXPECT_EQ(message([](Options& o) {
              o.limits.max_num_batched_tokens = 3;
            }).rfind("max_num_batched_tokens", 0),
            0U);
  EXPECT_EQ(message([](Options& o) { o.limits.max_chunk_tokens = 0; }).rfind("max_chunk", 0), 0U);
  EXPECT_EQ(message([](Options& o) { o.num_draft_tokens = 9; }).rfind("num_speculative", 0), 0U);
  EXPECT_EQ(message([](Options& o) { o.max_model_len = 1; }).rfind("max_model_len", 0), 0U);
  EXPECT_EQ(message([](Options& o) { o.ring_len += 1; }).rfind("ring_len", 0), 0U);
  EXPECT_EQ(message([](Options& o) { o.num_ring_blocks = 1; }).rfind("KV cache", 0), 0U);
  EXPECT_EQ(message([](Options& o) { o.limits.num_page_blocks = 0; }).rfind("KV cache", 0), 0U);
}

}  // namespace
}  // namespace tandem::engine
