// The engine with everything on at once: priorities, a prefix cache, K chosen by the engine,
// cancellations and pools that are far too small. Every invariant is checked after every step.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "engine/engine.h"
#include "tests/unit/engine/fake_model.h"

namespace tandem::engine {
namespace {

using test::FakeModel;
using test::FakeModelOptions;
using test::TinyEngine;

EngineOptions all_on(const TinyEngine& tiny) {
  EngineOptions options = test::tiny_options(tiny, {});
  options.priorities = true;
  options.auto_drafts = true;
  return options;
}

// Times of a machine that changes its mind.
void add_times(speculation::SpecResult& result, std::mt19937_64& random) {
  const auto seconds = [&] { return 1e-3 * static_cast<double>(1 + random() % 50); };
  result.verify_time = {static_cast<int64_t>(1 + random() % 40), seconds()};
  result.draft_times = {{static_cast<int64_t>(1 + random() % 5), seconds()}};
}

EngineRequest random_request(uint64_t id, std::mt19937_64& random, size_t most_tokens) {
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  EngineRequest r;
  r.id = id;
  // A few beginnings, so that prompts share some.
  const size_t trunk = below(3), shared = below(most_tokens), length = 1 + below(most_tokens);
  for (size_t i = 0; i < length; ++i)
    r.prompt_ids.push_back(static_cast<int32_t>(3 + (i < shared ? 5 * trunk + i : below(30)) % 37));
  r.max_tokens = 1 + static_cast<int64_t>(below(most_tokens));
  r.sampling.temperature = 0;
  r.sampling.seed = id;
  r.sampling.ignore_eos = true;
  r.priority = static_cast<int64_t>(below(4)) - 1;
  if (below(4) == 0) r.num_draft_tokens = static_cast<int>(below(5));
  if (below(8) == 0) r.cache_salt = "salt";
  return r;
}

TEST(EngineProperty, EveryInvariantAfterEveryStep) {
  int64_t num_steps = 0, num_preemptions = 0, num_hits = 0, num_finished = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&](int64_t low, int64_t high) {
      return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
    };
    TinyEngine tiny;
    tiny.max_num_seqs = pick(1, 6);
    tiny.max_num_batched_tokens = tiny.max_num_seqs + pick(0, 20);
    tiny.max_chunk_tokens = pick(1, 20);
    tiny.block_size = pick(1, 5);
    tiny.num_pages = pick(10, 30);
    tiny.num_snapshot_blocks = pick(0, 30);
    tiny.max_model_len = 200;
    const auto most = static_cast<size_t>(tiny.num_pages * tiny.block_size / 2);
    Engine engine(all_on(tiny), [&](const speculation::SpecBatch& batch) {
      speculation::SpecResult result;
      for (const speculation::SpecSequence& sequence : batch.sequences) {
        auto& one = result.sequences.emplace_back();
        if (!sequence.samples) continue;
        one.num_drafted = sequence.num_draft_tokens;
        one.num_accepted = static_cast<int>(pick(0, one.num_drafted));
        for (int i = 0; i <= one.num_accepted; ++i) {
          one.tokens.emplace_back().token = static_cast<int32_t>(pick(3, 6));
          sequence.sampler->commit(one.tokens.back().token);
        }
      }
      add_times(result, random);
      if (pick(0, 1) == 0) engine.prepare();
      return result;
    });
    uint64_t next = 0;
    for (int step = 0; step < 700 || engine.has_work(); ++step) {
      ASSERT_LT(step, 20000) << "seed " << seed;
      while (step < 700 && engine.stats().num_waiting < 5) {
        ASSERT_TRUE(engine.add_request(random_request(next++, random, most)).has_value());
      }
      engine.step();
      if (random() % 30 == 0) engine.cancel(next - 1 - random() % std::min<uint64_t>(next, 8));
      const std::string fault = engine.find_fault();
      ASSERT_EQ(fault, "") << "seed " << seed << " step " << step;
      ++num_steps;
    }
    ASSERT_EQ(engine.stats().num_finished, static_cast<int64_t>(next)) << "seed " << seed;
    ASSERT_EQ(engine.stats().num_held_pages, 0);
    num_preemptions += engine.stats().num_preemptions;
    num_hits += engine.stats().num_prefix_hits;
    num_finished += engine.stats().num_finished;
  }
  EXPECT_GT(num_steps, 42000);
  EXPECT_GT(num_preemptions, 1000);
  EXPECT_GT(num_hits, 1000);
  EXPECT_GT(num_finished, 5000);
}

struct Texts {
  std::map<uint64_t, std::vector<int32_t>> tokens;
  EngineStats stats;
};

Texts run(const EngineOptions& options, const std::vector<EngineRequest>& requests) {
  FakeModel model(options, {});
  std::mt19937_64 random(9);
  Engine engine(options, [&](const speculation::SpecBatch& batch) {
    speculation::SpecResult result = model.run(batch);
    add_times(result, random);
    if (random() % 2 == 0) engine.prepare();
    return result;
  });
  Texts texts;
  size_t next = 0;
  while (next < requests.size() || engine.has_work()) {
    while (next < requests.size() && engine.stats().num_waiting < 4) {
      EngineRequest request = requests[next++];
      if (!options.priorities) request.priority = 0;
      EXPECT_TRUE(engine.add_request(request).has_value());
    }
    for (const TokenEvent& event : engine.step())
      for (const auto& choice : event.tokens) texts.tokens[event.id].push_back(choice.token);
    EXPECT_EQ(engine.find_fault(), "");
  }
  texts.stats = engine.stats();
  return texts;
}

TEST(EngineProperty, NeitherPrioritiesNorTheChoiceOfKChangeAText) {
  std::mt19937_64 random(4);
  std::vector<EngineRequest> requests;
  for (uint64_t id = 0; id < 300; ++id) {
    requests.push_back(random_request(id, random, 36));
    requests.back().sampling.temperature = id % 2 == 0 ? 0.0 : 0.9;
  }
  TinyEngine plain{.max_num_seqs = 1, .num_draft_tokens = 4, .prefix_caching = false};
  const Texts want = run(test::tiny_options(plain, {}), requests);
  for (const int k : {4, 8}) {
    const TinyEngine tiny{.max_num_seqs = 5,
                          .max_num_batched_tokens = 24,
                          .max_chunk_tokens = 9,
                          .num_pages = 20,
                          .num_draft_tokens = k};
    const Texts got = run(all_on(tiny), requests);
    EXPECT_EQ(got.tokens, want.tokens);
    EXPECT_GT(got.stats.num_preemptions, 30);
    EXPECT_GT(got.stats.acceptance.num_drafts, 300);
    // Some rounds draft nothing, some all there is.
    EXPECT_LT(got.stats.acceptance.num_drafts, got.stats.num_output_tokens);
    EXPECT_GT(got.stats.acceptance.proposed_per_pos[static_cast<size_t>(k - 1)], 0);
  }
}

TEST(EnginePriority, IsRefusedWhenItMeansNothing) {
  Engine engine(test::tiny_options({}, {}), [](const auto&) { return speculation::SpecResult(); });
  EngineRequest request;
  request.prompt_ids = {5};
  request.max_tokens = 1;
  request.priority = 3;
  const base::Status status = engine.add_request(request);
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(
      status.error().message.find("priority: expected 0 with --scheduling-policy fcfs, got 3"),
      std::string::npos);
}

TEST(EnginePriority, LowerNumbersFinishFirst) {
  EngineOptions options = all_on({.max_num_seqs = 1});
  FakeModel model(options, {});
  Engine engine(options, [&](const speculation::SpecBatch& batch) { return model.run(batch); });
  std::vector<uint64_t> order;
  const auto step = [&] {
    for (const TokenEvent& event : engine.step())
      if (event.finish) order.push_back(event.id);
  };
  const auto add = [&](uint64_t id, int64_t priority) {
    EngineRequest request;
    request.id = id;
    request.prompt_ids = {5, 6, 7};
    request.max_tokens = 12;
    request.sampling.ignore_eos = true;
    request.priority = priority;
    ASSERT_TRUE(engine.add_request(request).has_value());
  };
  add(1, 1);
  add(2, 2);
  add(3, 1);
  step();
  add(4, -7);  // takes the seat of the first
  while (engine.has_work()) step();
  EXPECT_EQ(order, (std::vector<uint64_t>{4, 1, 3, 2}));
  EXPECT_EQ(engine.stats().num_preemptions, 1);
}

}  // namespace
}  // namespace tandem::engine
