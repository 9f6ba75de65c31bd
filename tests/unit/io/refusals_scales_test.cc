// Refusals: scales of every quantized format.
#include <gtest/gtest.h>

#include <cstring>
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
const std::string kScale = kUp + ".weight_scale";

Row with(const char* what, Start start, std::function<void(TinyCheckpoint&)> edit,
         std::vector<std::string> message) {
  return {what, start, std::move(edit), std::move(message)};
}

Row valued(const char* what, const std::string& name, float value, const std::string& why,
           Start start = Start::kFp8KvTarget) {
  return with(
      what, start, [name, value](TinyCheckpoint& c) { c.set_scalar(kTower + name, value); },
      {"tensor " + kTower + name + ": expected a scale that is finite, positive and normal, got",
       "(" + why});
}

TEST(RefusalsTest, ScaleValues) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kLargest = std::numeric_limits<float>::max();
  constexpr float kDenormal = std::numeric_limits<float>::denorm_min();
  std::vector<Row> rows;
  for (const char* name :
       {"layers.1.mlp.up_proj.weight_scale", "layers.1.mlp.up_proj.input_scale",
        "layers.2.self_attn.k_proj.k_scale", "layers.2.self_attn.v_proj.v_scale"}) {
    rows.push_back(valued("NaN", name, kNan, "not a number"));
    rows.push_back(valued("infinite", name, kInfinity, "infinite"));
    rows.push_back(valued("minus infinite", name, -kInfinity, "infinite"));
    rows.push_back(valued("zero", name, 0.0F, "zero; did the calibration reach this module?"));
    rows.push_back(valued("minus zero", name, -0.0F, "zero"));
    rows.push_back(valued("negative", name, -0.01F, "negative"));
    rows.push_back(valued("denormal", name, kDenormal, "denormal"));
    rows.push_back(valued("the largest float", name, kLargest, "the sentinel of a scale"));
    rows.push_back(valued("the lowest float", name, -kLargest, "the sentinel of a scale"));
    rows.push_back(valued("3.4e38", name, 3.4e38F, "the sentinel of a scale"));
  }
  expect_refused(rows);
}

Row reshaped(const char* what, Start start, const std::string& name, std::vector<int64_t> shape,
             const std::string& rest) {
  return with(what, start,
              [name, shape](TinyCheckpoint& c) {
                int64_t count = 1;
                for (const int64_t dim : shape) count *= dim;
                TinyTensor& tensor = c.tensor(name);
                const std::string first = tensor.bytes.substr(0, core::dtype_bytes(tensor.dtype));
                tensor.bytes.clear();
                for (int64_t i = 0; i < count; ++i) tensor.bytes += first;
                tensor.shape = shape;
              },
              {"tensor " + name + ": expected " + rest});
}

Row retyped(const char* what, Start start, const std::string& name, DType dtype,
            const std::string& rest) {
  return with(what, start,
              [name, dtype](TinyCheckpoint& c) {
                TinyTensor& tensor = c.tensor(name);
                const size_t count = tensor.bytes.size() / core::dtype_bytes(tensor.dtype);
                tensor.dtype = dtype;
                tensor.bytes.assign(count * core::dtype_bytes(dtype), '\x3c');
              },
              {"tensor " + name + ": expected " + rest});
}

Row removed(const char* what, Start start, const std::string& name, const std::string& rest) {
  return with(what, start, [name](TinyCheckpoint& c) { c.remove(name); },
              {"tensor " + name + ": expected " + rest});
}

TEST(RefusalsTest, Fp8Scales) {
  const auto fp8 = Start::kFp8Target;
  const auto kv = Start::kFp8KvTarget;
  const std::string k_scale = kTower + "layers.0.self_attn.k_proj.k_scale";
  expect_refused({
      removed("no weight_scale", fp8, kScale, "a scale for the F8_E4M3 weight, got no such tensor"),
      removed("no input_scale", fp8, kUp + ".input_scale", "F32 [] or [1], got no such tensor: "),
      with("no scales at all", fp8,
           [](auto& c) {
             std::erase_if(c.tensors, [](const auto& t) { return t.name.ends_with("_scale"); });
           },
           {"layers.0.self_attn.q_proj.weight_scale: expected a scale for the F8_E4M3 weight"}),
      reshaped("two weight scales", fp8, kScale, {2}, "F32 [] or [1], got F32 [2]"),
      reshaped("a weight scale per channel", fp8, kScale, {96}, "F32 [] or [1], got F32 [96]"),
      reshaped("a weight scale of [1, 1]", fp8, kScale, {1, 1}, "F32 [] or [1], got F32 [1, 1]"),
      reshaped("an empty weight scale", fp8, kScale, {0}, "F32 [] or [1], got F32 [0]"),
      reshaped("an input scale per channel", fp8, kUp + ".input_scale", {64},
               "F32 [] or [1], got F32 [64]"),
      retyped("BF16 weight scale", fp8, kScale, DType::kBF16, "F32 [] or [1], got BF16 []"),
      retyped("F64 weight scale", fp8, kScale, DType::kF64, "F32 [] or [1], got F64 []"),
      retyped("F16 input scale", fp8, kUp + ".input_scale", DType::kF16,
              "F32 [] or [1], got F16 []"),
      retyped("I32 weight scale", fp8, kScale, DType::kI32, "F32 [] or [1], got I32 []"),
      retyped("E8M0-like byte scale", fp8, kScale, DType::kU8, "F32 [] or [1], got U8 []"),
      reshaped("a KV scale per head", kv, k_scale, {2}, "F32 [] or [1], got F32 [2]"),
      retyped("BF16 KV scale", kv, k_scale, DType::kBF16, "F32 [] or [1], got BF16 []"),
      with("a layer the KV calibration never saw", kv,
           [](auto& c) {
             c.remove(kTower + "layers.1.self_attn.k_proj.k_scale");
             c.remove(kTower + "layers.1.self_attn.v_proj.v_scale");
           },
           {"layers.1.self_attn.k_proj.k_scale: expected KV scales in all 3 layers or in none, got "
            "2 "
            "layers with"}),
      with("KV scales of a layer too many", kv,
           [](auto& c) { c.add_scalar(kTower + "layers.3.self_attn.k_proj.k_scale", 1.0F); },
           {"layers.3.self_attn.k_proj.k_scale: expected only tensors of"}),
      removed("no weight_scale in an assistant", Start::kFp8Assistant,
              "model.layers.3.mlp.down_proj.weight_scale", "a scale for the F8_E4M3 weight"),
      removed("no input_scale in an assistant", Start::kFp8Assistant,
              "model.layers.0.self_attn.q_proj.input_scale", "F32 [] or [1], got no such tensor"),
      with("a KV scale in an assistant", Start::kFp8Assistant,
           [](auto& c) { c.add_scalar("model.layers.0.self_attn.k_proj.k_scale", 1.0F); },
           {"k_proj.k_scale: expected no K or V in an assistant"}),
  });
}

TEST(RefusalsTest, BlockAndChannelScales) {
  const auto block = Start::kBlockTarget;  // up_proj is [96, 160]: blocks [1, 2]
  const auto channel = Start::kPerChannelTarget;
  expect_refused({
      removed("no block scales", block, kScale, "a scale for the F8_E4M3 weight"),
      reshaped("one scale for all blocks", block, kScale, {}, "F32 [1, 2], got F32 []"),
      reshaped("block scales on their side", block, kScale, {2, 1}, "F32 [1, 2], got F32 [2, 1]"),
      reshaped("block scales of 64 x 64", block, kScale, {2, 1, 3, 1},
               "F32 [1, 2], got F32 [2, 1, 3, 1]"),
      retyped("BF16 block scales", block, kScale, DType::kBF16, "F32 [1, 2], got BF16"),
      with("an input scale beside block scales", block,
           [](auto& c) { c.add_scalar(kUp + ".input_scale", 1.0F); },
           {kUp + ".input_scale: expected only tensors of"}),
      with("a zero block scale", block,
           [](auto& c) { c.tensor(kScale).bytes.replace(4, 4, 4, '\0'); },
           {kScale + "[1]: expected a scale that is finite, positive and normal, got 0 (zero"}),
      removed("no channel scales", channel, kScale, "a scale for the F8_E4M3 weight"),
      reshaped("one scale for all channels", channel, kScale, {1}, "F32 [96], got F32 [1]"),
      reshaped("a scale per input channel", channel, kScale, {64}, "F32 [96], got F32 [64]"),
      reshaped("channel scales as a row", channel, kScale, {1, 96}, "F32 [96], got F32 [1, 96]"),
      retyped("F64 channel scales", channel, kScale, DType::kF64, "F32 [96], got F64 [96]"),
      with("a NaN channel scale", channel,
           [](auto& c) { c.tensor(kScale).bytes.replace(95 * 4, 4, 4, '\xff'); },
           {kScale + "[95]: expected a scale that is finite", "not a number"}),
  });
}

Row compressed(const char* what, std::function<void(json& block, json& group)> edit,
               std::vector<std::string> message) {
  return with(
      what, Start::kCompressedChannelTarget,
      [edit = std::move(edit)](TinyCheckpoint& c) {
        json& block = c.config["quantization_config"];
        edit(block, block["config_groups"]["group_0"]);
      },
      std::move(message));
}

TEST(RefusalsTest, CompressedTensors) {
  expect_refused({
      compressed("pack-quantized", [](json& b, json&) { b["format"] = "pack-quantized"; },
                 {"format: expected float-quantized, got \"pack-quantized\"", "can be loaded"}),
      compressed("int-quantized", [](json& b, json&) { b["format"] = "int-quantized"; },
                 {"format: expected float-quantized, got \"int-quantized\""}),
      compressed("nvfp4-pack-quantized",
                 [](json& b, json&) { b["format"] = "nvfp4-pack-quantized"; },
                 {"format: expected float-quantized"}),
      compressed("no format", [](json& b, json&) { b.erase("format"); },
                 {"format: expected a string, got no such key"}),
      compressed("no groups", [](json& b, json&) { b["config_groups"] = json::object(); },
                 {"config_groups: expected one group (mixed precision is not supported), got 0"}),
      compressed("two groups",
                 [](json& b, json& g) {
                   const json copy = g;
                   b["config_groups"]["group_1"] = copy;
                 },
                 {"config_groups: expected one group", "got 2"}),
      compressed(
          "int8 weights", [](json&, json& g) { g["weights"]["type"] = "int"; },
          {"group_0: weights: expected num_bits 8, type float and symmetric scales, got 8, int"}),
      compressed("4-bit weights", [](json&, json& g) { g["weights"]["num_bits"] = 4; },
                 {"weights: expected num_bits 8", "got 4, float"}),
      compressed("asymmetric weights", [](json&, json& g) { g["weights"]["symmetric"] = false; },
                 {"weights: expected num_bits 8", "got 8, float and asymmetric"}),
      compressed("block weights", [](json&, json& g) { g["weights"]["strategy"] = "block"; },
                 {"weights: strategy: expected tensor or channel, got \"block\""}),
      compressed("group weights", [](json&, json& g) { g["weights"]["strategy"] = "group"; },
                 {"weights: strategy: expected tensor or channel, got \"group\""}),
      compressed("no weights", [](json&, json& g) { g.erase("weights"); },
                 {"group_0: weights: expected an object, got no such key"}),
  });
}

TEST(RefusalsTest, CompressedTensorsActivationsAndScales) {
  const auto channel = Start::kCompressedChannelTarget;
  expect_refused({
      compressed("grouped activations",
                 [](json&, json& g) { g["input_activations"]["strategy"] = "group"; },
                 {"input_activations: strategy: expected tensor, or token with dynamic scales"}),
      compressed("static activations per token",
                 [](json&, json& g) { g["input_activations"]["dynamic"] = false; },
                 {"input_activations: strategy: expected tensor, or token with dynamic scales, got "
                  "\"token\""}),
      compressed("integer activations",
                 [](json&, json& g) { g["input_activations"]["type"] = "int"; },
                 {"input_activations: expected num_bits 8, type float"}),
      compressed("targets by expression", [](json&, json& g) { g["targets"] = {"re:.*mlp.*"}; },
                 {"group_0: targets: expected [\"Linear\"], got \"re:.*mlp.*\""}),
      compressed("no targets", [](json&, json& g) { g.erase("targets"); },
                 {"group_0: targets: expected [\"Linear\"], got none"}),
      compressed("an expression that is too much",
                 [](json& b, json&) { b["ignore"] = {"re:(a|b)+c"}; },
                 {"ignore: expected a name, or \"re:\" with literals", "got \"re:(a|b)+c\""}),
      compressed("an ignored module that is FP8",
                 [](json& b, json&) { b["ignore"] = {"re:.*layers\\.1\\.mlp.*"}; },
                 {"layers.1.mlp.gate_proj.weight: expected BF16 (",
                  "by \"re:.*layers\\.1\\.mlp.*\"), got F8_E4M3"}),
      compressed(
          "4-bit KV cache",
          [](json& b, json&) { b["kv_cache_scheme"] = {{"num_bits", 4}, {"type", "float"}}; },
          {"kv_cache_scheme: expected num_bits 8 and type float"}),
      removed("no channel scales", channel, kScale, "a scale for the F8_E4M3 weight"),
      reshaped("one scale for all channels", channel, kScale, {1},
               "F32 (or BF16) [96], got BF16 [1]"),
      retyped("F64 channel scales", channel, kScale, DType::kF64, "F32 (or BF16) [96], got F64"),
      removed("no static input scale", Start::kCompressedTensorTarget, kUp + ".input_scale",
              "F32 [] or [1], got no such tensor"),
      with("an input scale beside dynamic activations", channel,
           [](auto& c) { c.add_scalar(kUp + ".input_scale", 1.0F); },
           {kUp + ".input_scale: expected only tensors of"}),
      with("an infinite BF16 scale", channel, [](auto& c) { c.set_bf16(kScale, 3, 0x7f80); },
           {kScale + "[3]: expected a scale that is finite", "infinite"}),
  });
}

}  // namespace
}  // namespace tandem::io
