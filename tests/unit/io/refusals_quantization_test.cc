// Refusals: ModelOpt checkpoints whose JSON, lists and scales do not fit together.
#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

using core::DType;
using nlohmann::json;
using test_support::TinyCheckpoint;
using test_support::TinyTensor;

const std::string kTower = "model.language_model.";
const std::string kUp = kTower + "layers.1.mlp.up_proj";

json& block(TinyCheckpoint& c) {
  return c.config["quantization_config"];
}
json& hf(TinyCheckpoint& c) {
  return c.hf_quant_config["quantization"];
}

Row fp8(const char* what, std::function<void(TinyCheckpoint&)> edit,
        std::vector<std::string> message) {
  return {what, Start::kFp8Target, std::move(edit), std::move(message)};
}

Row drafter(const char* what, std::function<void(TinyCheckpoint&)> edit,
            std::vector<std::string> message) {
  return {what, Start::kFp8Assistant, std::move(edit), std::move(message)};
}

Row algorithm(const char* name) {
  return fp8(name,
             [name](TinyCheckpoint& c) {
               block(c)["quant_algo"] = name;
               hf(c)["quant_algo"] = name;
             },
             {"config.json: quantization_config: quant_algo: expected FP8, FP8_PB_WO, "
              "FP8_PER_CHANNEL_PER_TOKEN (ModelOpt) or float-quantized 8-bit "
              "(compressed-tensors), got " +
              std::string(name)});
}

TEST(RefusalsTest, QuantizationAlgorithms) {
  std::vector<Row> rows;
  for (const char* name :
       {"NVFP4", "W4A16_NVFP4", "MXFP8", "MIXED_PRECISION", "W4A16_AWQ", "W4A8_AWQ", "NVFP4_AWQ",
        "NVFP4_SVD", "W8A8_SQ_PER_CHANNEL", "W8A16", "INT4", "FP8_2"})
    rows.push_back(algorithm(name));
  for (const char* method : {"gptq", "awq", "bitsandbytes", "fp8", "mxfp4", "torchao"})
    rows.push_back(fp8(method, [method](auto& c) { block(c)["quant_method"] = method; },
                       {"quantization_config: quant_method: expected modelopt or "
                        "compressed-tensors, got " +
                            std::string(method),
                        "FP8_PB_WO"}));
  expect_refused(rows);
}

TEST(RefusalsTest, QuantizationJson) {
  expect_refused({
      fp8("quantization_config a string", [](auto& c) { block(c) = "FP8"; },
          {"config.json: quantization_config: expected an object, got \"FP8\""}),
      fp8("quantization_config a list", [](auto& c) { block(c) = json::array(); },
          {"quantization_config: expected an object, got an array of 0"}),
      fp8("no quant_algo", [](auto& c) { block(c).erase("quant_algo"); },
          {"quantization_config: quant_algo: expected a string, got no such key"}),
      fp8("quant_algo null", [](auto& c) { hf(c)["quant_algo"] = nullptr; },
          {"hf_quant_config.json: quantization: quant_algo: expected a string, got null"}),
      fp8("quant_algo a number", [](auto& c) { block(c)["quant_algo"] = 8; },
          {"quant_algo: expected a string, got 8"}),
      fp8("ignore a string", [](auto& c) { block(c)["ignore"] = "lm_head"; },
          {"quantization_config: ignore: expected a list of strings, got \"lm_head\""}),
      fp8("a number in ignore", [](auto& c) { block(c)["ignore"] = {"lm_head", 3}; },
          {"quantization_config: ignore[1]: expected a string, got 3"}),
      fp8("an empty name in ignore", [](auto& c) { block(c)["ignore"] = {""}; },
          {"ignore: expected module names of 1 to 1024 bytes, got one of 0"}),
      fp8("a name of 5,000 bytes", [](auto& c) { block(c)["ignore"] = {std::string(5000, '*')}; },
          {"ignore: expected module names of 1 to 1024 bytes, got one of 5000"}),
      fp8("20,000 names",
          [](auto& c) { block(c)["ignore"] = std::vector<std::string>(20'000, "a"); },
          {"ignore: expected at most 10000 entries, got 20000"}),
      fp8("4-bit weights in a group",
          [](auto& c) { block(c)["config_groups"]["group_0"]["weights"]["num_bits"] = 4; },
          {"config_groups: group_0: weights: expected num_bits 8 and type float, got 4 and float"}),
      fp8("integer activations",
          [](auto& c) {
            block(c)["config_groups"]["group_0"]["input_activations"]["type"] = "int";
          },
          {"group_0: input_activations: expected num_bits 8 and type float, got 8 and int"}),
      fp8("config_groups a list", [](auto& c) { block(c)["config_groups"] = json::array(); },
          {"config_groups: expected an object, got an array of 0"}),
      fp8("a group that is a string", [](auto& c) { block(c)["config_groups"]["group_0"] = "x"; },
          {"config_groups: group_0: expected an object, got \"x\""}),
      fp8("activations in one group of two",
          [](auto& c) { block(c)["config_groups"]["group_1"] = {{"targets", {"Linear"}}}; },
          {"expected input_activations in all groups or in none, got 1 of 2"}),
      fp8("INT8 KV cache", [](auto& c) { hf(c)["kv_cache_quant_algo"] = "INT8"; },
          {"hf_quant_config.json: quantization: kv_cache_quant_algo: expected FP8 or null, got "
           "\"INT8\""}),
      fp8("NVFP4 KV cache", [](auto& c) { block(c)["kv_cache_scheme"] = "NVFP4"; },
          {"kv_cache_scheme: expected FP8 or null, got \"NVFP4\""}),
      fp8("4-bit KV cache",
          [](auto& c) { block(c)["kv_cache_scheme"] = {{"num_bits", 4}, {"type", "float"}}; },
          {"kv_cache_scheme: expected num_bits 8 and type float, got 4 and float"}),
      fp8("kv_cache_scheme a number", [](auto& c) { block(c)["kv_cache_scheme"] = 8; },
          {"kv_cache_scheme: expected an object, got 8"}),
      fp8("broken hf_quant_config.json",
          [](auto& c) { c.raw_files["hf_quant_config.json"] = "{\"quantization\":"; },
          {"hf_quant_config.json: expected valid JSON, got broken JSON at byte"}),
      fp8("hf_quant_config.json without `quantization`",
          [](auto& c) { c.hf_quant_config = {{"quant_algo", "FP8"}}; },
          {"hf_quant_config.json: quantization: expected an object, got no such key"}),
  });
}

TEST(RefusalsTest, TwoFilesThatDisagree) {
  expect_refused({
      fp8("another algorithm", [](auto& c) { hf(c)["quant_algo"] = "FP8_PB_WO"; },
          {"hf_quant_config.json: quant_algo: expected FP8 as", "config.json",
           "says, got FP8_PB_WO"}),
      fp8("another list", [](auto& c) { hf(c)["exclude_modules"].push_back("model.vision*"); },
          {"hf_quant_config.json: exclude_modules: expected the same list as `ignore` in",
           "differ in [model.vision*]"}),
      fp8("an empty list", [](auto& c) { hf(c)["exclude_modules"] = json::array(); },
          {"exclude_modules: expected the same list", "differ in [lm_head]"}),
      fp8("another KV cache", [](auto& c) { hf(c)["kv_cache_quant_algo"] = "FP8"; },
          {"hf_quant_config.json: kv_cache_quant_algo: expected null as", "says, got FP8"}),
      drafter("a block from the other model",
              [](auto& c) { block(c)["ignore"] = {"lm_head", "model.language_model.layers.0*"}; },
              {"exclude_modules: expected the same list", "differ in"}),
  });
}

void exclude(TinyCheckpoint& c, const char* entry) {
  block(c)["ignore"].push_back(entry);
  hf(c)["exclude_modules"].push_back(entry);
}

TEST(RefusalsTest, ListAndTensorsDisagree) {
  expect_refused({
      fp8("excluded, but FP8", [](auto& c) { exclude(c, "model.language_model.layers.1.mlp*"); },
          {"tensor " + kTower + "layers.1.mlp.gate_proj.weight: expected BF16 (",
           "excludes layers.1.mlp.gate_proj by \"model.language_model.layers.1.mlp*\"), got "
           "F8_E4M3"}),
      fp8("excluded by a short spelling, but FP8", [](auto& c) { exclude(c, "layers.0.*"); },
          {"layers.0.self_attn.q_proj.weight: expected BF16", "by \"layers.0.*\"), got F8_E4M3"}),
      fp8("everything excluded", [](auto& c) { exclude(c, "*"); },
          {"expected BF16", "by \"*\"), got F8_E4M3"}),
      fp8("excluded and BF16, but with a scale",
          [](auto& c) {
            exclude(c, kUp.c_str());
            c.tensor(kUp + ".weight") = make_start(Start::kTarget).tensor(kUp + ".weight");
          },
          {"tensor " + kUp + ".weight_scale: expected no scale (", "excludes layers.1.mlp.up_proj",
           "got one"}),
      fp8("excluded and BF16, but with an input scale",
          [](auto& c) {
            exclude(c, kUp.c_str());
            c.tensor(kUp + ".weight") = make_start(Start::kTarget).tensor(kUp + ".weight");
            c.remove(kUp + ".weight_scale");
          },
          {"tensor " + kUp + ".input_scale: expected no scale ("}),
      fp8("not excluded, but BF16",
          [](auto& c) {
            c.tensor(kUp + ".weight") = make_start(Start::kTarget).tensor(kUp + ".weight");
            c.remove(kUp + ".weight_scale");
            c.remove(kUp + ".input_scale");
          },
          {"tensor " + kUp + ".weight: expected F8_E4M3 (",
           "says FP8 and does not exclude layers.1.mlp.up_proj), got BF16"}),
  });
}

TEST(RefusalsTest, DeclarationAndWeightsDisagree) {
  expect_refused({
      {"FP8 declared, all weights BF16",
       Start::kTarget,
       [](auto& c) {
         const TinyCheckpoint other = make_start(Start::kFp8Target);
         c.config["quantization_config"] = other.config["quantization_config"];
       },
       {"layers.0.self_attn.q_proj.weight: expected F8_E4M3", "got BF16"}},
      fp8("weights FP8, no block at all",
          [](auto& c) {
            c.config.erase("quantization_config");
            c.hf_quant_config = nullptr;
          },
          {"layers.0.self_attn.q_proj.weight: expected BF16 (config.json has no "
           "quantization_config and there is no hf_quant_config.json), got F8_E4M3"}),
      drafter("an assistant's FP8 weights without a block",
              [](auto& c) {
                c.config.erase("quantization_config");
                c.hf_quant_config = nullptr;
              },
              {"model.layers.0.self_attn.q_proj.weight: expected BF16 (config.json has no "
               "quantization_config"}),
      {"BF16 with a stray scale",
       Start::kTarget,
       [](auto& c) { c.add_scalar(kUp + ".weight_scale", 1.0F); },
       {"tensor " + kUp + ".weight_scale: expected no scale (config.json has no"}},
      {"BF16 with stray KV scales",
       Start::kTarget,
       [](auto& c) { c.add_scalar(kTower + "layers.0.self_attn.k_proj.k_scale", 1.0F); },
       {"k_proj.k_scale: expected no scale (config.json has no quantization_config"}},
      fp8("layers.1* is not layers.10*",
          [](auto& c) { exclude(c, "model.language_model.layers.1*"); },
          {"layers.1.self_attn.q_proj.weight: expected BF16"}),
      fp8("E5M2 weights", [](auto& c) { c.tensor(kUp + ".weight").dtype = DType::kF8E5M2; },
          {kUp + ".weight: expected F8_E4M3 (", "got F8_E5M2"}),
      fp8("I8 weights", [](auto& c) { c.tensor(kUp + ".weight").dtype = DType::kI8; },
          {kUp + ".weight: expected F8_E4M3 (", "got I8"}),
      fp8("an FP8 weight on its side", [](auto& c) { c.tensor(kUp + ".weight").shape = {64, 96}; },
          {kUp + ".weight: expected F8_E4M3 [96, 64], got F8_E4M3 [64, 96]"}),
  });
}

TEST(RefusalsTest, ModulesThatStayBf16) {
  expect_refused({
      drafter("a scale on pre_projection",
              [](auto& c) { c.add_scalar("pre_projection.weight_scale", 1.0F); },
              {"tensor pre_projection.weight_scale: expected no scale (this module always stays "
               "BF16), got one"}),
      drafter("an input scale on post_projection",
              [](auto& c) { c.add_scalar("post_projection.input_scale", 1.0F); },
              {"tensor post_projection.input_scale: expected no scale"}),
      drafter("pre_projection in FP8",
              [](auto& c) {
                TinyTensor& weight = c.tensor("pre_projection.weight");
                weight.dtype = DType::kF8E4M3;
                weight.bytes.resize(weight.bytes.size() / 2);
              },
              {"tensor pre_projection.weight: expected BF16 (this module always stays BF16), got "
               "F8_E4M3"}),
      fp8("a scale on lm_head", [](auto& c) { c.add_scalar("lm_head.weight_scale", 1.0F); },
          {"tensor lm_head.weight_scale: expected no scale (lm_head always stays BF16), got one"}),
      fp8("a scale on the embedding",
          [](auto& c) { c.add_scalar(kTower + "embed_tokens.weight_scale", 1.0F); },
          {"embed_tokens.weight_scale: expected no scale (embed_tokens always stays BF16)"}),
      fp8("a scale on a norm", [](auto& c) { c.add_scalar(kTower + "norm.weight_scale", 1.0F); },
          {"tensor " + kTower + "norm.weight_scale: expected only tensors of"}),
      fp8("NVFP4 leftovers", [](auto& c) { c.add_scalar(kUp + ".weight_scale_2", 1.0F); },
          {kUp + ".weight_scale_2: expected only tensors", "NVFP4 weights are not supported"}),
      fp8("block scales of DeepSeek's kind",
          [](auto& c) { c.add_scalar(kUp + ".weight_scale_inv", 1.0F); },
          {kUp + ".weight_scale_inv: expected only tensors", "DeepSeek-style"}),
  });
}

}  // namespace
}  // namespace tandem::io
