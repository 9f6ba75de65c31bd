// What needs no GPU of the benchmarks that run on one: shapes, flags, tables.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/gpu_bench.h"
#include "bench/gpu_step.h"
#include "bench/step_bench.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/bench/tiny_options.h"

namespace tandem::bench {
namespace {

std::vector<LinearShape> shapes_of(const std::string& name) {
  const std::string dir = std::string(TANDEM_SOURCE_DIR) + "/bench/configs/" + name;
  const auto config = io::read_model_config(dir);
  const auto quantization = io::read_quantization_config(dir);
  if (!config || !quantization) return {};
  return linear_shapes(*config, *quantization);
}

int64_t num_weights(const std::vector<LinearShape>& shapes) {
  int64_t count = 0;
  for (const LinearShape& shape : shapes) count += shape.num_in_model * shape.in * shape.out();
  return count;
}

TEST(GpuBenchTest, TheThirtyOneBillionPair) {
  const auto target = shapes_of("gemma-4-31B-it-fp8");
  ASSERT_EQ(target.size(), 7U);
  EXPECT_EQ(target[0].out(), 32 * 256 + 2 * 16 * 256);
  EXPECT_EQ(target[0].num_in_model, 50);
  EXPECT_EQ(target[4].name, "full qk");
  EXPECT_EQ(target[4].out(), 32 * 512 + 4 * 512);
  EXPECT_EQ(target[2].weight_bytes(), int64_t{5376} * 2 * 21504);
  // The model's name, and the published 469.5 million of its assistant.
  EXPECT_NEAR(static_cast<double>(num_weights(target)), 31e9, 1e9);
  EXPECT_NEAR(static_cast<double>(num_weights(shapes_of("gemma-4-31B-it-assistant-fp8"))), 469.5e6,
              0.1e6);
}

TEST(GpuBenchTest, LoadsAreSequencesTimesTokens) {
  const auto load = parse_step_load("8x2048");
  ASSERT_TRUE(load);
  EXPECT_EQ(load->batch, 8);
  EXPECT_EQ(load->context, 2048);
  for (const char* text : {"", "8", "x8", "8x", "0x5", "5x0", "-1x5", "8x2048x", "8 x 5", "8x2e3",
                           "99999999999999999999x1"})
    EXPECT_FALSE(parse_step_load(text)) << text;
}

TEST(GpuBenchTest, LengthsOfFewerDraftsAreShorter) {
  StepSetup setup;
  EXPECT_FALSE(expected_length(setup, 2).has_value());
  setup.synthetic = *speculation::SyntheticAcceptance::from_rates({0.5, 0.25, 0.125});
  EXPECT_EQ(expected_length(setup, 0), 1.0);
  EXPECT_EQ(expected_length(setup, 2), 1.75);
  EXPECT_EQ(expected_length(setup, 8), 1.875);
}

// The same through an engine on the CPU: rounds are counted when every sequence decodes, and only
// whole ones.
TEST(GpuBenchTest, RoundsOfALoadGiveWhatIsAccepted) {
  const test_support::TempFolder folder;
  engine::RuntimeOptions options = tiny_options(folder.path());
  options.max_num_seqs = 3;
  options.max_model_len = 20 + kGpuStepRoom;
  const auto runtime = engine::Runtime::open(std::move(options));
  ASSERT_TRUE(runtime) << runtime.error().message;
  GpuStep step(**runtime, {});
  const Timing timing{.min_calls = 9, .min_seconds = 0};
  for (const int k : {0, 1, 2}) {
    const auto rounds = step.run_rounds(timing, {3, 20}, k);
    EXPECT_EQ(rounds.seconds.size(), 9U);
    EXPECT_EQ(rounds.counts.num_tokens, 9 * 3 * (k == 0 ? 1 : 2)) << k;
    EXPECT_GT(rounds.prefill_seconds, 0);
    EXPECT_FALSE((*runtime)->engine().has_work());
  }
  // A load that ends before the time is up gives the rounds that were.
  const auto all = step.run_rounds({.min_calls = 5000, .min_seconds = 0}, {1, 20}, 0);
  EXPECT_EQ(all.seconds.size(), static_cast<size_t>(kGpuStepRoom - 1 - 5 - 1));
}

// What was not measured is a dash, never a zero.
TEST(GpuBenchTest, AMissingPeerIsSaid) {
  nlohmann::ordered_json result = {{"read_gb_per_s", 4500.0},
                                   {"peer", "absent: not installed"},
                                   {"ops", nlohmann::ordered_json::array()},
                                   {"prompt_ops", nlohmann::ordered_json::array()},
                                   {"chains", nlohmann::ordered_json::array()},
                                   {"kernels", nlohmann::ordered_json::array()}};
  result["ops"].push_back({{"name", "gate_up"},
                           {"in", 3840},
                           {"out", 30720},
                           {"format", "fp8"},
                           {"rows", 5},
                           {"us", 29.3},
                           {"us_dependent", 28.1},
                           {"gb_per_s", 4026.0},
                           {"share_of_read", 0.89}});
  std::string text = gpu_ops_table(result);
  EXPECT_NE(text.find("absent: not installed"), std::string::npos);
  EXPECT_NE(text.find("89 %            -           -\n"), std::string::npos) << text;
  result["ops"][0]["cublaslt_us"] = 31.6;
  result["ops"][0]["times_cublaslt"] = 31.6 / 29.3;
  text = gpu_ops_table(result);
  EXPECT_NE(text.find("31.6        1.08\n"), std::string::npos) << text;
}

}  // namespace
}  // namespace tandem::bench
