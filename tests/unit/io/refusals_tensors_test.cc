// Refusals: tensors that are missing, unknown, of another shape or dtype, or full of NaN.
#include <gtest/gtest.h>

#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

using core::DType;
using test_support::TinyCheckpoint;
using test_support::TinyTensor;

const std::string kTower = "model.language_model.";
const std::string kFile = "model.safetensors: tensor " + kTower;

Row missing(const char* what, const std::string& name, const std::string& expected) {
  return {what,
          Start::kTarget,
          [name](TinyCheckpoint& c) { c.remove(kTower + name); },
          {kFile + name + ": expected " + expected + ", got no such tensor"}};
}

Row unknown(const char* what, const std::string& name, const std::string& message) {
  return {what,
          Start::kTarget,
          [name](TinyCheckpoint& c) { c.add(name, DType::kBF16, {1}, "ab"); },
          {"model.safetensors: tensor " + name + ": expected " + message}};
}

Row reshaped(const char* what, const std::string& name, std::vector<int64_t> shape,
             const std::string& message) {
  return {what,
          Start::kTarget,
          [name, shape](TinyCheckpoint& c) {
            int64_t count = 1;
            for (const int64_t dim : shape) count *= dim;
            TinyTensor& tensor = c.tensor(kTower + name);
            tensor.shape = shape;
            tensor.bytes.resize(static_cast<size_t>(count) * 2);
          },
          {kFile + name + ": expected " + message}};
}

Row retyped(const char* what, const std::string& name, DType dtype, const std::string& message) {
  return {what,
          Start::kTarget,
          [name, dtype](TinyCheckpoint& c) {
            TinyTensor& tensor = c.tensor(kTower + name);
            const size_t count = tensor.bytes.size() / 2;
            tensor.dtype = dtype;
            tensor.bytes.assign(count * core::dtype_bytes(dtype), '\0');
          },
          {kFile + name + ": expected " + message}};
}

TEST(RefusalsTest, MissingTensors) {
  const std::string weight = "a weight of shape ";
  expect_refused({
      missing("no embedding", "embed_tokens.weight", "BF16 [97, 64]"),
      missing("no final norm", "norm.weight", "BF16 [64]"),
      missing("no input norm", "layers.1.input_layernorm.weight", "BF16 [64]"),
      missing("no norm after attention", "layers.0.post_attention_layernorm.weight", "BF16 [64]"),
      missing("no norm before the MLP", "layers.2.pre_feedforward_layernorm.weight", "BF16 [64]"),
      missing("no norm after the MLP", "layers.2.post_feedforward_layernorm.weight", "BF16 [64]"),
      missing("no layer_scalar", "layers.0.layer_scalar", "BF16 [1]"),
      missing("no q_norm", "layers.0.self_attn.q_norm.weight", "BF16 [16]"),
      missing("no k_norm in a full layer", "layers.2.self_attn.k_norm.weight", "BF16 [32]"),
      missing("no q_proj", "layers.0.self_attn.q_proj.weight", weight + "[64, 64]"),
      missing("no k_proj", "layers.2.self_attn.k_proj.weight", weight + "[32, 64]"),
      missing("no v_proj in a sliding layer", "layers.1.self_attn.v_proj.weight",
              weight + "[32, 64]"),
      missing("no o_proj", "layers.2.self_attn.o_proj.weight", weight + "[64, 128]"),
      missing("no gate_proj", "layers.0.mlp.gate_proj.weight", weight + "[96, 64]"),
      missing("no up_proj", "layers.1.mlp.up_proj.weight", weight + "[96, 64]"),
      missing("no down_proj", "layers.2.mlp.down_proj.weight", weight + "[64, 96]"),
      {"a whole layer less",
       Start::kTarget,
       [](auto& c) {
         std::erase_if(c.tensors, [](const TinyTensor& t) {
           return t.name.find("layers.2.") != std::string::npos;
         });
       },
       {"layers.2.input_layernorm.weight: expected BF16 [64], got no such tensor"}},
      {"untied without lm_head",
       Start::kTarget,
       [](auto& c) { c.config["tie_word_embeddings"] = false; },
       {"tensor lm_head.weight: expected BF16 [97, 64], got no such tensor"}},
      {"no tensors at all",
       Start::kTarget,
       [](auto& c) { c.tensors.clear(); },
       {"tensor embed_tokens.weight: expected BF16 [97, 64], got no such tensor"}},
      {"missing in a sharded model",
       Start::kTarget,
       [](auto& c) { c.remove(kTower + "norm.weight"); },
       {"tensor model.language_model.norm.weight: expected BF16 [64], got no such tensor"},
       {},
       3},
  });
}

TEST(RefusalsTest, UnknownTensors) {
  const std::string family = "only tensors of a gemma4_unified with 3 layers, got an unknown one";
  expect_refused({
      unknown("a bias", kTower + "layers.0.mlp.up_proj.bias", family),
      unknown("a layer too many", kTower + "layers.3.layer_scalar", family),
      unknown("a name of another model", "transformer.h.0.attn.c_attn.weight", family),
      unknown("experts", kTower + "layers.0.experts.gate_up_proj",
              family + "; mixture-of-experts layers (26B-A4B) are not supported"),
      unknown("a router", kTower + "layers.0.router.proj.weight", family + "; mixture-of-experts"),
      unknown("per-layer embeddings", kTower + "embed_tokens_per_layer.weight",
              family + "; per-layer embeddings (E2B, E4B) are not supported"),
      unknown("a per-layer projection", kTower + "per_layer_model_projection.weight",
              family + "; per-layer embeddings"),
      unknown("V in a full layer", kTower + "layers.2.self_attn.v_proj.weight",
              "no V projection (attention_k_eq_v: V of a full layer is its K projection), got one"),
      unknown("an assistant's projection", "pre_projection.weight", family),
      unknown("a v_norm weight", kTower + "layers.0.self_attn.v_norm.weight", family),
      unknown("a layer number with a zero in front", kTower + "layers.00.layer_scalar", family),
      unknown("one tensor in two spellings", "model.norm.weight",
              "each tensor once, got it as model.language_model.norm.weight too"),
      unknown("packed weights", kTower + "layers.0.mlp.up_proj.weight_packed",
              family + "; packed integer or FP4 weights are not supported"),
  });
}

TEST(RefusalsTest, ShapesAndTypes) {
  expect_refused({
      reshaped("another vocabulary", "embed_tokens.weight", {98, 64},
               "BF16 [97, 64], got BF16 [98, 64]"),
      reshaped("an embedding on its side", "embed_tokens.weight", {64, 97},
               "BF16 [97, 64], got BF16 [64, 97]"),
      reshaped("a long norm", "norm.weight", {65}, "BF16 [64], got BF16 [65]"),
      reshaped("a norm as a matrix", "norm.weight", {1, 64}, "BF16 [64], got BF16 [1, 64]"),
      reshaped("a scalar as []", "layers.0.layer_scalar", {}, "BF16 [1], got BF16 []"),
      reshaped("an empty scalar", "layers.0.layer_scalar", {0}, "BF16 [1], got BF16 [0]"),
      reshaped("K heads of another size", "layers.0.self_attn.k_proj.weight", {64, 64},
               "BF16 [32, 64], got BF16 [64, 64]"),
      reshaped("a full layer's q_norm in a sliding one", "layers.0.self_attn.q_norm.weight", {32},
               "BF16 [16], got BF16 [32]"),
      reshaped("gate of another width", "layers.0.mlp.gate_proj.weight", {192, 64},
               "BF16 [96, 64], got BF16 [192, 64]"),
      reshaped("down_proj on its side", "layers.0.mlp.down_proj.weight", {96, 64},
               "BF16 [64, 96], got BF16 [96, 64]"),
      reshaped("three dimensions", "layers.0.mlp.up_proj.weight", {1, 96, 64},
               "BF16 [96, 64], got BF16 [1, 96, 64]"),
      retyped("F32 embedding", "embed_tokens.weight", DType::kF32,
              "BF16 [97, 64], got F32 [97, 64]"),
      retyped("F16 norm", "norm.weight", DType::kF16, "BF16 [64], got F16 [64]"),
      retyped("F32 layer_scalar", "layers.0.layer_scalar", DType::kF32, "BF16 [1], got F32 [1]"),
      retyped("FP8 embedding", "embed_tokens.weight", DType::kF8E4M3,
              "BF16 [97, 64], got F8_E4M3 [97, 64]"),
      retyped("F16 weight", "layers.0.mlp.up_proj.weight", DType::kF16, "BF16 ("),
      retyped("I8 weight", "layers.0.mlp.up_proj.weight", DType::kI8, "BF16 ("),
      retyped("FP8 weight without a quantization block", "layers.0.mlp.up_proj.weight",
              DType::kF8E4M3,
              "BF16 (config.json has no quantization_config and there is no hf_quant_config.json), "
              "got F8_E4M3"),
      {"a config with another hidden_size",
       Start::kTarget,
       [](auto& c) { c.config["text_config"]["hidden_size"] = 128; },
       {kFile + "embed_tokens.weight: expected BF16 [97, 128], got BF16 [97, 64]"}},
      {"a config with other layer types",
       Start::kTarget,
       [](auto& c) {
         c.config["text_config"]["layer_types"] = {"full_attention", "full_attention",
                                                   "full_attention"};
       },
       {kFile + "layers.0.self_attn.q_norm.weight: expected BF16 [32], got BF16 [16]"}},
      {"k_eq_v switched off",
       Start::kTarget,
       [](auto& c) { c.config["text_config"]["attention_k_eq_v"] = false; },
       {kFile + "layers.2.self_attn.k_proj.weight: expected BF16 [64, 64], got BF16 [32, 64]"}},
  });
}

constexpr uint16_t kNan = 0x7fc0;
constexpr uint16_t kInfinity = 0x7f80;

Row bad_value(const char* what, const std::string& name, size_t index, uint16_t bits,
              const std::string& got) {
  return {what,
          Start::kTarget,
          [name, index, bits](TinyCheckpoint& c) { c.set_bf16(kTower + name, index, bits); },
          {kFile + name + ": expected finite BF16 weights, got " + got + "; the export is broken"}};
}

TEST(RefusalsTest, Values) {
  expect_refused({
      bad_value("NaN first in the embedding", "embed_tokens.weight", 0, kNan, "NaN at element 0"),
      bad_value("NaN last in the embedding", "embed_tokens.weight", 97 * 64 - 1, kNan,
                "NaN at element 6207"),
      bad_value("a signalling NaN", "norm.weight", 5, 0xff81, "NaN at element 5"),
      bad_value("infinity", "layers.0.mlp.down_proj.weight", 4097, kInfinity,
                "infinity at element 4097"),
      bad_value("minus infinity", "layers.1.self_attn.q_proj.weight", 63, 0xff80,
                "-infinity at element 63"),
      bad_value("NaN as layer_scalar", "layers.2.layer_scalar", 0, kNan, "NaN at element 0"),
      bad_value("infinity in a norm", "layers.2.self_attn.k_norm.weight", 31, kInfinity,
                "infinity at element 31"),
      {"a tied lm_head that says something else",
       Start::kTextOnly,
       [](auto& c) {
         TinyTensor head = c.tensor("model.embed_tokens.weight");
         head.name = "lm_head.weight";
         head.bytes[100] = static_cast<char>(head.bytes[100] ^ 1);
         c.tensors.push_back(head);
       },
       {"tensor lm_head.weight: expected the same values as model.embed_tokens.weight, for "
        "tie_word_embeddings is true"}},
      {"NaN bytes in FP8 (0x7f)",
       Start::kFp8Target,
       [](auto& c) { c.tensor(kTower + "layers.0.mlp.up_proj.weight").bytes[77] = '\x7f'; },
       {kFile +
        "layers.0.mlp.up_proj.weight: expected finite F8_E4M3 weights, got the NaN byte 0x7f "
        "at element 77"}},
      {"NaN bytes in FP8 (0xff)",
       Start::kFp8Target,
       [](auto& c) { c.tensor(kTower + "layers.2.self_attn.o_proj.weight").bytes[8191] = '\xff'; },
       {"layers.2.self_attn.o_proj.weight", "got the NaN byte 0xff at element 8191"}},
      {"two bad tensors: the first is named",
       Start::kFp8Target,
       [](auto& c) {
         c.tensor(kTower + "layers.2.mlp.down_proj.weight").bytes[0] = '\x7f';
         c.tensor(kTower + "layers.0.mlp.gate_proj.weight").bytes[9] = '\x7f';
       },
       {"layers.0.mlp.gate_proj.weight", "at element 9"}},
  });
}

}  // namespace
}  // namespace tandem::io
