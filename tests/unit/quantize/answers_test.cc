// The answers that calibration and evaluation look at.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quantize/calibration.h"
#include "quantize/eval_acceptance.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::quantize {
namespace {

using test_support::read_bytes;
using test_support::TempFolder;
using test_support::TinyPair;
using test_support::write_bytes;
using test_support::write_tiny_pair;

const std::vector<std::vector<int32_t>> kPrompts = {{2, 5, 9, 40, 13}, {2, 77, 31}};

sampling::SamplingParams sampling_where_do_sample_is(const char* value) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  write_bytes(tiny.target / "generation_config.json",
              fmt::format(R"({{"do_sample": {}, "temperature": 0.7, "top_k": 5, "top_p": 0.9,
                               "min_p": 0.05, "repetition_penalty": 1.25}})",
                          value));
  const auto target = io::Checkpoint::open(tiny.target);
  EXPECT_TRUE(target) << target.error().message;
  return target ? default_sampling(*target) : sampling::SamplingParams();
}

TEST(Answers, AreSampledAsTheGenerationConfigSays) {
  const sampling::SamplingParams params = sampling_where_do_sample_is("true");
  EXPECT_EQ(params.temperature, 0.7);
  EXPECT_EQ(params.top_k, 5);
  EXPECT_EQ(params.top_p, 0.9);
  EXPECT_EQ(params.min_p, 0.05);
  EXPECT_EQ(params.repetition_penalty, 1.25);
}

// Served so, an answer has the penalty too, and the other bounds where a temperature is asked for.
TEST(Answers, WithoutSamplingTheRestOfTheGenerationConfigHolds) {
  const sampling::SamplingParams params = sampling_where_do_sample_is("false");
  EXPECT_EQ(params.temperature, 0.0);
  EXPECT_EQ(params.repetition_penalty, 1.25);
  EXPECT_EQ(params.top_k, 5);
  EXPECT_EQ(params.top_p, 0.9);
  EXPECT_EQ(params.min_p, 0.05);
}

// As where it is served: calibration and evaluation see the texts that users will.
TEST(Answers, NoneHoldsThePlaceOfAnImage) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  const ops::Context context{ops::Backend::kCpu, nullptr};
  const std::vector<EvalPrompt> prompts = {{"", kPrompts[0], {}}, {"", kPrompts[1], {}}};
  CalibrationOptions greedy;
  greedy.sampling.temperature = 0;
  greedy.max_new_tokens = 12;
  const auto answers = [&] {
    model::PairOptions options;
    options.target = tiny.target;
    options.assistant = tiny.assistant;
    auto pair = model::load_pair(options);
    EXPECT_TRUE(pair) << pair.error().message;
    EvalPair eval;
    eval.pair = &*pair;
    eval.num_draft_tokens = 2;
    auto answered = answer_prompts(context, eval, prompts, 12, nullptr, "", {});
    auto run = calibrate(context, *pair, kPrompts, greedy, nullptr, nullptr, {});
    EXPECT_TRUE(answered && run);
    std::vector<std::vector<int32_t>> all = answered->answers;
    for (size_t i = 0; i < kPrompts.size(); ++i)
      all.emplace_back(run->texts[i].begin() + run->prompt_lens[i], run->texts[i].end());
    return all;
  };
  const int32_t image = answers().front().front();
  nlohmann::json config = nlohmann::json::parse(read_bytes(tiny.target / "config.json"));
  config["image_token_id"] = image;
  write_bytes(tiny.target / "config.json", config.dump());
  for (const std::vector<int32_t>& answer : answers()) {
    EXPECT_FALSE(answer.empty());
    EXPECT_EQ(std::ranges::count(answer, image), 0);
  }
}

}  // namespace
}  // namespace tandem::quantize
