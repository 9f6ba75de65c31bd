// Pairs of random weights in the very shapes of the 12B and its assistant, so that every kernel
// runs as it does for the real ones: head_dim 256 and 512, 8 and 1 KV heads, products of 3,840 to
// 15,360. Six layers always, with few ids, so that drafts are accepted; all 48 and all ids with
// TANDEM_LONG=1. Run from the root of the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "tests/gpu/pair/load.h"
#include "tests/gpu/pair/random_pair.h"

namespace tandem {
namespace {

using engine::EngineRequest;
using tests::Load;
using tests::Outcome;

constexpr int64_t kAllLayers = 48;
constexpr int64_t kAllIds = 262144;

struct RandomSetup {
  std::string name;
  int64_t num_layers = 6;  // of the target; a sixth of them see all keys
  int64_t vocab_size = 8;
  int64_t window = 96;  // sliding layers forget what prompts began with
  bool e4m3_cache = false;
  bool assistant = true;
  bool on_gpu = true;
  bool graphs = true;
  bool draws = true;  // every second request
  int64_t max_chunk_tokens = 2048;
  int64_t max_num_seqs = 32;
};

std::unique_ptr<engine::Runtime> open_runtime(const RandomSetup& setup) {
  const auto target = tests::copy_config("gemma-4-12B-it-fp8", setup.name + "_target");
  const auto assistant =
      tests::copy_config("gemma-4-12B-it-assistant-fp8", setup.name + "_assistant");
  nlohmann::json layer_types;
  for (int64_t layer = 0; layer < setup.num_layers; ++layer)
    layer_types.push_back(layer % 6 == 5 ? "full_attention" : "sliding_attention");
  tests::patch_json(
      target / "config.json",
      {{"text_config", {{"num_hidden_layers", setup.num_layers}, {"layer_types", layer_types}}}});
  for (const auto& folder : {target, assistant}) {
    tests::patch_json(folder / "config.json",
                      {{"text_config", {{"sliding_window", setup.window}}}});
    if (setup.vocab_size < kAllIds) tests::shrink_vocabulary(folder, setup.vocab_size);
  }
  if (setup.e4m3_cache) tests::ask_for_e4m3_cache(target);
  engine::RuntimeOptions options;
  options.pair.target = target;
  if (setup.assistant) options.pair.assistant = assistant;
  options.pair.load.dummy = true;
  options.pair.check_values = false;
  options.on_gpu = setup.on_gpu;
  options.use_graphs = setup.graphs;
  options.num_draft_tokens = setup.assistant ? speculation::kMaxDraftTokens : 0;
  options.max_num_seqs = setup.max_num_seqs;
  options.max_model_len = 2048;
  options.max_num_batched_tokens = 2048;
  options.max_chunk_tokens = setup.max_chunk_tokens;
  options.prefix_caching = false;
  options.kv_bytes = int64_t{8} << 30;
  auto opened = engine::Runtime::open(std::move(options));
  if (opened) return *std::move(opened);
  ADD_FAILURE() << opened.error().message;
  return nullptr;
}

// Prompts of one token to `longest`. Where log-probabilities are asked for the host chooses, from
// what the device tells of a row: a bit of difference in any logit shows.
std::vector<EngineRequest> make_requests(size_t count, const RandomSetup& setup, size_t longest,
                                         int64_t max_tokens, bool logprobs) {
  std::vector<EngineRequest> made;
  for (uint64_t id = 0; id < count; ++id) {
    EngineRequest request;
    request.id = id;
    const size_t length = 1 + (id * id * 53 + id * 211) % longest;
    for (size_t i = 0; i < length; ++i)
      request.prompt_ids.push_back(static_cast<int32_t>((id * 131 + i * i * 17 + i * 29) %
                                                        static_cast<uint64_t>(setup.vocab_size)));
    // Greedy texts of random weights soon repeat themselves, drawn ones do not.
    request.sampling.temperature = id % 2 == 0 || !setup.draws ? 0.0 : 1.0;
    request.sampling.seed = 1000 + id;
    request.sampling.top_k = std::min<int64_t>(64, setup.vocab_size - 2);
    request.sampling.ignore_eos = true;
    request.sampling.num_logprobs = logprobs ? 0 : -1;
    request.max_tokens = max_tokens;
    made.push_back(std::move(request));
  }
  return made;
}

// The first `load.count` requests of both: texts, and log-probabilities to the last bit.
void expect_same(const Outcome& got, const Outcome& want, const Load& load,
                 const std::string& name) {
  size_t different = 0;
  for (uint64_t id = 0; id < load.count; ++id) {
    const bool same = got.texts.at(id) == want.texts.at(id);
    different += same && got.logprobs.at(id) == want.logprobs.at(id) ? 0 : 1;
  }
  EXPECT_EQ(different, 0U) << name << ": of " << load.count << " requests differ, K " << load.drafts
                           << ", batch " << load.batch;
  std::printf("%s: %zu requests, K %d, batch %zu: %s, length %.2f\n", name.c_str(), load.count,
              load.drafts, load.batch, different == 0 ? "identical" : "DIFFERENT",
              got.acceptance.mean_acceptance_length());
  std::fflush(stdout);
}

struct Counts {
  size_t all = 48;    // 32 at once
  size_t eight = 24;  // 8 at once
  size_t alone = 6;   // one by one
  size_t longest = 500;
  int64_t max_tokens = 40;
};

// K = 0 to 8, one, 8 and 32 requests at once, against plain decoding of one at a time by a runtime
// that has no assistant.
void hold_against_plain(const RandomSetup& setup, const Counts& counts, bool logprobs) {
  const auto requests =
      make_requests(counts.all, setup, counts.longest, counts.max_tokens, logprobs);
  Outcome plain;
  {
    RandomSetup alone = setup;
    alone.assistant = false;
    const auto runtime = open_runtime(alone);
    ASSERT_NE(runtime, nullptr);
    plain = tests::decode(runtime->engine(), requests, {.count = counts.all});
  }
  const auto runtime = open_runtime(setup);
  ASSERT_NE(runtime, nullptr);
  double best = 0;
  for (const Load& most :
       {Load{.batch = 32, .count = counts.all}, Load{.batch = 8, .count = counts.eight},
        Load{.batch = 1, .count = counts.alone}})
    for (int drafts = 0; drafts <= speculation::kMaxDraftTokens; ++drafts) {
      Load load = most;
      load.drafts = drafts;
      const Outcome got = tests::decode(runtime->engine(), requests, load);
      expect_same(got, plain, load, setup.name);
      best = std::max(best, got.acceptance.mean_acceptance_length());
    }
  // Otherwise nothing was shown of accepted drafts.
  if (setup.vocab_size < kAllIds) {
    EXPECT_GT(best, 1.1);
  }
}

class RandomPair : public testing::TestWithParam<bool> {
 protected:
  RandomSetup setup_{.name = GetParam() ? "random_e4m3" : "random_bf16", .e4m3_cache = GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Caches, RandomPair, testing::Bool(),
                         [](const auto& info) { return info.param ? "e4m3" : "bf16"; });

TEST_P(RandomPair, TextDoesNotDependOnDraftsOrCompany) {
  hold_against_plain(setup_, {}, false);
}

TEST_P(RandomPair, LogProbabilitiesDoNotDependOnDraftsOrCompany) {
  hold_against_plain(setup_, {}, true);
}

TEST_P(RandomPair, TextDoesNotDependOnChunksOrGraphs) {
  const Counts counts;
  const auto requests = make_requests(counts.all, setup_, 1500, 24, true);
  Outcome plain;
  for (const int64_t chunk : {2048, 300, 64, 7}) {
    RandomSetup chunked = setup_;
    chunked.max_chunk_tokens = chunk;
    chunked.graphs = chunk != 64;
    const auto runtime = open_runtime(chunked);
    ASSERT_NE(runtime, nullptr);
    const Load load{.drafts = chunk == 2048 ? 0 : 4, .batch = 32, .count = counts.all};
    const Outcome got = tests::decode(runtime->engine(), requests, load);
    if (chunk == 2048) plain = got;
    expect_same(got, plain, load, setup_.name + ", chunks of " + std::to_string(chunk));
  }
}

// Up to where the texts part.
TEST_P(RandomPair, LogProbabilitiesAreThoseOfTheCpu) {
  const size_t count = 12;
  setup_.vocab_size = 4096;
  const auto requests = make_requests(count, setup_, 300, 8, true);
  const auto outcome = [&](bool on_gpu) {
    RandomSetup there = setup_;
    there.on_gpu = on_gpu;
    const auto runtime = open_runtime(there);
    return runtime ? tests::decode(runtime->engine(), requests,
                                   {.drafts = 2, .batch = 4, .count = count})
                   : Outcome{};
  };
  const Outcome gpu = outcome(true);
  const Outcome cpu = outcome(false);
  int compared = 0;
  double sum = 0;
  for (const auto& [id, text] : cpu.texts)
    for (size_t i = 0; i < text.size(); ++i, ++compared) {
      sum += std::abs(static_cast<double>(cpu.logprobs.at(id)[i]) -
                      static_cast<double>(gpu.logprobs.at(id)[i]));
      if (gpu.texts.at(id)[i] != text[i]) break;
    }
  std::printf("%d log-probabilities, mean difference %.4f\n", compared, sum / compared);
  EXPECT_GT(compared, 30);
  EXPECT_LT(sum / compared, 0.01);
}

// The 12B pair itself but for the values of its weights; of so many ids no draft is accepted.
TEST(WholeRandomPair, TextOfAllLayersDoesNotDependOnDraftsOrCompany) {
  if (std::getenv("TANDEM_LONG") == nullptr) GTEST_SKIP() << "only with TANDEM_LONG=1";
  hold_against_plain({.name = "whole",
                      .num_layers = kAllLayers,
                      .vocab_size = kAllIds,
                      .window = 1024,
                      .draws = false},
                     {.all = 48, .eight = 16, .alone = 2, .longest = 1300, .max_tokens = 64},
                     false);
}

}  // namespace
}  // namespace tandem
