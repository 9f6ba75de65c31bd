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
  EXPECT_FALSE(config->draws_drafts);
}

TEST(SpeculativeConfig, ReadsTheRest) {
  const auto automatic = parse_speculative_config(
      R"({"model": "DIR", "num_speculative_tokens": "auto", "method": "mtp",
          "draft_sample_method": "probabilistic"})",
      8);
  ASSERT_TRUE(automatic.has_value()) << automatic.error().message;
  EXPECT_TRUE(automatic->draws_drafts);
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

TEST(SpeculativeConfig, KByBatchSize) {
  const auto config = parse_speculative_config(
      R"({"model": "DIR", "num_speculative_tokens": 3,
          "num_speculative_tokens_per_batch_size": [[1, 8, 4], [9, 16, 1], [20, 64, 0]]})",
      8);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  // Never beyond num_speculative_tokens; 17 to 19 go on as 16 does.
  EXPECT_EQ(config->drafts_from, (std::map<int64_t, int>{{1, 3}, {9, 1}, {20, 0}}));
}

TEST(SpeculativeConfig, KeysThatChangeNothingSaySo) {
  const auto config = parse_speculative_config(
      R"({"model": "DIR", "kv_cache_dtype": "fp8", "attention_backend": "X", "max_model_len": 4096,
          "enforce_eager": true, "revision": null, "quantization": "modelopt"})",
      8);
  ASSERT_TRUE(config.has_value()) << config.error().message;
  ASSERT_EQ(config->notes.size(), 4U);
  for (const std::string& note : config->notes)
    EXPECT_NE(note.find("changes nothing"), std::string::npos) << note;
  EXPECT_EQ(config->quantization, "modelopt");
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
      {R"({"model": "D", "draft_sample_method": "gumbel"})", "draft_sample_method"},
      {R"({"model": "D", "rejection_sample_method": "block"})", "rejection_sample_method"},
      {R"({"model": "D", "rejection_sample_method": "synthetic"})", "synthetic_acceptance_length"},
      {R"({"model": "D", "synthetic_acceptance_length": 2})", "rejection_sample_method"},
      {R"({"model": "D", "num_speculative_tokens": 2, "rejection_sample_method": "synthetic",
           "synthetic_acceptance_length": 4})",
       "synthetic_acceptance_length"},
      {R"({"model": "D", "quantization": "awq"})", "quantization: expected modelopt"},
      {R"({"model": "D", "revision": "main"})", "revision: expected null"},
      {R"({"model": "D", "num_speculative_tokens": "auto",
           "num_speculative_tokens_per_batch_size": [[1, 2, 3]]})",
       "expected none with"},
      {R"({"model": "D", "num_speculative_tokens_per_batch_size": [[1, 4, 2], [4, 8, 1]]})",
       "num_speculative_tokens_per_batch_size: expected ranges"},
      {R"({"model": "D", "num_speculative_tokens_per_batch_size": [[4, 1, 2]]})", "ranges"},
      {R"({"model": "D", "num_speculative_tokens_per_batch_size": [[0, 1, 2]]})", "ranges"},
      {R"({"model": "D", "num_speculative_tokens_per_batch_size": [[1, 2]]})", "ranges"},
      {R"({"model": "D", "num_speculative_tokens_per_batch_size": [[1, 2, -1]]})", "ranges"},
      {R"({"model": "D", "num_speculative_tokens_per_batch_size": []})", "ranges"},
      {R"({"model": "D", "num_speculative_tokens_per_batch_size": {"1": 2}})", "ranges"},
      {R"({"model": "D", "rejection_sample_method": "synthetic",
           "synthetic_acceptance_rates": ["a"]})",
       "synthetic_acceptance_rates"},
      {R"({"model": "m", "rejection_sample_method": "synthetic", "synthetic_acceptance_rates": []})",
       "synthetic_acceptance_rates: expected a list of rates, got an array of 0"},
      {R"({"model": "m", "rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2,
           "synthetic_acceptance_rates": [1]})",
       "got both"},
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
