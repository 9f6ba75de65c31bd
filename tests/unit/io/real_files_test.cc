// The published configs and headers of the 12B pair, byte for byte, and the golden pairs.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "io/checkpoint.h"
#include "io/quantization_config.h"
#include "io/safetensors.h"
#include "io/tensor_names.h"
#include "io/tensor_requirements.h"
#include "tests/support/temp_folder.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test_support::read_bytes;
using test_support::TempFolder;
using test_support::write_bytes;

const fs::path kConfigs = fs::path(TANDEM_TEST_DATA) / "data/configs";
const fs::path kGolden = fs::path(TANDEM_TEST_DATA) / "golden";

ModelConfig read_published(const std::string& model) {
  const TempFolder folder;
  fs::copy_file(kConfigs / (model + ".config.json"), folder / "config.json");
  auto config = read_model_config(folder.path());
  EXPECT_TRUE(config.has_value()) << (config ? "" : config.error().message);
  return config.value_or(ModelConfig{});
}

GenerationConfig read_published_generation(const std::string& model) {
  const TempFolder folder;
  fs::copy_file(kConfigs / (model + ".generation_config.json"), folder / "generation_config.json");
  auto config = read_generation_config(folder.path(), 262144);
  EXPECT_TRUE(config.has_value()) << (config ? "" : config.error().message);
  return config.value_or(GenerationConfig{});
}

TEST(RealFilesTest, TargetConfig) {
  const ModelConfig config = read_published("gemma-4-12B-it");
  EXPECT_EQ(config.kind, ModelKind::kTarget);
  EXPECT_EQ(config.text.hidden_size, 3840);
  EXPECT_EQ(config.text.vocab_size, 262144);
  ASSERT_EQ(config.text.num_layers(), 48);
  for (size_t i = 0; i < 48; ++i) {
    const LayerConfig& layer = config.text.layers[i];
    const bool full = i % 6 == 5;
    EXPECT_EQ(layer.type, full ? LayerType::kFull : LayerType::kSliding) << i;
    EXPECT_EQ(layer.head_dim, full ? 512 : 256) << i;
    EXPECT_EQ(layer.num_key_value_heads, full ? 1 : 8) << i;
    EXPECT_EQ(layer.k_eq_v, full) << i;
    EXPECT_EQ(layer.rope.theta, full ? 1e6 : 1e4) << i;
    EXPECT_EQ(layer.rope.partial_rotary_factor, full ? 0.25 : 1.0) << i;
  }
  EXPECT_EQ(config.text.sliding_window, 1024);
  EXPECT_EQ(config.text.final_logit_softcapping, 30.0);
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{1, 106}));
  EXPECT_EQ(config.modality_token_ids,
            (std::vector<int32_t>{255999, 256000, 258880, 258881, 258882, 258883, 258884}));
}

TEST(RealFilesTest, AssistantConfigAndPair) {
  const ModelConfig target = read_published("gemma-4-12B-it");
  const ModelConfig assistant = read_published("gemma-4-12B-it-assistant");
  EXPECT_EQ(assistant.kind, ModelKind::kAssistant);
  EXPECT_EQ(assistant.backbone_hidden_size, 3840);
  EXPECT_EQ(assistant.text.final_logit_softcapping, 0.0);
  const base::Status pair = check_pair(target, assistant);
  EXPECT_TRUE(pair.has_value()) << (pair ? "" : pair.error().message);
  EXPECT_EQ(shared_kv_layers(target, assistant), (std::vector<int64_t>{46, 46, 46, 47}));
}

TEST(RealFilesTest, GenerationConfigs) {
  const GenerationConfig target = read_published_generation("gemma-4-12B-it");
  EXPECT_EQ(target.eos_token_ids, (std::vector<int32_t>{1, 106, 50}));
  EXPECT_EQ(target.suppress_tokens, (std::vector<int32_t>{258883, 258882}));
  EXPECT_TRUE(target.do_sample);
  EXPECT_EQ(target.top_k, 64);
  EXPECT_EQ(target.top_p, 0.95);
  EXPECT_EQ(read_published_generation("gemma-4-12B-it-assistant").eos_token_ids,
            (std::vector<int32_t>{1}));
}

// Our list of required tensors against the published headers: every tensor of the text tower, with
// its shape, and no other.
void expect_header_is_what_the_config_asks(const std::string& model, uint64_t payload_bytes,
                                           size_t num_tensors) {
  const ModelConfig config = read_published(model);
  const std::string header = read_bytes(kConfigs / (model + ".safetensors_header.json"));
  const auto parsed = parse_safetensors_header(header, payload_bytes, model);
  ASSERT_TRUE(parsed.has_value()) << parsed.error().message;
  EXPECT_EQ(parsed->entries.size(), num_tensors);
  std::map<std::string, core::Shape> shapes;
  for (const SafetensorsEntry& entry : parsed->entries)
    if (!is_media_tensor(entry.name)) shapes[canonical_tensor_name(entry.name)] = entry.shape;
  size_t expected = 0;
  for (const RequiredTensor& tensor : required_tensors(config)) {
    if (tensor.optional) continue;
    EXPECT_EQ(shapes[tensor.name], tensor.shape) << tensor.name;
    ++expected;
  }
  for (const RequiredLinear& linear : required_linears(config)) {
    EXPECT_EQ(shapes[linear.name + ".weight"], (core::Shape{linear.out, linear.in})) << linear.name;
    ++expected;
  }
  EXPECT_EQ(shapes.size(), expected);
}

TEST(RealFilesTest, PublishedHeaders) {
  expect_header_is_what_the_config_asks("gemma-4-12B-it", 23919460448, 677);
  expect_header_is_what_the_config_asks("gemma-4-12B-it-assistant", 845713928, 48);
}

TEST(RealFilesTest, ModelOptExamples) {
  const TempFolder folder;
  json config = json::parse(read_bytes(kConfigs / "gemma-4-12B-it-assistant.config.json"));
  config["quantization_config"] =
      json::parse(read_bytes(kConfigs / "modelopt_fp8.quantization_config.assistant.example.json"));
  write_bytes(folder / "config.json", config.dump());
  fs::copy_file(kConfigs / "modelopt_fp8.hf_quant_config.assistant.example.json",
                folder / "hf_quant_config.json");
  const auto quantization = read_quantization_config(folder.path());
  ASSERT_TRUE(quantization.has_value()) << quantization.error().message;
  EXPECT_EQ(quantization->info.algorithm, "FP8");
  EXPECT_FALSE(quantization->info.kv_cache_fp8);
  EXPECT_FALSE(quantization->info.weight_only);
  EXPECT_TRUE(quantization->excludes("pre_projection"));
  EXPECT_TRUE(quantization->excludes("lm_head"));
  EXPECT_FALSE(quantization->excludes("layers.0.mlp.up_proj"));
}

class GoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenTest, Opens) {
  const fs::path dir = kGolden / GetParam();
  const auto checkpoint = Checkpoint::open(dir);
  ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message;
  const base::Status values = checkpoint->check_values();
  EXPECT_TRUE(values.has_value()) << values.error().message;
  EXPECT_EQ(checkpoint->quantization().quantized,
            std::string(GetParam()).find("fp8") != std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest,
                         ::testing::Values("unified/target", "unified/assistant",
                                           "unified/target-fp8", "unified/assistant-fp8",
                                           "classic/target", "classic/assistant",
                                           "classic/target-fp8", "classic/assistant-fp8",
                                           "text_only/plain", "text_only/prefixed"));

}  // namespace
}  // namespace tandem::io
