#include "io/speculative_config.h"

#include <gtest/gtest.h>

namespace tandem::io {
namespace {

TEST(SpeculativeConfig, ReadsWhatUsersType) {
  const auto config =
      parse_speculative_config(R"({"model": "DIR", "num_speculative_tokens": 4})", 8);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  EXPECT_EQ(config->model, "DIR");
  EXPECT_EQ(config->num_speculative_tokens, 4);
  EXPECT_FALSE(config->automatic);
  EXPECT_EQ(config->draft_position_offset, 0);
}

TEST(SpeculativeConfig, ReadsTheRest) {
  const auto automatic = parse_speculative_config(
      R"({"model": "DIR", "num_speculative_tokens": "auto", "method": "mtp"})", 8);
  ASSERT_TRUE(automatic.has_value()) << automatic.error().message;
  EXPECT_TRUE(automatic->automatic);
  const auto synthetic = parse_speculative_config(
      R"({"model": "DIR", "num_speculative_tokens": 3, "draft_position_offset": 1,
          "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": [0.9, 0.5, 0]})",
      8);
  ASSERT_TRUE(synthetic.has_value()) << synthetic.error().message;
  EXPECT_EQ(synthetic->draft_position_offset, 1);
  EXPECT_EQ(synthetic->synthetic_acceptance_rates, (std::vector<double>{0.9, 0.5, 0.0}));
}

TEST(SpeculativeConfig, DraftingCanBeOff) {
  const auto config =
      parse_speculative_config(R"({"model": "DIR", "num_speculative_tokens": 0})", 8);
  ASSERT_TRUE(config.has_value());
  EXPECT_EQ(config->num_speculative_tokens, 0);
}

// What is refused, and words the user must read.
struct Refusal {
  const char* json;
  const char* words;
};

TEST(SpeculativeConfig, RefusesByName) {
  const Refusal refusals[] = {
      {"", "--speculative-config: expected valid JSON"},
      {"[]", "expected a JSON object"},
      {R"({"num_speculative_tokens": 4})", "model: expected"},
      {R"({"model": 5})", "model: expected"},
      {R"({"model": "D", "num_speculative_tokens": 1000})",
       "num_speculative_tokens: expected an integer from 0 to 8, got 1000"},
      {R"({"model": "D", "num_speculative_tokens": -1})", "got -1"},
      {R"({"model": "D", "num_speculative_tokens": 2.5})", "got 2.5"},
      {R"({"model": "D", "num_speculative_tokens": "many"})", "num_speculative_tokens"},
      {R"({"model": "D", "num_speculativ_tokens": 4})", "num_speculativ_tokens"},
      {R"({"model": "D", "method": "eagle"})", "method: expected \"mtp\""},
      {R"({"model": "D", "draft_tensor_parallel_size": 2})", "draft_tensor_parallel_size"},
      {R"({"model": "D", "draft_position_offset": 2})", "draft_position_offset"},
      {R"({"model": "D", "rejection_sample_method": "block"})", "rejection_sample_method"},
      {R"({"model": "D", "rejection_sample_method": "synthetic"})", "synthetic_acceptance_length"},
      {R"({"model": "D", "synthetic_acceptance_length": 2})", "rejection_sample_method"},
      {R"({"model": "D", "num_speculative_tokens": 2, "rejection_sample_method": "synthetic",
           "synthetic_acceptance_length": 4})",
       "synthetic_acceptance_length"},
      {R"({"model": "D", "rejection_sample_method": "synthetic",
           "synthetic_acceptance_rates": ["a"]})",
       "synthetic_acceptance_rates"},
  };
  for (const Refusal& refusal : refusals) {
    const auto config = parse_speculative_config(refusal.json, 8);
    ASSERT_FALSE(config.has_value()) << refusal.json;
    EXPECT_NE(config.error().message.find(refusal.words), std::string::npos)
        << refusal.json << "\n  said: " << config.error().message;
  }
}

}  // namespace
}  // namespace tandem::io
