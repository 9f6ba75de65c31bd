// Prompts in kernels of their own: an FP8 pair through the engine, its prompts cut in every way.
// The demo pair in FP8, with scales of keys and values, lies where TANDEM_FP8_DEMO says
// (tools/device/test.sh makes it); random weights have the head sizes of the 12B. Run from the root
// of the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>

#include "tests/gpu/pair/outcome.h"
#include "tests/gpu/pair/random_pair.h"

namespace tandem {
namespace {

using engine::EngineRequest;
using tests::expect_same_text;
using tests::Outcome;
using tests::run_requests;

struct PairSetup {
  std::string target;
  std::string assistant;  // empty: none
  std::string overrides;  // of config.json: then weights are random
  model::KvCacheDtype kv_cache_dtype = model::KvCacheDtype::kBFloat16;
  bool on_gpu = true;
  int num_draft_tokens = 0;
  int64_t max_num_seqs = 1;
  int64_t max_chunk_tokens = 2048;
  int64_t max_num_batched_tokens = 2048;
  int64_t kv_bytes = int64_t{1} << 30;
  int64_t max_model_len = 1024;
};

Outcome run(const PairSetup& setup, std::vector<EngineRequest> requests) {
  engine::RuntimeOptions options;
  options.pair.target = setup.target;
  if (!setup.assistant.empty()) options.pair.assistant = setup.assistant;
  options.pair.load.hf_overrides = setup.overrides;
  options.pair.load.dummy = !setup.overrides.empty();
  options.pair.check_values = false;
  options.kv_cache_dtype = setup.kv_cache_dtype;
  options.on_gpu = setup.on_gpu;
  options.num_draft_tokens = setup.num_draft_tokens;
  options.max_num_seqs = setup.max_num_seqs;
  options.max_chunk_tokens = setup.max_chunk_tokens;
  options.max_num_batched_tokens = setup.max_num_batched_tokens;
  options.max_model_len = setup.max_model_len;
  options.kv_bytes = setup.kv_bytes;
  options.prefix_caching = false;
  return run_requests(std::move(options), std::move(requests));
}

// Prompts of 1 to 700 tokens: shorter and longer than tiles, windows and passes of 64.
std::vector<EngineRequest> requests(uint64_t count, size_t longest = 700, int64_t max_tokens = 24) {
  std::vector<EngineRequest> made;
  for (uint64_t id = 0; id < count; ++id) {
    EngineRequest request;
    request.id = id;
    const size_t length = 1 + (id * id * 53 + id * 29) % longest;
    request.prompt_ids = {2};
    for (size_t i = 1; i < length; ++i)
      request.prompt_ids.push_back(
          static_cast<int32_t>(300 + (id * 131 + i * i * 17 + i * 29) % 3500));
    request.sampling.temperature = 0.0;
    request.sampling.ignore_eos = true;
    request.max_tokens = max_tokens;
    made.push_back(std::move(request));
  }
  return made;
}

void expect_text_is_the_same(const PairSetup& plain, const std::vector<EngineRequest>& all) {
  const Outcome want = run(plain, all);
  for (const int64_t chunk : {1, 7, 64, 100, 300}) {
    PairSetup setup = plain;
    setup.max_chunk_tokens = chunk;
    setup.max_num_seqs = chunk == 1 ? 16 : 4;
    setup.num_draft_tokens = plain.assistant.empty() ? 0 : 3;
    expect_same_text(run(setup, all), want, "chunks of " + std::to_string(chunk));
  }
  for (const int64_t seqs : {2, 8, 32}) {
    PairSetup setup = plain;
    setup.max_num_seqs = seqs;
    setup.num_draft_tokens = plain.assistant.empty() ? 0 : 4;
    setup.max_num_batched_tokens = seqs == 8 ? 333 : 2048;
    expect_same_text(run(setup, all), want, "batch " + std::to_string(seqs));
  }
}

// Over a KV cache of BF16 and of E4M3.
class WidePair : public testing::TestWithParam<model::KvCacheDtype> {
 protected:
  void SetUp() override {
    const char* const folder = std::getenv("TANDEM_FP8_DEMO");
    if (folder == nullptr) GTEST_SKIP() << "TANDEM_FP8_DEMO names no folder";
    setup_.target = std::string(folder) + "/target";
    setup_.assistant = std::string(folder) + "/assistant";
    setup_.kv_cache_dtype = GetParam();
  }
  PairSetup setup_;
};
INSTANTIATE_TEST_SUITE_P(Caches, WidePair,
                         testing::Values(model::KvCacheDtype::kBFloat16, model::KvCacheDtype::kFp8),
                         [](const auto& info) {
                           return info.param == model::KvCacheDtype::kFp8 ? "e4m3" : "bf16";
                         });

TEST_P(WidePair, TextDoesNotDependOnChunksDraftsOrCompany) {
  expect_text_is_the_same(setup_, requests(24));
}

// Sequences that are computed again: prompts in one kind of kernel, what was said in the other.
TEST_P(WidePair, TextDoesNotDependOnPreemption) {
  const auto all = requests(16, 200, 150);
  const Outcome want = run(setup_, all);
  PairSetup tight = setup_;
  tight.max_num_seqs = 8;
  tight.max_model_len = 512;
  tight.num_draft_tokens = 2;
  // Rings and states of eight, and pages for about half of what they grow to.
  tight.kv_bytes = (GetParam() == model::KvCacheDtype::kFp8 ? 1450 : 2900) << 10;
  const Outcome got = run(tight, all);
  EXPECT_GE(got.num_preemptions, 3);
  expect_same_text(got, want, "preempted");
}

// E4M3 rounds to 4 bits, so sums that differ by their order or by 2^-12 of a term now and then end
// a step of 6 to 12 % apart. Of these prompts, which are nonsense with steep distributions, the CPU
// and its own reference differ by 0.145 in the mean and 0.72 at most; BF16 and FP8 by 0.24, and so
// do GPU and CPU over a cache of E4M3. A wrong scale, norm or key moves the mean by whole numbers.
constexpr double kMeanDifference = 0.3;

// |a - b| in the mean over all values that both have.
double mean_difference(const std::map<uint64_t, std::vector<float>>& a,
                       const std::map<uint64_t, std::vector<float>>& b, int least) {
  double sum = 0;
  int count = 0;
  for (const auto& [id, values] : a)
    for (size_t i = 0; i < std::min(values.size(), b.at(id).size()); ++i, ++count)
      sum += std::abs(double{values[i]} - double{b.at(id)[i]});
  EXPECT_GE(count, least);
  std::printf("%d log-probabilities, mean difference %.4f\n", count, sum / count);
  return sum / count;
}

// Up to where the texts part: what generated rows see of what prompts' rows left.
TEST_P(WidePair, LogProbabilitiesAreThoseOfTheCpu) {
  auto all = requests(24, 300, 8);
  for (EngineRequest& request : all) request.sampling.num_logprobs = 0;
  setup_.assistant.clear();
  Outcome gpu = run(setup_, all);
  setup_.on_gpu = false;
  const Outcome cpu = run(setup_, all);
  for (const auto& [id, text] : cpu.texts) {
    const std::vector<int32_t>& other = gpu.texts.at(id);
    size_t same = 0;
    while (same < text.size() && same < other.size() && text[same] == other[same]) ++same;
    gpu.logprobs.at(id).resize(std::min(other.size(), same + 1));
  }
  EXPECT_LT(mean_difference(gpu.logprobs, cpu.logprobs, 80), kMeanDifference);
}

// Every row of a prompt: against the CPU, and bit for bit between chunks.
TEST_P(WidePair, PromptLogProbabilities) {
  auto all = requests(6, 300, 1);
  for (EngineRequest& request : all) request.sampling.num_prompt_logprobs = 0;
  setup_.assistant.clear();
  const Outcome whole = run(setup_, all);
  PairSetup chunked = setup_;
  chunked.max_chunk_tokens = 37;
  chunked.max_num_seqs = 3;
  EXPECT_EQ(run(chunked, all).prompt_logprobs, whole.prompt_logprobs);
  setup_.on_gpu = false;
  const Outcome cpu = run(setup_, all);
  EXPECT_LT(mean_difference(whole.prompt_logprobs, cpu.prompt_logprobs, 900), kMeanDifference);
}

// The 12B's heads, 16 of 256 over 8 and 16 of 512 over 1, in six small layers with a window of 96.
TEST(WideRandomPair, TextOfTheTwelveBsHeadsDoesNotDependOnChunksOrCompany) {
  PairSetup setup;
  setup.target = "bench/configs/gemma-4-12B-it-fp8";
  setup.overrides =
      R"({"text_config": {"num_hidden_layers": 6, "hidden_size": 256, "intermediate_size": 960,
          "sliding_window": 96, "layer_types": ["sliding_attention",
          "sliding_attention", "sliding_attention", "sliding_attention", "sliding_attention",
          "full_attention"]}})";
  expect_text_is_the_same(setup, requests(16));
  setup.target = tests::copy_config("gemma-4-12B-it-fp8", "config_with_e4m3_cache");
  tests::ask_for_e4m3_cache(setup.target);
  setup.kv_cache_dtype = model::KvCacheDtype::kAuto;
  expect_text_is_the_same(setup, requests(16));
}

}  // namespace
}  // namespace tandem
