// Spellings and legal variations that must load: the other half of the refusals table.
#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"
#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

using nlohmann::json;
using test_support::TinyCheckpoint;
using test_support::TinyTensor;

void respell(TinyCheckpoint& checkpoint, const std::string& from, const std::string& to) {
  for (TinyTensor& tensor : checkpoint.tensors)
    if (tensor.name.starts_with(from)) tensor.name = to + tensor.name.substr(from.size());
}

constexpr const char* kHub = "model.language_model.";

TEST(ValidVariantsTest, NameSpellings) {
  expect_loads({
      {"hub names", Start::kTarget, {}, {}},
      {"text tower saved alone", Start::kTextOnly, {}, {}},
      {"text tower with hub names",
       Start::kTextOnly,
       [](auto& c) { respell(c, "model.", kHub); },
       {}},
      {"language_model.model. names",
       Start::kTarget,
       [](auto& c) { respell(c, kHub, "language_model.model."); },
       {}},
      {"language_model. names",
       Start::kTarget,
       [](auto& c) { respell(c, kHub, "language_model."); },
       {}},
      {"names without a prefix", Start::kTarget, [](auto& c) { respell(c, kHub, ""); }, {}},
      {"FP8 with language_model.model. names",
       Start::kFp8Target,
       [](auto& c) { respell(c, kHub, "language_model.model."); },
       {}},
      {"projections with model.",
       Start::kAssistant,
       [](auto& c) {
         respell(c, "pre_projection", "model.pre_projection");
         respell(c, "post_projection", "model.post_projection");
       },
       {}},
      {"four shards", Start::kTarget, {}, {}, {}, 4},
      {"FP8 in three shards", Start::kFp8Target, {}, {}, {}, 3},
      {"explicit lm_head of a tied model",
       Start::kTextOnly,
       [](auto& c) {
         TinyTensor head = c.tensor("model.embed_tokens.weight");
         head.name = "lm_head.weight";
         c.tensors.push_back(head);
       },
       {}},
      {"lm_head as language_model.lm_head",
       Start::kTarget,
       [](auto& c) {
         TinyTensor head = c.tensor("model.language_model.embed_tokens.weight");
         head.name = "language_model.lm_head.weight";
         c.tensors.push_back(head);
       },
       {}},
      {"untied with its own lm_head",
       Start::kTarget,
       [](auto& c) {
         TinyTensor head = c.tensor("model.language_model.embed_tokens.weight");
         head.name = "lm_head.weight";
         head.bytes[0] = static_cast<char>(head.bytes[0] ^ 1);
         c.tensors.push_back(head);
         c.config["tie_word_embeddings"] = false;
       },
       {}},
  });
}

TEST(ValidVariantsTest, ConfigSpellings) {
  expect_loads({
      {"per_layer_config map",
       Start::kTarget,
       [](auto& c) {
         json& text = c.config["text_config"];
         text.erase("global_head_dim");
         text.erase("num_global_key_value_heads");
         text["per_layer_config"]["2"] = {{"head_dim", 32}, {"num_key_value_heads", 1}};
       },
       {}},
      {"both spellings, agreeing",
       Start::kTarget,
       [](auto& c) {
         c.config["text_config"]["per_layer_config"]["2"] = {{"head_dim", 32},
                                                             {"num_key_value_heads", 1}};
       },
       {}},
      {"gemma4", Start::kTarget, [](auto& c) { c.config["model_type"] = "gemma4"; }, {}},
      {"gemma4_text",
       Start::kTextOnly,
       [](auto& c) { c.config["model_type"] = "gemma4_text"; },
       {}},
      {"gemma4_assistant",
       Start::kAssistant,
       [](auto& c) { c.config["model_type"] = "gemma4_assistant"; },
       {}},
      {"gemma4-assistant",
       Start::kAssistant,
       [](auto& c) { c.config["model_type"] = "gemma4-assistant"; },
       {}},
      {"auto_map is ignored",
       Start::kTarget,
       [](auto& c) { c.config["auto_map"]["AutoModel"] = "modeling.Evil"; },
       {}},
  });
}

TEST(ValidVariantsTest, ConfigOmissions) {
  expect_loads({
      {"no rope_parameters: transformers' defaults",
       Start::kTarget,
       [](auto& c) { c.config["text_config"].erase("rope_parameters"); },
       {}},
      {"no generation_config.json",
       Start::kTarget,
       [](auto& c) { c.generation_config = nullptr; },
       {}},
      {"generation eos as a scalar",
       Start::kTarget,
       [](auto& c) { c.generation_config["eos_token_id"] = 1; },
       {}},
      {"num_kv_shared_layers absent in an assistant",
       Start::kAssistant,
       [](auto& c) { c.config["text_config"].erase("num_kv_shared_layers"); },
       {}},
      {"image_token_id past a tiny vocabulary",
       Start::kTarget,
       [](auto& c) { c.config["image_token_id"] = 258880; },
       {}},
      {"use_bidirectional_attention null",
       Start::kTarget,
       [](auto& c) { c.config["text_config"]["use_bidirectional_attention"] = nullptr; },
       {}},
      {"integers written as 64.0",
       Start::kTarget,
       [](auto& c) { c.config["text_config"]["hidden_size"] = 64.0; },
       {}},
      {"unknown keys",
       Start::kTarget,
       [](auto& c) { c.config["text_config"]["initializer_range"] = 0.02; },
       {}},
  });
}

json& modelopt(TinyCheckpoint& c) {
  return c.config["quantization_config"];
}

// Leaves one module in BF16 and lets `entry` be its only mention in both lists.
void keep_bf16(TinyCheckpoint& c, const std::vector<std::string>& modules,
               const std::string& entry) {
  TinyCheckpoint plain = make_start(Start::kTarget);
  for (const std::string& module : modules) {
    c.tensor(module + ".weight") = plain.tensor(module + ".weight");
    c.remove(module + ".weight_scale");
    c.remove(module + ".input_scale");
  }
  modelopt(c)["ignore"].push_back(entry);
  c.hf_quant_config["quantization"]["exclude_modules"].push_back(entry);
}

std::vector<std::string> mlp_of(int layer) {
  const std::string prefix = std::string(kHub) + "layers." + std::to_string(layer) + ".mlp.";
  return {prefix + "gate_proj", prefix + "up_proj", prefix + "down_proj"};
}

Row excluding(const char* what, const std::string& entry) {
  return {what, Start::kFp8Target, [entry](auto& c) { keep_bf16(c, mlp_of(1), entry); }, {}};
}

TEST(ValidVariantsTest, ExclusionSpellings) {
  expect_loads({
      excluding("prefix*", "model.language_model.layers.1.mlp*"),
      excluding("prefix.*", "model.language_model.layers.1.mlp.*"),
      excluding("a parent's exact name", "model.language_model.layers.1.mlp"),
      excluding("without model.", "language_model.layers.1.mlp*"),
      excluding("without language_model.", "model.layers.1.mlp*"),
      excluding("without any prefix", "layers.1.mlp*"),
      excluding("vLLM's order of prefixes", "language_model.model.layers.1.mlp*"),
      excluding("shell wildcards", "*layers.1.m?p.*_proj"),
      excluding("a set", "*.layers.[1-1].mlp.*"),
      {"per projection",
       Start::kFp8Target,
       [](auto& c) {
         keep_bf16(c, {"model.language_model.layers.0.self_attn.q_proj"},
                   "model.language_model.layers.0.self_attn.q_proj");
       },
       {}},
  });
}

TEST(ValidVariantsTest, QuantizationSpellings) {
  expect_loads({
      {"only config.json", Start::kFp8Target, [](auto& c) { c.hf_quant_config = nullptr; }, {}},
      {"only hf_quant_config.json",
       Start::kFp8Target,
       [](auto& c) { c.config.erase("quantization_config"); },
       {}},
      {"lower-case quant_algo",
       Start::kFp8Target,
       [](auto& c) { modelopt(c)["quant_algo"] = "fp8"; },
       {}},
      {"the nested form inside config.json",
       Start::kFp8Target,
       [](auto& c) { modelopt(c) = c.hf_quant_config; },
       {}},
      {"lists in another order",
       Start::kFp8Assistant,
       [](auto& c) { modelopt(c)["ignore"] = {"pre_projection", "lm_head", "post_projection"}; },
       {}},
      {"scales of shape [1]",
       Start::kFp8Target,
       [](auto& c) {
         for (TinyTensor& tensor : c.tensors)
           if (tensor.name.ends_with("_scale")) tensor.shape = {1};
       },
       {}},
      {"input_scale 1.0",
       Start::kFp8Target,
       [](auto& c) { c.set_scalar("model.language_model.layers.0.mlp.up_proj.input_scale", 1.0F); },
       {}},
  });
}

TEST(ValidVariantsTest, ScaleSpellings) {
  expect_loads({
      {"FP8 KV cache without scales",
       Start::kFp8Target,
       [](auto& c) {
         modelopt(c)["kv_cache_scheme"] = {{"num_bits", 8}, {"type", "float"}};
         c.hf_quant_config["quantization"]["kv_cache_quant_algo"] = "FP8";
       },
       {}},
      {"kv_cache_scheme as a string",
       Start::kFp8KvTarget,
       [](auto& c) { modelopt(c)["kv_cache_scheme"] = "FP8"; },
       {}},
      {"KV scales as self_attn.k_scale",
       Start::kFp8KvTarget,
       [](auto& c) {
         for (TinyTensor& tensor : c.tensors)
           for (const std::string which : {"k", "v"})
             if (const size_t at = tensor.name.find(which + "_proj." + which + "_scale");
                 at != std::string::npos)
               tensor.name = tensor.name.substr(0, at) + which + "_scale";
       },
       {}},
      {"block scales as a matrix",
       Start::kBlockTarget,
       [](auto& c) {
         for (TinyTensor& tensor : c.tensors)
           if (tensor.name.ends_with("_scale")) tensor.shape = {tensor.shape[0], tensor.shape[2]};
       },
       {}},
      {"channel scales as a column",
       Start::kPerChannelTarget,
       [](auto& c) {
         for (TinyTensor& tensor : c.tensors)
           if (tensor.name.ends_with("_scale")) tensor.shape.push_back(1);
       },
       {}},
      {"compressed-tensors, dynamic activations per tensor",
       Start::kCompressedChannelTarget,
       [](auto& c) {
         modelopt(c)["config_groups"]["group_0"]["input_activations"]["strategy"] = "tensor";
       },
       {}},
      {"compressed-tensors, weight-only",
       Start::kCompressedChannelTarget,
       [](auto& c) { modelopt(c)["config_groups"]["group_0"]["input_activations"] = nullptr; },
       {}},
      {"compressed-tensors, re: in the list",
       Start::kCompressedChannelTarget,
       [](auto& c) { modelopt(c)["ignore"] = {"re:.*lm_head$", "re:model\\.vision.*"}; },
       {}},
      {"BF16 target has a media tower",
       Start::kTarget,
       [](auto& c) {
         c.add("model.vision_embedder.patch_ln1.bias", core::DType::kF32, {3},
               std::string(12, '\0'));
       },
       {}},
  });
}

}  // namespace
}  // namespace tandem::io
