// Weights made from the configs alone, and configs changed by --hf-overrides.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "core/bf16.h"
#include "core/e4m3.h"
#include "io/checkpoint.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::io {
namespace {

using test_support::TempFolder;
using test_support::TinyFormat;
using test_support::TinyOptions;
using testing::TestWithParam;

Checkpoint open_or_fail(const std::filesystem::path& dir, const LoadOptions& options) {
  auto checkpoint = Checkpoint::open(dir, options);
  if (!checkpoint) throw std::runtime_error(checkpoint.error().message);
  return *std::move(checkpoint);
}

std::string bytes_of(const core::TensorView& view) {
  return {static_cast<const char*>(view.data),
          static_cast<size_t>(view.shape.num_elements()) * core::dtype_bytes(view.dtype)};
}

// The folder without its weights.
void remove_weights(const std::filesystem::path& dir) {
  ASSERT_TRUE(std::filesystem::remove(dir / "model.safetensors"));
}

class DummyWeightsTest : public TestWithParam<TinyFormat> {};

TEST_P(DummyWeightsTest, HasWhatTheRealCheckpointHas) {
  const TempFolder folder;
  const auto pair = test_support::write_tiny_pair(
      folder.path(), {.target_format = GetParam(), .assistant_format = GetParam()});
  for (const auto& dir : {pair.target, pair.assistant}) {
    const Checkpoint real = open_or_fail(dir, {});
    // The files stay mapped.
    remove_weights(dir);
    EXPECT_FALSE(Checkpoint::open(dir));
    const Checkpoint dummy = open_or_fail(dir, {.dummy = true});
    EXPECT_TRUE(dummy.check_values());
    EXPECT_EQ(dummy.linear_modules(), real.linear_modules());
    for (const std::string& module : real.linear_modules()) {
      const LinearWeights expected = real.linear(module);
      const LinearWeights made = dummy.linear(module);
      EXPECT_EQ(made.format, expected.format) << module;
      EXPECT_EQ(made.weight.dtype, expected.weight.dtype) << module;
      EXPECT_EQ(made.weight.shape, expected.weight.shape) << module;
      EXPECT_EQ(made.weight_scales.shape, expected.weight_scales.shape) << module;
      EXPECT_EQ(made.input_scale > 0, expected.input_scale > 0) << module;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, DummyWeightsTest,
                         testing::Values(TinyFormat::kBF16, TinyFormat::kFp8, TinyFormat::kFp8Block,
                                         TinyFormat::kFp8PerChannel, TinyFormat::kCompressedTensor,
                                         TinyFormat::kCompressedChannel));

TEST(DummyWeightsTest, ASeedGivesTheSameWeightsAndAnotherOthers) {
  const TempFolder folder;
  test_support::make_tiny_target().write(folder.path());
  const std::string name = "layers.0.mlp.up_proj.weight";
  const auto weight = [&](uint64_t seed) {
    return bytes_of(open_or_fail(folder.path(), {.dummy = true, .dummy_seed = seed}).tensor(name));
  };
  EXPECT_EQ(weight(1), weight(1));
  EXPECT_NE(weight(1), weight(2));
}

// What a Linear makes of inputs around 1 is around 1 again, in BF16 and in FP8.
TEST(DummyWeightsTest, KeepsActivationsInRange) {
  for (const TinyFormat format : {TinyFormat::kBF16, TinyFormat::kFp8}) {
    const TempFolder folder;
    test_support::make_tiny_target({.target_format = format}).write(folder.path());
    const Checkpoint dummy = open_or_fail(folder.path(), {.dummy = true});
    const LinearWeights linear = dummy.linear("layers.0.mlp.down_proj");
    double squares = 0;
    for (int64_t i = 0; i < linear.weight.shape.num_elements(); ++i) {
      const float value =
          format == TinyFormat::kBF16
              ? core::to_float(static_cast<const core::BFloat16*>(linear.weight.data)[i])
              : linear.weight_scale *
                    core::e4m3_to_float(static_cast<const uint8_t*>(linear.weight.data)[i]);
      squares += double{value} * value;
    }
    // The squares of a row sum to 1, give or take what a few thousand draws leave open.
    EXPECT_NEAR(squares / static_cast<double>(linear.weight.shape[0]), 1.0, 0.05);
  }
}

TEST(DummyWeightsTest, RowsOfALargeMatrixDiffer) {
  const TempFolder folder;
  test_support::make_tiny_target({.intermediate = 2048}).write(folder.path());
  const Checkpoint dummy = open_or_fail(folder.path(), {.dummy = true});
  const core::TensorView weight = dummy.tensor("layers.0.mlp.up_proj.weight");
  const std::string bytes = bytes_of(weight);
  const size_t row = bytes.size() / static_cast<size_t>(weight.shape[0]);
  for (int64_t r = 1; r < weight.shape[0]; ++r)
    ASSERT_NE(bytes.substr(0, row), bytes.substr(static_cast<size_t>(r) * row, row)) << r;
}

TEST(DummyWeightsTest, KvScalesAreThereForAnFp8Target) {
  const TempFolder folder;
  test_support::make_tiny_target({.target_format = TinyFormat::kFp8}).write(folder.path());
  const Checkpoint dummy = open_or_fail(folder.path(), {.dummy = true});
  EXPECT_TRUE(dummy.kv_scales(0).calibrated);
  EXPECT_GT(dummy.kv_scales(2).v_scale, 0.0F);
}

TEST(HfOverridesTest, FewerLayersAreTheFirstOnes) {
  const TempFolder folder;
  test_support::make_tiny_target({.layers = "ssfssf"}).write(folder.path());
  const auto whole = read_model_config(folder.path());
  ASSERT_TRUE(whole);
  ASSERT_EQ(whole->text.num_layers(), 6);
  for (const char* overrides :
       {R"({"num_hidden_layers": 3})", R"({"text_config": {"num_hidden_layers": 3}})"}) {
    const auto config = read_model_config(folder.path(), overrides);
    ASSERT_TRUE(config) << config.error().message;
    ASSERT_EQ(config->text.num_layers(), 3);
    EXPECT_EQ(config->text.layers[0].type, LayerType::kSliding);
    EXPECT_EQ(config->text.layers[2].type, LayerType::kFull);
    EXPECT_EQ(config->text.hidden_size, whole->text.hidden_size);
  }
}

TEST(HfOverridesTest, PerLayerSizesAreCutToo) {
  const TempFolder folder;
  test_support::make_tiny_target({.layers = "ssfssf", .per_layer_config = true})
      .write(folder.path());
  const auto config = read_model_config(folder.path(), R"({"num_hidden_layers": 3})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->text.layers[2].head_dim, 32);
}

TEST(HfOverridesTest, TopLevelKeysStayThere) {
  const TempFolder folder;
  test_support::make_tiny_target().write(folder.path());
  const auto config = read_model_config(folder.path(), R"({"tie_word_embeddings": false})");
  ASSERT_TRUE(config);
  EXPECT_FALSE(config->text.tie_word_embeddings);
}

TEST(HfOverridesTest, AQuantizationCanBeNamed) {
  const TempFolder folder;
  test_support::make_tiny_target().write(folder.path());
  const Checkpoint dummy = open_or_fail(
      folder.path(), {.hf_overrides = R"({"quantization_config": {"quant_method": "modelopt",
                          "quant_algo": "FP8", "ignore": ["lm_head"]}})",
                      .dummy = true});
  EXPECT_EQ(dummy.linear("layers.0.mlp.up_proj").format, WeightFormat::kFp8PerTensor);
}

TEST(HfOverridesTest, RefusesWhatItCannotMean) {
  const TempFolder folder;
  test_support::make_tiny_target({.layers = "ssfssf"}).write(folder.path());
  const auto message = [&](const char* overrides) {
    const auto config = read_model_config(folder.path(), overrides);
    return config ? std::string("accepted") : config.error().message;
  };
  EXPECT_EQ(message("[1]"),
            "--hf-overrides: expected a JSON object such as {\"num_hidden_layers\": 6}, got an "
            "array of 1");
  EXPECT_NE(message("{").find("--hf-overrides: expected valid JSON"), std::string::npos);
  EXPECT_NE(message(R"({"num_hidden_layers": 9})").find("layer_types: expected 9 entries"),
            std::string::npos);
  EXPECT_NE(message(R"({"num_hidden_layers": 2})").find("last layer to be full_attention"),
            std::string::npos);
  EXPECT_NE(message(R"({"text_config": 3})").find("text_config"), std::string::npos);
  // Real weights of six layers are not those of three.
  EXPECT_FALSE(Checkpoint::open(folder.path(), {.hf_overrides = R"({"num_hidden_layers": 3})"}));
}

}  // namespace
}  // namespace tandem::io
