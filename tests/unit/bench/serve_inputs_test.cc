// What bench serve sends and when, and what it reads of /metrics.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "bench/serve_bench.h"
#include "bench/statistics.h"
#include "tests/support/temp_folder.h"

namespace tandem::bench {
namespace {

std::vector<double> gaps(const std::vector<double>& times) {
  std::vector<double> result;
  for (size_t i = 1; i < times.size(); ++i) result.push_back(times[i] - times[i - 1]);
  return result;
}

TEST(ArrivalTest, TheMeanRateIsTheOneAskedFor) {
  const auto times = arrival_times(1000, 20, 1, 3);
  ASSERT_EQ(times.size(), 1000U);
  EXPECT_NEAR(times.back(), 50, 1e-9);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
}

// Gaps of a gamma distribution of shape b deviate by 1 / sqrt(b) of their mean.
TEST(ArrivalTest, BurstinessIsTheShapeOfTheGaps) {
  for (const double burstiness : {0.25, 1.0, 4.0, 100.0}) {
    const auto between = gaps(arrival_times(20'000, 10, burstiness, 7));
    EXPECT_NEAR(mean(between), 0.1, 0.002);
    EXPECT_NEAR(standard_deviation(between) / mean(between), 1 / std::sqrt(burstiness),
                0.05 / std::sqrt(burstiness))
        << burstiness;
  }
}

TEST(ArrivalTest, WithoutARateAllAreThereAtOnce) {
  EXPECT_EQ(arrival_times(3, 0, 1, 0), (std::vector<double>{0, 0, 0}));
}

TEST(ArrivalTest, ASeedIsAPlan) {
  EXPECT_EQ(arrival_times(50, 5, 1, 1), arrival_times(50, 5, 1, 1));
  EXPECT_NE(arrival_times(50, 5, 1, 1), arrival_times(50, 5, 1, 2));
}

TEST(RandomPromptsTest, LengthsAndIdsStayInRange) {
  const std::vector<int32_t> excluded = {3, 4};
  const auto prompts =
      random_prompts(200, {.input_len = 100, .output_len = 10, .range_ratio = 0.3}, 8, excluded, 1);
  ASSERT_EQ(prompts.size(), 200U);
  size_t shortest = 1000, longest = 0;
  for (const RandomPrompt& prompt : prompts) {
    shortest = std::min(shortest, prompt.ids.size());
    longest = std::max(longest, prompt.ids.size());
    EXPECT_GE(prompt.output_len, 7);
    EXPECT_LE(prompt.output_len, 13);
    for (const int32_t id : prompt.ids) EXPECT_TRUE(id >= 0 && id < 8 && id != 3 && id != 4) << id;
  }
  EXPECT_GE(shortest, 70U);
  EXPECT_LE(longest, 130U);
  EXPECT_LT(shortest, 80U);
  EXPECT_GT(longest, 120U);
}

TEST(RandomPromptsTest, APrefixBeginsEveryPrompt) {
  const auto prompts = random_prompts(2, {.input_len = 5, .prefix_len = 4}, 1000, {}, 1);
  ASSERT_EQ(prompts[0].ids.size(), 9U);
  EXPECT_TRUE(
      std::equal(prompts[0].ids.begin(), prompts[0].ids.begin() + 4, prompts[1].ids.begin()));
  EXPECT_NE(prompts[0].ids, prompts[1].ids);
}

TEST(CountersTest, SumsSeriesAndKnowsWhatIsSynthetic) {
  const ServerCounters counters = parse_counters(
      "# HELP vllm:spec_decode_num_drafts_total Rounds.\n"
      "vllm:spec_decode_num_drafts_total{model_name=\"a\",engine=\"0\"} 10\n"
      "vllm:spec_decode_num_drafts_total{model_name=\"a\",engine=\"1\"} 5\n"
      "vllm:spec_decode_num_draft_tokens_total{model_name=\"a b\"} 60\n"
      "vllm:spec_decode_num_accepted_tokens_total{model_name=\"a\"} 2.4e1\n"
      "vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name=\"a\",position=\"1\"} 9\n"
      "vllm:spec_decode_num_accepted_tokens_per_pos_total{model_name=\"a\",position=\"0\"} 15\n"
      "tandem:run_info{weights=\"dummy\",acceptance=\"synthetic\"} 1\n");
  EXPECT_TRUE(counters.present);
  EXPECT_EQ(counters.num_drafts, 15);
  EXPECT_EQ(counters.num_draft_tokens, 60);
  EXPECT_EQ(counters.num_accepted_tokens, 24);
  EXPECT_EQ(counters.accepted_per_position, (std::vector<double>{15, 9}));
  EXPECT_TRUE(counters.synthetic);
  EXPECT_TRUE(counters.dummy);
  EXPECT_FALSE(parse_counters("").present);
  EXPECT_FALSE(parse_counters("<html>no metrics</html>\n").present);
}

class PromptFileTest : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    const auto path = folder_ / "prompts.jsonl";
    std::ofstream(path) << text;
    return path.string();
  }
  test_support::TempFolder folder_;
};

TEST_F(PromptFileTest, PromptsAndMessages) {
  const std::string path = write(
      "{\"prompt\": \"one\\n\"}\n\n{\"messages\": [{\"role\": \"user\"}], \"output_tokens\": 7}\n");
  const auto chat = read_serve_prompts(path, true, 10, 99);
  ASSERT_TRUE(chat);
  ASSERT_EQ(chat->size(), 2U);
  EXPECT_EQ((*chat)[0].field, "messages");
  EXPECT_EQ((*chat)[0].json, R"([{"content":"one\n","role":"user"}])");
  EXPECT_EQ((*chat)[0].output_len, 99);
  EXPECT_EQ((*chat)[1].json, R"([{"role":"user"}])");
  EXPECT_EQ((*chat)[1].output_len, 7);
  EXPECT_EQ(read_serve_prompts(path, true, 1, 99)->size(), 1U);
}

TEST_F(PromptFileTest, RefusalsNameTheLine) {
  const auto message = [&](const std::string& text) {
    const auto prompts = read_serve_prompts(write(text), false, 10, 9);
    return prompts ? std::string("accepted") : prompts.error().message;
  };
  EXPECT_NE(message("{\"prompt\": \"x\"}\n{\"messages\": []}").find("line 2: expected \"prompt\""),
            std::string::npos);
  EXPECT_NE(message("[1]").find("line 1"), std::string::npos);
  EXPECT_NE(message("{\"prompt\": \"x\", \"output_tokens\": 0}").find("output_tokens"),
            std::string::npos);
  EXPECT_NE(message("\n \n").find("got none"), std::string::npos);
}

TEST(ServeOptionsTest, RefusesWhatCannotBeDone) {
  ServeBenchOptions options;
  EXPECT_TRUE(check_serve_options(options));
  options.burstiness = 0;
  EXPECT_FALSE(check_serve_options(options));
  options = {};
  options.abort_rate = 1.5;
  EXPECT_FALSE(check_serve_options(options));
  options = {};
  options.duration_seconds = 5;
  EXPECT_FALSE(check_serve_options(options)) << "everything at once, for ever";
  options.max_concurrency = 2;
  EXPECT_TRUE(check_serve_options(options));
  options.max_token_id = options.min_token_id;
  EXPECT_FALSE(check_serve_options(options));
}

}  // namespace
}  // namespace tandem::bench
