// The figures of bench latency and throughput, through an engine on the CPU.
#include "bench/engine_bench.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/temp_folder.h"
#include "tests/unit/bench/tiny_options.h"

namespace tandem::bench {
namespace {

class EngineBenchTest : public testing::Test {
 protected:
  void SetUp() override {
    engine::RuntimeOptions options = tiny_options(folder_.path());
    options.max_num_seqs = 2;
    options.max_model_len = 64;
    auto runtime = engine::Runtime::open(std::move(options));
    ASSERT_TRUE(runtime) << runtime.error().message;
    runtime_ = std::move(*runtime);
  }

  test_support::TempFolder folder_;
  std::unique_ptr<engine::Runtime> runtime_;
};

// Of eight requests two run at once: what the first six answered came before the last one began.
TEST_F(EngineBenchTest, TokensBeforeTheLastFirstTokenAreNotOfTheDecodingBehindIt) {
  const RandomLengths lengths{.input_len = 4, .output_len = 13};
  const auto prompts = random_prompts(8, lengths, runtime_->engine().options().vocab_size, {}, 0);
  const auto run = run_engine(runtime_->engine(), prompts, [] { return false; });
  ASSERT_TRUE(run) << run.error().message;
  EXPECT_EQ(run->num_output_tokens, 8 * 13);
  EXPECT_GE(run->num_begun_tokens, 6 * 13 + 2);
  EXPECT_LT(run->num_begun_tokens, 8 * 13);
}

TEST_F(EngineBenchTest, AcceptanceIsThatOfTheRunThatCounts) {
  LatencyOptions options;
  options.batch_size = 1;
  options.num_iters_warmup = 3;
  options.num_iters = 1;
  options.lengths = {.input_len = 4, .output_len = 13};
  const auto json = run_latency(runtime_->engine(), options, {}, [] { return false; });
  ASSERT_TRUE(json) << json.error().message;
  // The prompt's step gives one token, six rounds of two give the others.
  EXPECT_EQ((*json)["steps"], 7);
  EXPECT_EQ((*json)["speculation"]["num_drafts"], 6);
  EXPECT_EQ((*json)["speculation"]["num_accepted_tokens"], 6);
}

}  // namespace
}  // namespace tandem::bench
