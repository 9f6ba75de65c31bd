// The prefix cache inside the engine, over the model of integers: what is found changes no text.
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

struct Tried {
  explicit Tried(const TinyEngine& tiny, PrefixHash hash = {}, bool priorities = false)
      : options(with(test::tiny_options(tiny, {}), std::move(hash), priorities)),
        model(options, {}),
        engine(options, [this](const speculation::SpecBatch& batch) { return model.run(batch); }) {}

  static EngineOptions with(EngineOptions options, PrefixHash hash, bool priorities) {
    options.prefix_hash = std::move(hash);
    options.priorities = priorities;
    return options;
  }
  void add(const EngineRequest& request) {
    const base::Status status = engine.add_request(request);
    ASSERT_TRUE(status.has_value()) << status.error().message;
  }
  void step() {
    for (const TokenEvent& event : engine.step()) {
      for (const auto& choice : event.tokens) texts[event.id].push_back(choice.token);
      if (event.finish) finished[event.id] = event.finish->stats;
    }
    ASSERT_EQ(engine.find_fault(), "");
  }
  void finish() {
    while (engine.has_work()) ASSERT_NO_FATAL_FAILURE(step());
    EXPECT_EQ(engine.stats().num_held_pages, 0);
  }
  // The request alone; its cached tokens.
  int64_t cached(const EngineRequest& request) {
    add(request);
    finish();
    return finished[request.id].num_cached_tokens;
  }

  EngineOptions options;
  FakeModel model;
  Engine engine;
  std::map<uint64_t, std::vector<int32_t>> texts;
  std::map<uint64_t, RequestStats> finished;
};

EngineRequest request(uint64_t id, std::vector<int32_t> prompt, int64_t max_tokens) {
  EngineRequest r;
  r.id = id;
  r.prompt_ids = std::move(prompt);
  r.sampling.temperature = 0;
  r.sampling.ignore_eos = true;
  r.max_tokens = max_tokens;
  return r;
}

std::vector<int32_t> count_up(int32_t first, size_t count) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) ids.push_back(3 + (first + static_cast<int32_t>(i)) % 37);
  return ids;
}

TEST(PrefixEngine, ARepeatedPromptComputesItsLastPageAlone) {
  for (const size_t length : {9U, 12U, 13U}) {
    Tried run({});
    EXPECT_EQ(run.cached(request(1, count_up(0, length), 6)), 0);
    const int64_t steps = run.engine.stats().num_steps;
    EXPECT_EQ(run.cached(request(2, count_up(0, length), 6)),
              static_cast<int64_t>(length - 1) / 4 * 4);
    EXPECT_EQ(run.texts[1], run.texts[2]);
    EXPECT_LE(run.engine.stats().num_steps, 2 * steps);
    EXPECT_EQ(run.engine.stats().num_prefix_queries, 2 * static_cast<int64_t>(length));
    EXPECT_EQ(run.engine.stats().num_prefix_hits, static_cast<int64_t>(length - 1) / 4 * 4);
  }
}

TEST(PrefixEngine, TheNextTurnStartsBehindTheLast) {
  Tried run({});
  const std::vector<int32_t> first = count_up(0, 10);
  EXPECT_EQ(run.cached(request(1, first, 12)), 0);
  std::vector<int32_t> second = first;
  second.insert(second.end(), run.texts[1].begin(), run.texts[1].end());
  const int64_t known = (10 + 12 - 1) / 4 * 4;  // the last token was never a row
  second.insert(second.end(), {5, 6, 7});
  EXPECT_EQ(run.cached(request(2, second, 4)), known);
  Tried plain({.prefix_caching = false});
  EXPECT_EQ(plain.cached(request(2, second, 4)), 0);
  EXPECT_EQ(run.texts[2], plain.texts[2]);
}

// The second prompt shows where prompts part; the third starts there.
TEST(PrefixEngine, ACommonBeginningIsLearned) {
  Tried run({});
  const auto prompt = [](int32_t end) {
    std::vector<int32_t> ids = count_up(0, 22);
    for (int32_t i = 0; i < 14; ++i) ids.push_back(3 + (end + i * i) % 37);
    return ids;
  };
  EXPECT_EQ(run.cached(request(1, prompt(1), 4)), 0);
  EXPECT_EQ(run.cached(request(2, prompt(2), 4)), 0);
  EXPECT_EQ(run.cached(request(3, prompt(3), 4)), 20);
  Tried plain({.prefix_caching = false});
  for (uint64_t id = 1; id <= 3; ++id) {
    plain.cached(request(id, prompt(static_cast<int32_t>(id)), 4));
    EXPECT_EQ(run.texts[id], plain.texts[id]);
  }
}

// Of prompts that come together, one computes what all have.
TEST(PrefixEngine, ABurstIsComputedOnce) {
  for (const bool equal : {true, false}) {
    Tried run({.max_num_seqs = 5, .max_num_batched_tokens = 64, .max_chunk_tokens = 64});
    Tried plain({.max_num_seqs = 5, .prefix_caching = false});
    for (uint64_t id = 0; id < 5; ++id) {
      std::vector<int32_t> prompt = count_up(0, 22);
      if (!equal) prompt.push_back(static_cast<int32_t>(3 + id));
      if (!equal) prompt.push_back(static_cast<int32_t>(9 + id));
      run.add(request(id, prompt, 8));
      plain.add(request(id, prompt, 8));
    }
    run.finish();
    plain.finish();
    EXPECT_EQ(run.texts, plain.texts);
    EXPECT_EQ(run.engine.stats().num_prefix_hits, 4 * 20);
    EXPECT_EQ(run.engine.stats().num_preemptions, 0);
  }
}

// A request comes back behind a page that lies past its prompt: its ring begins there, and must not
// be taken for that of the prompt's end.
TEST(PrefixEngine, ARestoredRingLacksItsBeginning) {
  Tried run({.max_num_seqs = 1, .num_snapshot_blocks = 4}, {}, true);
  Tried plain({.prefix_caching = false});
  const std::vector<int32_t> prompt = count_up(0, 9);
  EngineRequest first = request(1, prompt, 20);
  first.num_draft_tokens = 0;
  run.add(first);
  for (int i = 0; i < 4; ++i) run.step();
  ASSERT_EQ(run.texts[1].size(), 4U);
  std::vector<int32_t> longer = prompt;
  longer.insert(longer.end(), run.texts[1].begin(), run.texts[1].end());
  EngineRequest second = request(2, longer, 1), other = request(3, count_up(20, 11), 1);
  second.priority = other.priority = -1;
  run.add(second);  // leaves a snapshot behind page 3
  run.add(other);   // takes the blocks of that behind page 2
  run.finish();
  EXPECT_EQ(run.engine.stats().num_preemptions, 1);
  EngineRequest again = request(4, count_up(0, 12), 8);
  again.prompt_ids.back() = 30;
  run.cached(again);
  for (EngineRequest r : {first, second, other, again}) {
    r.priority = 0;
    plain.cached(r);
    EXPECT_EQ(run.texts[r.id], plain.texts[r.id]) << r.id;
  }
}

TEST(PrefixEngine, SaltsAndPromptScoresFindNothing) {
  Tried run({});
  run.cached(request(1, count_up(0, 20), 4));
  EngineRequest salted = request(2, count_up(0, 20), 4);
  salted.cache_salt = "x";
  EXPECT_EQ(run.cached(salted), 0);
  salted.id = 3;
  EXPECT_EQ(run.cached(salted), 16);
  EXPECT_EQ(run.texts[3], run.texts[1]);
}

TEST(PrefixEngine, PagesAreShared) {
  Tried run({.max_num_seqs = 4});
  run.cached(request(1, count_up(0, 33), 1));
  for (uint64_t id = 2; id <= 5; ++id) run.add(request(id, count_up(0, 33), 30));
  run.step();
  run.step();
  // 8 common pages, and for each the one with token 32 and those of its drafts.
  EXPECT_EQ(run.engine.stats().num_running, 4);
  EXPECT_LE(run.engine.stats().num_held_pages, 8 + 4 * 2);
  run.finish();
  for (uint64_t id = 3; id <= 5; ++id) EXPECT_EQ(run.texts[id], run.texts[2]);
}

// Prompts that branch from a few trunks; trunks are also what earlier requests became.
std::vector<EngineRequest> family(uint64_t seed, uint64_t first_id, uint64_t count,
                                  const std::vector<std::vector<int32_t>>& trunks) {
  std::mt19937_64 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  std::vector<EngineRequest> requests;
  for (uint64_t id = first_id; id < first_id + count; ++id) {
    const std::vector<int32_t>& trunk = trunks[below(trunks.size())];
    const size_t kept = below(3) == 0 ? trunk.size() : 1 + below(trunk.size());
    std::vector<int32_t> prompt(trunk.begin(), trunk.begin() + static_cast<std::ptrdiff_t>(kept));
    for (size_t more = below(10); more > 0; --more)
      prompt.push_back(static_cast<int32_t>(3 + below(37)));
    const auto room = static_cast<size_t>(73 - static_cast<int64_t>(prompt.size()));
    EngineRequest r =
        request(id, prompt, 1 + static_cast<int64_t>(below(std::min<size_t>(room, 25))));
    r.sampling.temperature = below(2) == 0 ? 0.0 : 0.8;
    r.sampling.seed = 77 + id;
    r.sampling.ignore_eos = below(3) != 0;
    if (below(6) == 0) r.cache_salt = "s";
    requests.push_back(r);
  }
  return requests;
}

struct SoakCase {
  int64_t num_pages;
  int64_t num_snapshot_blocks;
  int num_draft_tokens;
  bool weak_hash;
};

void soak(const SoakCase& tried, const std::vector<EngineRequest>& requests,
          std::map<uint64_t, std::vector<int32_t>>& want) {
  const PrefixHash weak = [](uint64_t parent, std::span<const int32_t> tokens) {
    return (parent + static_cast<uint64_t>(tokens[0])) % 3;
  };
  Tried run({.max_num_seqs = 5,
             .max_num_batched_tokens = 22,
             .max_chunk_tokens = 9,
             .num_pages = tried.num_pages,
             .num_draft_tokens = tried.num_draft_tokens,
             .num_snapshot_blocks = tried.num_snapshot_blocks},
            tried.weak_hash ? weak : PrefixHash());
  std::mt19937_64 random(5);
  size_t next = 0;
  while (next < requests.size() || run.engine.has_work()) {
    while (next < requests.size() && run.engine.stats().num_waiting < 3) run.add(requests[next++]);
    ASSERT_NO_FATAL_FAILURE(run.step());
    if (random() % 20 == 0 && run.engine.cancel(next - 1)) run.texts.erase(next - 1);
    ASSERT_EQ(run.engine.find_fault(), "");
  }
  EXPECT_EQ(run.engine.stats().num_held_pages, 0);
  for (const auto& [id, stats] : run.finished) EXPECT_EQ(run.texts[id], want[id]) << id;
  EXPECT_GT(run.finished.size(), requests.size() / 2);
  EXPECT_GT(run.engine.stats().num_prefix_hits,
            20 * std::min<int64_t>(tried.num_snapshot_blocks, 150));
  if (tried.num_pages < 30) {
    EXPECT_GT(run.engine.stats().num_preemptions, 20);
  }
}

TEST(PrefixEngine, NoHitChangesATextUnderPressure) {
  std::vector<std::vector<int32_t>> trunks;
  for (int32_t i = 0; i < 6; ++i) trunks.push_back(count_up(9 * i, 25 + static_cast<size_t>(i)));
  std::vector<EngineRequest> requests = family(1, 0, 250, trunks);
  Tried plain({.max_num_seqs = 1, .num_draft_tokens = 0, .prefix_caching = false});
  for (const EngineRequest& r : requests) plain.add(r);
  plain.finish();
  for (uint64_t id = 0; id < 250; id += 25) {
    trunks.push_back(requests[id].prompt_ids);
    trunks.back().insert(trunks.back().end(), plain.texts[id].begin(), plain.texts[id].end());
    trunks.back().resize(std::min<size_t>(trunks.back().size(), 50));
  }
  for (const EngineRequest& r : family(2, 250, 250, trunks)) {
    requests.push_back(r);
    plain.add(r);
  }
  plain.finish();
  ASSERT_EQ(plain.engine.stats().num_prefix_queries, 0);
  for (const SoakCase tried :
       {SoakCase{18, 9, 4, false}, SoakCase{18, 9, 0, true}, SoakCase{18, 2, 8, false},
        SoakCase{24, 40, 3, true}, SoakCase{200, 400, 4, false}, SoakCase{200, 5, 8, true}}) {
    ASSERT_NO_FATAL_FAILURE(soak(tried, requests, plain.texts)) << tried.num_pages;
  }
}

}  // namespace
}  // namespace tandem::engine
