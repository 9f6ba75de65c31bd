#include "quantize/quantize.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "core/e4m3.h"
#include "quantize/modules.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::quantize {
namespace {

namespace fs = std::filesystem;
using test_support::read_bytes;
using test_support::TempFolder;
using test_support::TinyOptions;
using test_support::TinyPair;
using test_support::write_bytes;
using test_support::write_tiny_pair;

const std::vector<std::vector<int32_t>> kPrompts = {{2, 5, 9, 40, 13}, {2, 77, 31}};

QuantizeOptions options_for(const TempFolder& temp) {
  QuantizeOptions options;
  options.out_target = temp / "target-fp8";
  options.out_assistant = temp / "assistant-fp8";
  options.calibration.max_new_tokens = 12;
  options.calibration.sampling.temperature = 0;
  options.version = "test";
  return options;
}

model::PairOptions pair_options(const TinyPair& tiny) {
  model::PairOptions options;
  options.target = tiny.target;
  options.assistant = tiny.assistant;
  return options;
}

base::Result<QuantizeResult> quantize_tiny(const TinyPair& tiny, const QuantizeOptions& options,
                                           int threads = 1) {
  TANDEM_ASSIGN_OR_RETURN(model::Pair pair, model::load_pair(pair_options(tiny)));
  core::ThreadPool pool(threads);
  const ops::Context context{ops::Backend::kCpu, &pool};
  return quantize_pair(context, std::move(pair), kPrompts, options, {});
}

std::map<std::string, std::string> files_of(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::directory_iterator(dir))
    files[entry.path().filename().string()] = read_bytes(entry.path());
  return files;
}

nlohmann::json json_of(const fs::path& path) {
  return nlohmann::json::parse(read_bytes(path));
}

// The quantized weight is the source's, divided by the scale and rounded to the nearest E4M3.
void expect_rounded(const io::Checkpoint& source, const io::Checkpoint& quantized,
                    const std::string& module) {
  const core::TensorView from = source.linear(module).weight;
  const io::LinearWeights to = quantized.linear(module);
  ASSERT_EQ(to.format, io::WeightFormat::kFp8PerTensor) << module;
  ASSERT_EQ(from.shape, to.weight.shape) << module;
  float amax = 0;
  for (int64_t i = 0; i < from.shape.num_elements(); ++i)
    amax = std::max(amax, std::abs(core::to_float(from.ptr<core::BFloat16>()[i])));
  EXPECT_EQ(to.weight_scale, amax / 448) << module;
  const auto* bytes = static_cast<const uint8_t*>(to.weight.data);
  for (int64_t i = 0; i < from.shape.num_elements(); ++i)
    ASSERT_EQ(bytes[i],
              core::float_to_e4m3(core::to_float(from.ptr<core::BFloat16>()[i]) / to.weight_scale))
        << module << " element " << i;
}

TEST(Quantize, BothModelsLoadAndHoldTheRoundedWeights) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  const auto result = quantize_tiny(tiny, options_for(temp));
  ASSERT_TRUE(result) << result.error().message;
  for (const char* name : {"target", "assistant"}) {
    const auto source = io::Checkpoint::open(temp / name);
    const auto quantized = io::Checkpoint::open(temp / (std::string(name) + "-fp8"));
    ASSERT_TRUE(quantized) << quantized.error().message;
    EXPECT_TRUE(quantized->check_values());
    EXPECT_TRUE(quantized->quantization().quantized);
    EXPECT_FALSE(quantized->quantization().weight_only);
    for (const std::string& module : quantizable_modules(*source))
      expect_rounded(*source, *quantized, module);
  }
  const auto assistant = io::Checkpoint::open(temp / "assistant-fp8");
  EXPECT_EQ(assistant->linear("pre_projection").format, io::WeightFormat::kBF16);
  EXPECT_EQ(assistant->quantization().exclude_modules,
            (std::vector<std::string>{"lm_head", "post_projection", "pre_projection"}));
  EXPECT_GT(result->calibration.stats.num_drafts, 0);
}

TEST(Quantize, SharedInputsHaveOneScaleAndWeightsTheirOwn) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  const auto result = quantize_tiny(tiny, options_for(temp));
  ASSERT_TRUE(result) << result.error().message;
  const auto& modules = result->target->plan.quantized;
  const ModuleScales& q = modules.at("layers.0.self_attn.q_proj");
  const ModuleScales& k = modules.at("layers.0.self_attn.k_proj");
  EXPECT_EQ(q.input_scale, k.input_scale);
  EXPECT_NE(q.weight_scale, k.weight_scale);
  EXPECT_EQ(q.input_scale, q.input_amax / 448);
}

TEST(Quantize, SameBytesAgainAndWithMoreThreads) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  for (const ScaleMethod method : {ScaleMethod::kMax, ScaleMethod::kMse}) {
    QuantizeOptions options = options_for(temp);
    options.scales.method = method;
    options.force = true;
    options.calibration.sampling.temperature = 1;
    ASSERT_TRUE(quantize_tiny(tiny, options));
    const auto target = files_of(temp / "target-fp8");
    const auto assistant = files_of(temp / "assistant-fp8");
    ASSERT_TRUE(quantize_tiny(tiny, options));
    EXPECT_EQ(files_of(temp / "target-fp8"), target);
    ASSERT_TRUE(quantize_tiny(tiny, options, 2));
    EXPECT_EQ(files_of(temp / "target-fp8"), target);
    EXPECT_EQ(files_of(temp / "assistant-fp8"), assistant);
    options.calibration.seed = 99;
    ASSERT_TRUE(quantize_tiny(tiny, options));
    EXPECT_NE(files_of(temp / "target-fp8"), target) << "another seed samples other answers";
  }
}

TEST(Quantize, OtherFilesAreCarriedAlongAndWeightsOfOtherFormatsAreNot) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  write_bytes(tiny.target / "tokenizer.json", "{\"a\": 1}");
  write_bytes(tiny.target / "chat_template.jinja", "{{ x }}");
  write_bytes(tiny.target / "empty.txt", "");
  write_bytes(tiny.target / "pytorch_model.bin", "no");
  write_bytes(tiny.target / ".gitattributes", "no");
  ASSERT_TRUE(quantize_tiny(tiny, options_for(temp)));
  const auto files = files_of(temp / "target-fp8");
  EXPECT_EQ(files.at("tokenizer.json"), "{\"a\": 1}");
  EXPECT_EQ(files.at("chat_template.jinja"), "{{ x }}");
  EXPECT_EQ(files.at("empty.txt"), "");
  EXPECT_TRUE(files.contains("quantization_report.json"));
  EXPECT_FALSE(files.contains("pytorch_model.bin"));
  EXPECT_FALSE(files.contains(".gitattributes"));
}

TEST(Quantize, OneOfTheTwoAlone) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  QuantizeOptions options = options_for(temp);
  options.out_target.reset();
  ASSERT_TRUE(quantize_tiny(tiny, options));
  EXPECT_FALSE(fs::exists(temp / "target-fp8"));
  EXPECT_TRUE(io::Checkpoint::open(temp / "assistant-fp8"));
  options.out_assistant.reset();
  EXPECT_FALSE(quantize_tiny(tiny, options));
}

TEST(Quantize, WeightOnlyStillHasInputScales) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  QuantizeOptions options = options_for(temp);
  options.scales.weight_only = true;
  ASSERT_TRUE(quantize_tiny(tiny, options));
  const auto quantized = io::Checkpoint::open(temp / "target-fp8");
  ASSERT_TRUE(quantized) << quantized.error().message;
  EXPECT_TRUE(quantized->quantization().weight_only);
  EXPECT_TRUE(quantized->find("layers.0.mlp.up_proj.input_scale"));
  const auto group =
      json_of(temp / "target-fp8/config.json")["quantization_config"]["config_groups"]["group_0"];
  EXPECT_FALSE(group.contains("input_activations"));
}

TEST(Quantize, KvScalesOfEveryLayer) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  QuantizeOptions options = options_for(temp);
  options.scales.kv_fp8 = true;
  const auto result = quantize_tiny(tiny, options);
  ASSERT_TRUE(result) << result.error().message;
  const auto target = io::Checkpoint::open(temp / "target-fp8");
  ASSERT_TRUE(target) << target.error().message;
  EXPECT_TRUE(target->quantization().kv_cache_fp8);
  for (int64_t layer = 0; layer < 3; ++layer) {
    const auto scales = target->kv_scales(layer);
    EXPECT_TRUE(scales.calibrated);
    EXPECT_EQ(scales.k_scale, result->target->plan.kv[static_cast<size_t>(layer)].k_amax / 448);
    // V has unit mean square: no value is above sqrt(head_dim), and some are above 1.
    EXPECT_GT(scales.v_scale, 1.0F / 448);
    EXPECT_LT(scales.v_scale, std::sqrt(32.0F) * 1.01F / 448);
  }
  EXPECT_FALSE(io::Checkpoint::open(temp / "assistant-fp8")->quantization().kv_cache_fp8);
}

TEST(Quantize, ExcludedModulesStayAsTheyWere) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  QuantizeOptions options = options_for(temp);
  options.exclude = {"layers.1.mlp.down_proj", "*.self_attn.*"};
  ASSERT_TRUE(quantize_tiny(tiny, options));
  const auto source = io::Checkpoint::open(temp / "target");
  const auto quantized = io::Checkpoint::open(temp / "target-fp8");
  ASSERT_TRUE(quantized) << quantized.error().message;
  for (const std::string& module : quantizable_modules(*source)) {
    const bool excluded =
        module == "layers.1.mlp.down_proj" || module.find("self_attn") != std::string::npos;
    EXPECT_EQ(quantized->linear(module).format == io::WeightFormat::kBF16, excluded) << module;
  }
  options.exclude = {"*"};
  options.force = true;
  EXPECT_FALSE(quantize_tiny(tiny, options)) << "nothing left to quantize";
  options.exclude = {"layers.77.mlp.down_proj"};
  EXPECT_FALSE(quantize_tiny(tiny, options));
}

TEST(Quantize, AutoExcludeKeepsTheBudget) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  QuantizeOptions options = options_for(temp);
  options.out_assistant.reset();
  options.auto_exclude = 1e9;
  const auto all = quantize_tiny(tiny, options);
  ASSERT_TRUE(all) << all.error().message;
  ASSERT_TRUE(all->target->auto_exclusion->excluded.empty());
  const double cost = all->target->auto_exclusion->measured_before;
  ASSERT_GT(cost, 0);
  options.auto_exclude = cost / 3;
  options.force = true;
  const auto some = quantize_tiny(tiny, options);
  ASSERT_TRUE(some) << some.error().message;
  EXPECT_FALSE(some->target->plan.excluded.empty());
  EXPECT_LE(some->target->auto_exclusion->measured_after, cost / 3);
  EXPECT_EQ(some->target->auto_exclusion->measured_before, cost);
  const auto quantized = io::Checkpoint::open(temp / "target-fp8");
  ASSERT_TRUE(quantized) << quantized.error().message;
  for (const std::string& module : some->target->plan.excluded)
    EXPECT_EQ(quantized->linear(module).format, io::WeightFormat::kBF16) << module;
}

TEST(Quantize, MediaTensorsAreCopiedAndShardsHaveAnIndex) {
  const TempFolder temp;
  TinyOptions tiny_options;
  tiny_options.media_tensors = true;
  const TinyPair tiny = write_tiny_pair(temp.path(), tiny_options);
  QuantizeOptions options = options_for(temp);
  options.max_shard_bytes = 20'000;
  ASSERT_TRUE(quantize_tiny(tiny, options));
  EXPECT_TRUE(fs::exists(temp / "target-fp8/model.safetensors.index.json"));
  const auto source = io::Checkpoint::open(temp / "target");
  const auto quantized = io::Checkpoint::open(temp / "target-fp8");
  ASSERT_TRUE(quantized) << quantized.error().message;
  size_t media = 0;
  for (const auto& tensor : source->stored_tensors())
    media += static_cast<size_t>(tensor.canonical_name.empty());
  size_t found = 0;
  for (const auto& tensor : quantized->stored_tensors())
    found += static_cast<size_t>(tensor.canonical_name.empty());
  EXPECT_GT(media, size_t{0});
  EXPECT_EQ(found, media);
}

TEST(Quantize, BrokenSourcesAreRefusedByNameAndNothingIsLeft) {
  const TempFolder temp;
  auto target = test_support::make_tiny_target();
  const std::string name = "model.language_model.layers.1.mlp.up_proj.weight";
  target.set_bf16(name, 7, 0x7fc0);
  target.write(temp / "target");
  test_support::make_tiny_assistant().write(temp / "assistant");
  const auto nan = quantize_tiny({temp / "target", temp / "assistant"}, options_for(temp));
  ASSERT_FALSE(nan);
  EXPECT_NE(nan.error().message.find(name), std::string::npos) << nan.error().message;

  // An input that is always zero: down_proj's, when gate_proj is.
  auto dead = test_support::make_tiny_target();
  auto& gate = dead.tensor("model.language_model.layers.1.mlp.gate_proj.weight");
  gate.bytes.assign(gate.bytes.size(), '\0');
  dead.write(temp / "dead");
  const auto zero = quantize_tiny({temp / "dead", temp / "assistant"}, options_for(temp));
  ASSERT_FALSE(zero);
  EXPECT_NE(zero.error().message.find("layers.1.mlp.down_proj"), std::string::npos)
      << zero.error().message;
  EXPECT_FALSE(fs::exists(temp / "target-fp8"));
  EXPECT_FALSE(fs::exists(temp / "target-fp8.partial"));
}

TEST(Quantize, CancellingLeavesNothing) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  for (int stop_at = 0; stop_at < 60; stop_at += 7) {
    auto pair = model::load_pair(pair_options(tiny));
    core::ThreadPool pool(1);
    int calls = 0;
    const auto result =
        quantize_pair({ops::Backend::kCpu, &pool}, std::move(*pair), kPrompts, options_for(temp),
                      [&](std::string_view, int64_t, int64_t) { return calls++ < stop_at; });
    ASSERT_FALSE(result) << stop_at;
    EXPECT_EQ(result.error().code, base::ErrorCode::kCancelled);
    size_t entries = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(temp.path())) ++entries;
    EXPECT_EQ(entries, size_t{2}) << "target and assistant, stopped at " << stop_at;
  }
}

TEST(Quantize, OutputsOnSourcesOrOnEachOtherAreRefused) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  QuantizeOptions options = options_for(temp);
  options.out_target = tiny.target;
  options.force = true;
  EXPECT_FALSE(quantize_tiny(tiny, options));
  options.out_target = tiny.target / "fp8";
  EXPECT_FALSE(quantize_tiny(tiny, options));
  options.out_target = options.out_assistant;
  EXPECT_FALSE(quantize_tiny(tiny, options));
  EXPECT_TRUE(io::Checkpoint::open(tiny.target));
}

TEST(Quantize, OutputsWhoseHelpersAreAnotherOutputOrASourceAreRefused) {
  const TempFolder temp;
  const TinyPair tiny = write_tiny_pair(temp.path());
  QuantizeOptions options = options_for(temp);
  options.force = true;
  options.out_target = temp / "model";
  for (const char* name : {"model.partial", "model.replaced", "model.partial/inner"}) {
    options.out_assistant = temp / name;
    EXPECT_FALSE(quantize_tiny(tiny, options)) << name;
    std::swap(options.out_target, options.out_assistant);
    EXPECT_FALSE(quantize_tiny(tiny, options)) << name;
    std::swap(options.out_target, options.out_assistant);
  }
  // What an interrupted run with --force put aside may be the only good copy: it is the source.
  TinyPair aside = tiny;
  aside.target = temp / "old.replaced";
  std::filesystem::rename(tiny.target, aside.target);
  write_bytes(aside.target / "REPLACED", "");
  options = options_for(temp);
  options.out_target = temp / "old";
  const auto result = quantize_tiny(aside, options);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("old.replaced"), std::string::npos);
  EXPECT_TRUE(io::Checkpoint::open(aside.target));
}

TEST(Quantize, QuantizedSourcesAreRefused) {
  const TempFolder temp;
  TinyOptions tiny_options;
  tiny_options.target_format = test_support::TinyFormat::kFp8;
  const TinyPair tiny = write_tiny_pair(temp.path(), tiny_options);
  const auto result = quantize_tiny(tiny, options_for(temp));
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("quantized already"), std::string::npos);
}

}  // namespace
}  // namespace tandem::quantize
