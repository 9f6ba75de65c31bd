#include "bench/serve_result.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tandem::bench {
namespace {

RequestOutcome answered(double start, double ttft, std::vector<double> gaps, int64_t tokens) {
  RequestOutcome outcome;
  outcome.status = 200;
  outcome.success = true;
  outcome.start = start;
  outcome.ttft = ttft;
  outcome.part_times = {start + ttft};
  for (const double gap : gaps) outcome.part_times.push_back(outcome.part_times.back() + gap);
  outcome.latency = outcome.part_times.back() - start;
  outcome.num_prompt_tokens = 10;
  outcome.num_output_tokens = tokens;
  return outcome;
}

ServeRun two_answers_and_a_refusal() {
  ServeRun run;
  run.model = "pair";
  run.prompts.resize(3);
  run.seconds = 4;
  run.outcomes.push_back(answered(0, 0.1, {0.2, 0.3}, 5));
  run.outcomes.push_back(answered(0.5, 0.3, {0.4}, 3));
  RequestOutcome refused;
  refused.status = 429;
  refused.error = "the queue is full";
  refused.start = 0.6;
  refused.latency = 0.004;
  run.outcomes.push_back(refused);
  return run;
}

TEST(ServeResultTest, FiguresFollowFromTheTimes) {
  const auto json =
      serve_result({}, two_answers_and_a_refusal(), {.percentiles = {99}, .goodput = {}});
  EXPECT_EQ(json["completed"], 2);
  EXPECT_EQ(json["failed"], 1);
  EXPECT_EQ(json["statuses"]["429"], 1);
  EXPECT_NEAR(json["p99_refusal_ms"].get<double>(), 4, 1e-9);
  EXPECT_EQ(json["total_output_tokens"], 8);
  EXPECT_NEAR(json["output_throughput"].get<double>(), 2, 1e-9);
  EXPECT_NEAR(json["total_token_throughput"].get<double>(), 7, 1e-9);
  EXPECT_NEAR(json["mean_ttft_ms"].get<double>(), 200, 1e-9);
  // (0.5 / 4 + 0.4 / 2) / 2 seconds
  EXPECT_NEAR(json["mean_tpot_ms"].get<double>(), 162.5, 1e-9);
  EXPECT_NEAR(json["median_itl_ms"].get<double>(), 300, 1e-9);
  EXPECT_NEAR(json["p99_e2el_ms"].get<double>(), 600 + 0.99 * 100, 1e-6);
  EXPECT_EQ(json["max_concurrent_requests"], 3);
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_TRUE(json["max_concurrency"].is_null());
  EXPECT_EQ(json["errors"]["429 the queue is full"], 1);
  EXPECT_FALSE(json.contains("spec_decode_num_drafts"));
  EXPECT_FALSE(json.contains("interrupted"));
  EXPECT_FALSE(json.contains("requests"));
}

TEST(ServeResultTest, GoodputCountsWhatKeepsToTheLimits) {
  const auto json = serve_result({}, two_answers_and_a_refusal(),
                                 {.percentiles = {}, .goodput = {{"ttft", 150}, {"tpot", 130}}});
  EXPECT_NEAR(json["request_goodput"].get<double>(), 0.25, 1e-9);
}

TEST(ServeResultTest, AcceptanceIsThatOfTheRunAlone) {
  ServeRun run = two_answers_and_a_refusal();
  run.before = {.present = true,
                .num_drafts = 100,
                .num_draft_tokens = 400,
                .num_accepted_tokens = 50,
                .accepted_per_position = {50}};
  run.after = {.present = true,
               .num_drafts = 110,
               .num_draft_tokens = 440,
               .num_accepted_tokens = 70,
               .accepted_per_position = {59, 11}};
  auto json = serve_result({}, run, {});
  EXPECT_NEAR(json["spec_decode_acceptance_length"].get<double>(), 3, 1e-9);
  EXPECT_NEAR(json["spec_decode_acceptance_rate"].get<double>(), 50, 1e-9);
  EXPECT_NEAR(json["spec_decode_per_position_acceptance_rates"][0].get<double>(), 0.9, 1e-9);
  EXPECT_NEAR(json["spec_decode_per_position_acceptance_rates"][1].get<double>(), 1.1, 1e-9);
  EXPECT_FALSE(json.contains("acceptance"));
  EXPECT_EQ(serve_table(json).find("synthetic"), std::string::npos);
  run.after.synthetic = true;
  json = serve_result({}, run, {});
  EXPECT_EQ(json["acceptance"], "synthetic");
  EXPECT_NE(serve_table(json).find("synthetic"), std::string::npos);
}

TEST(ServeResultTest, ARunWithoutAnswersHasNoNumbersThatAreNoNumbers) {
  ServeRun run;
  run.prompts.resize(1);
  run.seconds = 0.5;
  const auto json = serve_result({}, run, {});
  EXPECT_EQ(json["mean_ttft_ms"], 0);
  EXPECT_NE(serve_table(json).find("Successful requests:                     0"),
            std::string::npos);
}

}  // namespace
}  // namespace tandem::bench
