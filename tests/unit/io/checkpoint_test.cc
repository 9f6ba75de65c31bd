// Valid checkpoints load, in every spelling and format, and say what they hold.
#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/e4m3.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

using test_support::TempFolder;
using test_support::TinyCheckpoint;
using test_support::TinyFormat;
using test_support::TinyOptions;

Checkpoint open_or_fail(const std::filesystem::path& dir) {
  auto checkpoint = Checkpoint::open(dir);
  if (!checkpoint) throw std::runtime_error(checkpoint.error().message);
  const auto values = checkpoint->check_values();
  if (!values) throw std::runtime_error(values.error().message);
  return *std::move(checkpoint);
}

Checkpoint open_target(const TinyOptions& options, const TempFolder& folder, int num_shards = 1) {
  make_tiny_target(options).write(folder.path(), num_shards);
  return open_or_fail(folder.path());
}

std::string bytes_of(const core::TensorView& view) {
  return {static_cast<const char*>(view.data),
          static_cast<size_t>(view.shape.num_elements()) * core::dtype_bytes(view.dtype)};
}

// A shell's Tab writes the slash.
TEST(CheckpointTest, AFolderHasItsNameHoweverItIsWritten) {
  for (const char* dir : {"demo/target", "demo/target/", "demo/target//", "demo/target/.",
                          "/demo/target/", "target", "demo/other/../target/"})
    EXPECT_EQ(folder_name(dir), "target") << dir;
  EXPECT_EQ(folder_name("."), std::filesystem::current_path().filename());
}

TEST(CheckpointTest, Bf16TargetKnowsItsTensors) {
  const TempFolder folder;
  const Checkpoint checkpoint = open_target({}, folder);
  EXPECT_EQ(checkpoint.config().kind, ModelKind::kTarget);
  EXPECT_FALSE(checkpoint.quantization().quantized);
  EXPECT_EQ(checkpoint.tensor("embed_tokens.weight").shape, (core::Shape{97, 64}));
  EXPECT_EQ(checkpoint.linear("layers.1.mlp.down_proj").weight.shape, (core::Shape{64, 96}));
  EXPECT_EQ(checkpoint.linear("layers.2.self_attn.k_proj").weight.shape, (core::Shape{32, 64}));
  EXPECT_FALSE(checkpoint.find("layers.2.self_attn.v_proj.weight").has_value());
  EXPECT_FALSE(checkpoint.find("lm_head.weight").has_value());
  EXPECT_EQ(checkpoint.linear_modules().size(), 7U + 7U + 6U);
  EXPECT_EQ(checkpoint.linear_modules().front(), "layers.0.self_attn.q_proj");
  EXPECT_FALSE(checkpoint.kv_scales(0).calibrated);
  EXPECT_EQ(checkpoint.generation_config().eos_token_ids, (std::vector<int32_t>{1, 50, 60}));
}

TEST(CheckpointTest, CopiedWeightsAreTheSameAndAligned) {
  for (const int num_shards : {1, 3}) {
    const TempFolder folder;
    Checkpoint checkpoint = open_target({.target_format = TinyFormat::kFp8}, folder, num_shards);
    const Checkpoint mapped = open_or_fail(folder.path());
    int64_t bytes = 0;
    for (const Checkpoint::StoredTensor& tensor : mapped.stored_tensors())
      bytes += static_cast<int64_t>(bytes_of(tensor.view).size());
    EXPECT_GE(checkpoint.copy_into_memory(), bytes);
    for (const Checkpoint::StoredTensor& tensor : mapped.stored_tensors()) {
      const core::TensorView copy = checkpoint.tensor(tensor.canonical_name);
      EXPECT_EQ(bytes_of(copy), bytes_of(tensor.view)) << tensor.stored_name;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(copy.data) % 64, 0U) << tensor.stored_name;
    }
    for (const std::string& module : checkpoint.linear_modules()) {
      EXPECT_EQ(checkpoint.linear(module).weight.data, checkpoint.tensor(module + ".weight").data);
      EXPECT_EQ(checkpoint.linear(module).weight_scale, mapped.linear(module).weight_scale);
    }
    EXPECT_TRUE(checkpoint.check_values());
  }
}

TEST(CheckpointTest, AssistantHasProjectionsAndNoKv) {
  const TempFolder folder;
  test_support::make_tiny_assistant().write(folder.path());
  const Checkpoint checkpoint = open_or_fail(folder.path());
  EXPECT_EQ(checkpoint.config().kind, ModelKind::kAssistant);
  EXPECT_EQ(checkpoint.linear("pre_projection").weight.shape, (core::Shape{32, 128}));
  EXPECT_EQ(checkpoint.linear("post_projection").weight.shape, (core::Shape{64, 32}));
  EXPECT_EQ(checkpoint.linear_modules().size(), 2U + 4U * 5U);
  EXPECT_FALSE(checkpoint.find("layers.0.self_attn.k_proj.weight").has_value());
}

TEST(CheckpointTest, TheBytesAreThoseOfTheFile) {
  const TempFolder folder;
  TinyOptions options;
  options.target_format = TinyFormat::kFp8;  // F32 scalars between odd sizes: some lie unaligned
  TinyCheckpoint written = make_tiny_target(options);
  written.write(folder.path());
  const Checkpoint checkpoint = open_or_fail(folder.path());
  for (const auto& stored : checkpoint.stored_tensors()) {
    EXPECT_EQ(bytes_of(stored.view), written.tensor(stored.stored_name).bytes)
        << stored.stored_name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(stored.view.data) % core::dtype_bytes(stored.view.dtype),
              0U)
        << stored.stored_name;
  }
  EXPECT_EQ(checkpoint.stored_tensors().size(), written.tensors.size());
}

TEST(CheckpointTest, Fp8ScalesAreRead) {
  const TempFolder folder;
  TinyOptions options;
  options.target_format = TinyFormat::kFp8;
  options.kv_scales = true;
  TinyCheckpoint target = make_tiny_target(options);
  target.set_scalar("model.language_model.layers.1.mlp.up_proj.weight_scale", 0.5F);
  target.set_scalar("model.language_model.layers.1.mlp.up_proj.input_scale", 0.25F);
  target.write(folder.path());
  const Checkpoint checkpoint = open_or_fail(folder.path());
  EXPECT_TRUE(checkpoint.quantization().quantized);
  EXPECT_EQ(checkpoint.quantization().algorithm, "FP8");
  EXPECT_TRUE(checkpoint.quantization().kv_cache_fp8);
  const LinearWeights linear = checkpoint.linear("layers.1.mlp.up_proj");
  EXPECT_EQ(linear.format, WeightFormat::kFp8PerTensor);
  EXPECT_EQ(linear.weight_scale, 0.5F);
  EXPECT_EQ(linear.input_scale, 0.25F);
  EXPECT_TRUE(checkpoint.kv_scales(2).calibrated);
  EXPECT_EQ(checkpoint.kv_scales(2).k_scale, 0.125F + 2.0F / 1024);
  EXPECT_EQ(checkpoint.kv_scales(2).v_scale, 0.0625F + 2.0F / 1024);
}

TEST(CheckpointTest, OneKvScaleHoldsForBoth) {
  const TempFolder folder;
  TinyOptions options;
  options.target_format = TinyFormat::kFp8;
  options.kv_scales = true;
  TinyCheckpoint target = make_tiny_target(options);
  target.remove("model.language_model.layers.0.self_attn.v_proj.v_scale");
  target.remove("model.language_model.layers.1.self_attn.k_proj.k_scale");
  target.write(folder.path());
  const Checkpoint checkpoint = open_or_fail(folder.path());
  EXPECT_EQ(checkpoint.kv_scales(0).v_scale, checkpoint.kv_scales(0).k_scale);
  EXPECT_EQ(checkpoint.kv_scales(0).k_scale, 0.125F);
  EXPECT_EQ(checkpoint.kv_scales(1).k_scale, 0.0625F + 1.0F / 1024);
}

// Dequantized with the loader's scales every format comes back close to the BF16 weight, which
// shows that scales land on the rows and blocks they belong to.
float dequantized(const LinearWeights& linear, int64_t row, int64_t col) {
  const auto byte =
      static_cast<const uint8_t*>(linear.weight.data)[row * linear.weight.cols() + col];
  float scale = linear.weight_scale;
  if (linear.format == WeightFormat::kFp8PerChannelPerToken)
    scale = linear.weight_scales.ptr<float>()[row];
  if (linear.format == WeightFormat::kFp8Block)
    scale = linear.weight_scales.row<float>(row / 128)[col / 128];
  return scale * core::e4m3_to_float(byte);
}

class FormatTest : public ::testing::TestWithParam<TinyFormat> {};

TEST_P(FormatTest, DequantizesToTheBf16Weight) {
  const TempFolder plain_folder;
  const TempFolder folder;
  TinyOptions options;
  options.hidden = 160;
  options.intermediate = 288;
  const Checkpoint plain = open_target(options, plain_folder);
  options.target_format = GetParam();
  const Checkpoint quantized = open_target(options, folder);
  for (const std::string& module : plain.linear_modules()) {
    const core::TensorView weight = plain.linear(module).weight;
    const LinearWeights linear = quantized.linear(module);
    ASSERT_NE(linear.format, WeightFormat::kBF16) << module;
    double error = 0;
    double norm = 0;
    for (int64_t row = 0; row < weight.rows(); ++row)
      for (int64_t col = 0; col < weight.cols(); ++col) {
        const float exact = core::to_float(weight.row<core::BFloat16>(row)[col]);
        error += std::pow(exact - dequantized(linear, row, col), 2);
        norm += exact * exact;
      }
    // Three mantissa bits: relative rounding error at most 1/16, about 0.03 on average.
    EXPECT_LT(std::sqrt(error / norm), 0.035) << module;
  }
}

INSTANTIATE_TEST_SUITE_P(All, FormatTest,
                         ::testing::Values(TinyFormat::kFp8, TinyFormat::kFp8Block,
                                           TinyFormat::kFp8PerChannel,
                                           TinyFormat::kCompressedTensor,
                                           TinyFormat::kCompressedChannel));

TEST(CheckpointTest, FormatsSayHowActivationsAreScaled) {
  const TempFolder block;
  const TempFolder channel;
  const TempFolder compressed;
  TinyOptions options;
  options.target_format = TinyFormat::kFp8Block;
  EXPECT_TRUE(open_target(options, block).quantization().weight_only);
  options.target_format = TinyFormat::kFp8PerChannel;
  EXPECT_EQ(open_target(options, channel).linear("layers.0.mlp.up_proj").input_scale, 0.0F);
  options.target_format = TinyFormat::kCompressedTensor;
  const Checkpoint checkpoint = open_target(options, compressed);
  EXPECT_EQ(checkpoint.quantization().algorithm, "compressed-tensors");
  EXPECT_EQ(checkpoint.linear("layers.0.mlp.up_proj").input_scale, 8.0F / 448.0F);
}

TEST(CheckpointTest, WeightOnlyModelOptMayLeaveInputScalesOut) {
  const TempFolder folder;
  TinyOptions options;
  options.target_format = TinyFormat::kFp8;
  TinyCheckpoint target = make_tiny_target(options);
  target.config["quantization_config"]["config_groups"]["group_0"].erase("input_activations");
  target.remove("model.language_model.layers.0.mlp.up_proj.input_scale");
  target.write(folder.path());
  const Checkpoint checkpoint = open_or_fail(folder.path());
  EXPECT_TRUE(checkpoint.quantization().weight_only);
  EXPECT_EQ(checkpoint.linear("layers.0.mlp.up_proj").input_scale, 0.0F);
  EXPECT_EQ(checkpoint.linear("layers.1.mlp.up_proj").input_scale, 8.0F / 448.0F);
}

}  // namespace
}  // namespace tandem::io
