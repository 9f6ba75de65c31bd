#include "sampling/params.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "base/repetition_limits.h"

namespace tandem::sampling {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

struct BadCase {
  std::string field;  // what the message must name
  std::function<void(SamplingParams&)> spoil;
};

TEST(SamplingParams, RefusesByName) {
  const std::vector<BadCase> cases = {
      {"temperature", [](SamplingParams& p) { p.temperature = -0.1; }},
      {"temperature", [](SamplingParams& p) { p.temperature = kNan; }},
      {"temperature", [](SamplingParams& p) { p.temperature = kInf; }},
      {"top_k", [](SamplingParams& p) { p.top_k = -2; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 0; }},
      {"top_p", [](SamplingParams& p) { p.top_p = 1.01; }},
      {"top_p", [](SamplingParams& p) { p.top_p = kNan; }},
      {"min_p", [](SamplingParams& p) { p.min_p = -0.5; }},
      {"min_p", [](SamplingParams& p) { p.min_p = 1.5; }},
      {"presence_penalty", [](SamplingParams& p) { p.presence_penalty = 2.1; }},
      {"frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = -2.1; }},
      {"frequency_penalty", [](SamplingParams& p) { p.frequency_penalty = kNan; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 0; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = kInf; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 1e-300; }},
      {"repetition_penalty", [](SamplingParams& p) { p.repetition_penalty = 1e300; }},
      {"logit_bias", [](SamplingParams& p) { p.logit_bias = {{100, 1.0F}}; }},
      {"logit_bias", [](SamplingParams& p) { p.logit_bias = {{-1, 1.0F}}; }},
      {"logit_bias", [](SamplingParams& p) { p.logit_bias = {{1, 101.0F}}; }},
      {"banned_token_ids", [](SamplingParams& p) { p.banned_token_ids = {100}; }},
      {"allowed_token_ids", [](SamplingParams& p) { p.allowed_token_ids = {-3}; }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids = {5, 1000}; }},
      {"min_tokens", [](SamplingParams& p) { p.min_tokens = -1; }},
      {"logprobs", [](SamplingParams& p) { p.num_logprobs = 21; }},
      {"logprobs", [](SamplingParams& p) { p.num_logprobs = -2; }},
  };
  for (const BadCase& bad : cases) {
    SamplingParams params;
    bad.spoil(params);
    const base::Status status = validate(params, 100);
    ASSERT_FALSE(status.has_value()) << bad.field;
    EXPECT_EQ(status.error().code, base::ErrorCode::kInvalidArgument);
    EXPECT_EQ(status.error().message.rfind(bad.field + ": expected", 0), 0U)
        << status.error().message;
    EXPECT_NE(status.error().message.find(", got "), std::string::npos) << status.error().message;
  }
}

TEST(SamplingParams, AcceptsTheEdgesOfEveryRange) {
  SamplingParams params;
  EXPECT_TRUE(validate(params, 100).has_value());
  params.temperature = 0;
  params.top_k = -1;
  params.top_p = 1e-9;
  params.min_p = 1;
  params.presence_penalty = -2;
  params.frequency_penalty = 2;
  params.repetition_penalty = base::kMinRepetitionPenalty;
  params.logit_bias = {{0, -100.0F}, {99, 100.0F}};
  params.stop_token_ids = {0, 99};
  params.num_logprobs = 20;
  EXPECT_TRUE(validate(params, 100).has_value());
  params.top_k = 1000000;  // more than the vocabulary: off
  params.temperature = 1e6;
  params.repetition_penalty = base::kMaxRepetitionPenalty;
  EXPECT_TRUE(validate(params, 100).has_value());
}

}  // namespace
}  // namespace tandem::sampling
