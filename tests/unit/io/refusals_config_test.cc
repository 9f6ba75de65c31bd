// Refusals: config.json of targets.
#include <gtest/gtest.h>

#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

using nlohmann::json;
using test_support::TinyCheckpoint;

Row with_raw(const char* what, std::string text, std::vector<std::string> message) {
  return {what, Start::kTarget,
          [text = std::move(text)](TinyCheckpoint& c) { c.raw_files["config.json"] = text; },
          std::move(message)};
}

// Sets a key of text_config; the message begins with where it is.
Row with_text(const char* what, const char* key, json value, const std::string& rest) {
  return {
      what,
      Start::kTarget,
      [key, value = std::move(value)](TinyCheckpoint& c) { c.config["text_config"][key] = value; },
      {"config.json: text_config: " + std::string(key) + ": expected " + rest}};
}

Row without_text(const char* what, const char* key, const std::string& rest) {
  return {what,
          Start::kTarget,
          [key](TinyCheckpoint& c) { c.config["text_config"].erase(key); },
          {"config.json: text_config: " + std::string(key) + ": expected " + rest}};
}

Row with_config(const char* what, std::function<void(json&)> edit,
                std::vector<std::string> message) {
  return {what, Start::kTarget, [edit = std::move(edit)](TinyCheckpoint& c) { edit(c.config); },
          std::move(message)};
}

TEST(RefusalsTest, ConfigFile) {
  expect_refused({
      {"no config.json",
       Start::kTarget,
       {},
       {"config.json: expected a file, got nothing"},
       [](const auto& dir) { std::filesystem::remove(dir / "config.json"); }},
      {"config.json is a folder",
       Start::kTarget,
       {},
       {"config.json: expected a file, got a directory"},
       [](const auto& dir) {
         std::filesystem::remove(dir / "config.json");
         std::filesystem::create_directory(dir / "config.json");
       }},
      with_raw("an empty file", "", {"config.json: expected a file with content"}),
      with_raw("a git-LFS pointer", "version https://git-lfs.github.com/spec/v1\n",
               {"config.json: expected the file itself, got a git-LFS pointer"}),
      with_raw("an HTML page", "<html>Access denied</html>", {"config.json:", "got an HTML page"}),
      with_raw("a list", "[1]", {"config.json: expected a JSON object, got an array of 1"}),
      with_raw("a string", "\"x\"", {"config.json: expected a JSON object, got \"x\""}),
      with_raw("null", "null", {"config.json: expected a JSON object, got null"}),
      with_raw("cut in the middle", "{\"model_type\": \"gem",
               {"config.json: expected valid JSON, got broken JSON at byte"}),
      with_raw("two objects", "{}{}",
               {"config.json: expected valid JSON, got broken JSON at byte 2"}),
      with_raw("single quotes", "{'model_type': 1}",
               {"broken JSON at byte 1, near \"{'model_type'"}),
      with_raw("a key twice", R"({"model_type":"gemma4","model_type":"llama"})",
               {"config.json: expected each key once, got the key \"model_type\" twice"}),
      with_raw("invalid UTF-8", "{\"model_type\":\"\xc3\x28\"}", {"broken JSON at byte"}),
      with_raw("a lone surrogate", R"({"model_type":"\ud800"})", {"broken JSON at byte"}),
      with_raw("1,000 nested lists",
               "{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}",
               {"config.json: expected at most 100 nested levels of JSON"}),
      with_raw("a million open brackets", std::string(1'000'000, '['),
               {"expected at most 100 nested levels of JSON, got more at byte 100"}),
      with_raw("a number past any double", R"({"hidden_size":1e999})",
               {"config.json: expected numbers that fit a double"}),
      with_raw("Infinity as Python writes it", R"({"a":Infinity})", {"broken JSON at byte"}),
      with_raw("300,000 values", "{\"a\":[0" + std::string(600'000, ',') + "0]}",
               {"config.json: expected at most 200000 JSON values"}),
      with_raw("nine megabytes", std::string(9 << 20, ' '),
               {"config.json: expected at most 8388608 bytes, got 9437184"}),
  });
}

TEST(RefusalsTest, ModelType) {
  const std::string known =
      "model_type: expected gemma4_unified, gemma4_unified_text, gemma4, "
      "gemma4_text (targets), gemma4_unified_assistant or gemma4_assistant, got ";
  expect_refused({
      with_config("another family", [](json& c) { c["model_type"] = "llama"; }, {known + "llama"}),
      with_config("Gemma 3", [](json& c) { c["model_type"] = "gemma3"; }, {known + "gemma3"}),
      with_config("an empty string", [](json& c) { c["model_type"] = ""; }, {known}),
      with_config("a long string", [](json& c) { c["model_type"] = std::string(9999, 'x'); },
                  {known + "xxx", "..."}),
      with_config("no model_type", [](json& c) { c.erase("model_type"); },
                  {"config.json: model_type: expected a string, got no such key"}),
      with_config("a number", [](json& c) { c["model_type"] = 4; },
                  {"model_type: expected a string, got 4"}),
      with_config("no text_config", [](json& c) { c.erase("text_config"); },
                  {"config.json: text_config: expected an object, got no such key"}),
      with_config("text_config null", [](json& c) { c["text_config"] = nullptr; },
                  {"config.json: text_config: expected an object, got null"}),
      with_config("text_config a list", [](json& c) { c["text_config"] = json::array(); },
                  {"config.json: text_config: expected an object, got an array of 0"}),
      with_config("tie_word_embeddings a string", [](json& c) { c["tie_word_embeddings"] = "yes"; },
                  {"tie_word_embeddings: expected true or false, got \"yes\""}),
      with_config(
          "a unified target that says it is a text tower",
          [](json& c) { c["model_type"] = "gemma4_unified_text"; },
          {"config.json: hidden_size: expected an integer from 1 to 16777216, got no such key"}),
  });
}

TEST(RefusalsTest, Sizes) {
  const std::string size = "an integer from 1 to 16777216, got ";
  expect_refused({
      without_text("no hidden_size", "hidden_size", size + "no such key"),
      with_text("hidden_size null", "hidden_size", nullptr, size + "null"),
      with_text("hidden_size zero", "hidden_size", 0, size + "0"),
      with_text("hidden_size negative", "hidden_size", -64, size + "-64"),
      with_text("hidden_size fractional", "hidden_size", 2.5, size + "2.5"),
      with_text("hidden_size in quotes", "hidden_size", "64", size + "\"64\""),
      with_text("hidden_size true", "hidden_size", true, size + "true"),
      with_text("hidden_size 2^40", "hidden_size", int64_t{1} << 40, size + "1099511627776"),
      with_text("hidden_size 2^64 - 1", "hidden_size", ~uint64_t{0}, size + "18446744073709551615"),
      with_text("hidden_size 1e30", "hidden_size", 1e30, size + "1e+30"),
      with_text("intermediate_size zero", "intermediate_size", 0, size + "0"),
      with_text("intermediate_size a list", "intermediate_size", {96, 96, 96},
                size + "an array of 3"),
      without_text("no intermediate_size", "intermediate_size", size + "no such key"),
      with_text("vocab_size 1", "vocab_size", 1, "an integer from 2 to 16777216, got 1"),
      with_text("vocab_size negative", "vocab_size", -1, "an integer from 2 to 16777216, got -1"),
      with_text("vocab_size huge", "vocab_size", 1 << 30, "an integer from 2 to 16777216"),
      with_text("no heads", "num_attention_heads", 0, "an integer from 1 to 1024, got 0"),
      with_text("a million heads", "num_attention_heads", 1'000'000, "an integer from 1 to 1024"),
      with_text("no KV heads", "num_key_value_heads", 0, "an integer from 1 to 1024, got 0"),
      without_text("KV heads missing", "num_key_value_heads", "an integer from 1 to 1024"),
      with_text("window zero", "sliding_window", 0, "an integer from 1 to 1073741824, got 0"),
      with_text("window null", "sliding_window", nullptr,
                "an integer from 1 to 1073741824, got null"),
      with_text("window negative", "sliding_window", -1, "an integer from 1 to"),
      with_text("no positions", "max_position_embeddings", 0, "an integer from 1 to 1073741824"),
      with_text("head_dim 0", "head_dim", 0, "an integer from 2 to 4096, got 0"),
      with_text("head_dim huge", "head_dim", 1 << 20, "an integer from 2 to 4096, got 1048576"),
      with_text("global_head_dim 1", "global_head_dim", 1, "an integer from 2 to 4096, got 1"),
      with_text("global_head_dim in quotes", "global_head_dim", "32", "an integer from 2 to 4096"),
      with_text("global KV heads 0", "num_global_key_value_heads", 0, "an integer from 1 to 1024"),
      with_text("no layers", "num_hidden_layers", 0, "an integer from 1 to 1024, got 0"),
      with_text("2,000 layers", "num_hidden_layers", 2000, "an integer from 1 to 1024, got 2000"),
      with_text("eps zero", "rms_norm_eps", 0, "a number above 0 and at most 1, got 0"),
      with_text("eps negative", "rms_norm_eps", -1e-6, "a number above 0 and at most 1"),
      with_text("eps in quotes", "rms_norm_eps", "1e-6",
                "a number above 0 and at most 1, got \"1e-6\""),
      with_text("softcap zero", "final_logit_softcapping", 0, "a number above 0"),
      with_text("softcap negative", "final_logit_softcapping", -30.0, "a number above 0"),
      with_text("softcap 0 in FP32", "final_logit_softcapping", 1e-50, "a number from 1.18e-38"),
      with_text("eps 0 in FP32", "rms_norm_eps", 1e-300, "a number from 1.18e-38"),
  });
}

TEST(RefusalsTest, SizesThatDoNotFit) {
  const auto at = [](const char* what, const char* key, json value, std::string message) {
    return Row{what,
               Start::kTarget,
               [key, value](TinyCheckpoint& c) { c.config["text_config"][key] = value; },
               {std::move(message)}};
  };
  expect_refused({
      at("3 KV heads for 4 heads", "num_key_value_heads", 3,
         "text_config: layer 0 (sliding_attention): expected num_attention_heads to be a multiple "
         "of "
         "its KV heads, got 4 and 3"),
      at("8 global KV heads for 4 heads", "num_global_key_value_heads", 8,
         "layer 2 (full_attention): expected num_attention_heads to be a multiple of its KV heads, "
         "got 4 and 8"),
      at("an odd head_dim", "head_dim", 17,
         "layer 0 (sliding_attention): expected an even head_dim (rope rotates pairs), got 17"),
      at("an odd global_head_dim", "global_head_dim", 33,
         "layer 2 (full_attention): expected an even head_dim"),
      at("layer_types too short", "layer_types", {"full_attention"},
         "layer_types: expected 3 entries as num_hidden_layers says, got 1"),
      at("layer_types too long", "layer_types",
         {"sliding_attention", "sliding_attention", "sliding_attention", "full_attention"},
         "layer_types: expected 3 entries as num_hidden_layers says, got 4"),
      at("layer_types empty", "layer_types", json::array(), "layer_types: expected 3 entries"),
      at("an unknown layer type", "layer_types",
         {"sliding_attention", "linear_attention", "full_attention"},
         "layer_types[1]: expected sliding_attention or full_attention, got \"linear_attention\""),
      at("a number as layer type", "layer_types", {"sliding_attention", 1, "full_attention"},
         "layer_types[1]: expected a string, got 1"),
      at("layer_types a string", "layer_types", "full_attention",
         "layer_types: expected a list of strings, got \"full_attention\""),
      at("a last layer that slides", "layer_types",
         {"sliding_attention", "full_attention", "sliding_attention"},
         "layer_types[2]: expected the last layer to be full_attention"),
  });
}

TEST(RefusalsTest, PerLayerConfig) {
  const auto map = [](const char* what, json value, std::string message) {
    return Row{what,
               Start::kTarget,
               [value = std::move(value)](TinyCheckpoint& c) {
                 c.config["text_config"]["per_layer_config"] = value;
               },
               {"text_config: per_layer_config: " + std::move(message)}};
  };
  const std::string keys = "expected layer numbers from 0 to 2 as keys, got ";
  expect_refused({
      map("a list", json::array(), "expected an object, got an array of 0"),
      map("a layer past the last", {{"3", {{"head_dim", 32}}}}, keys + "\"3\""),
      map("a negative layer", {{"-1", {{"head_dim", 32}}}}, keys + "\"-1\""),
      map("a name as layer", {{"full", {{"head_dim", 32}}}}, keys + "\"full\""),
      map("a layer with a zero in front", {{"02", {{"head_dim", 32}}}}, keys + "\"02\""),
      map("a layer of 30 digits", {{std::string(30, '1'), {{"head_dim", 32}}}}, keys + "\"111"),
      map("an entry that is a number", {{"2", 32}}, "2: expected an object, got 32"),
      map("another key", {{"2", {{"intermediate_size", 128}}}},
          "2: expected only head_dim and num_key_value_heads to differ per layer, got "
          "\"intermediate_size\""),
      map("skipped sublayers", {{"2", {{"skip", {"mlp"}}}}}, "2: expected only head_dim"),
      map("head_dim 0", {{"2", {{"head_dim", 0}}}}, "2: head_dim: expected an integer from 2"),
      map("KV heads in quotes", {{"2", {{"num_key_value_heads", "1"}}}},
          "2: num_key_value_heads: expected an integer from 1"),
      map("unlike global_head_dim", {{"2", {{"head_dim", 64}, {"num_key_value_heads", 1}}}},
          "2: expected head_dim 32 as global_head_dim says, got 64"),
      map("unlike num_global_key_value_heads",
          {{"2", {{"head_dim", 32}, {"num_key_value_heads", 2}}}},
          "2: expected num_key_value_heads 1 as num_global_key_value_heads says, got 2"),
      map("an empty map beside the flat keys", json::object(),
          "2: expected head_dim 32 as global_head_dim says, got 16"),
  });
}

TEST(RefusalsTest, Rope) {
  const auto full = [](const char* what, const char* key, json value, std::string message) {
    return Row{what,
               Start::kTarget,
               [key, value = std::move(value)](TinyCheckpoint& c) {
                 c.config["text_config"]["rope_parameters"]["full_attention"][key] = value;
               },
               {"text_config: rope_parameters: full_attention: " + std::move(message)}};
  };
  const auto whole = [](const char* what, json value, std::string message) {
    return Row{what,
               Start::kTarget,
               [value = std::move(value)](TinyCheckpoint& c) {
                 c.config["text_config"]["rope_parameters"] = value;
               },
               {"text_config: rope_parameters: " + std::move(message)}};
  };
  const std::string theta = "rope_theta: expected a number above 0";
  expect_refused({
      full("theta 0", "rope_theta", 0, theta),
      full("theta negative", "rope_theta", -1e6, theta),
      full("theta null", "rope_theta", nullptr, theta),
      full("theta in quotes", "rope_theta", "1e6", theta),
      full("theta huge", "rope_theta", 1e300, theta + " and at most 1000000000000"),
      full("partial_rotary_factor 0", "partial_rotary_factor", 0,
           "partial_rotary_factor: expected a number above 0 and at most 1"),
      full("partial_rotary_factor 2", "partial_rotary_factor", 2.0,
           "partial_rotary_factor: expected a number above 0 and at most 1"),
      full("yarn", "rope_type", "yarn",
           "rope_type: expected default or proportional, got \"yarn\""),
      full("a number as type", "rope_type", 1, "rope_type: expected a string, got 1"),
      full("scaled", "factor", 8.0, "factor: expected 1, got 8: scaled rope is not supported"),
      full("partial with default", "rope_type", "default",
           "partial_rotary_factor: expected 1 or none with rope_type default, got 0.25"),
      whole("flat, as in Gemma 2", {{"rope_theta", 1e4}, {"rope_type", "default"}},
            "sliding_attention: expected an object, got no such key"),
      whole("only one layer type", {{"sliding_attention", {{"rope_theta", 1e4}}}},
            "full_attention: expected an object, got no such key"),
      whole("a list", json::array(), "expected an object, got an array of 0"),
      whole("a number", 10000.0, "expected an object, got 10000.0"),
  });
}

TEST(RefusalsTest, NotSupportedYet) {
  const auto refused = [](const char* what, const char* key, json value, std::string message) {
    return Row{what,
               Start::kTarget,
               [key, value = std::move(value)](TinyCheckpoint& c) {
                 c.config["text_config"][key] = value;
               },
               {"text_config: " + std::string(key) + ": expected " + std::move(message)}};
  };
  expect_refused({
      refused("experts (26B-A4B)", "enable_moe_block", true,
              "false, got true: mixture-of-experts layers (26B-A4B) are not supported yet"),
      refused("128 experts", "num_experts", 128, "0, got 128: mixture-of-experts layers"),
      refused("per-layer embeddings (E4B)", "hidden_size_per_layer_input", 256,
              "0, got 256: per-layer embeddings (E2B, E4B) are not supported yet"),
      refused("shared KV layers (E4B)", "num_kv_shared_layers", 18,
              "0 in a target, got 18: layers that share KV (E2B, E4B) are not supported yet"),
      refused("shared KV layers negative", "num_kv_shared_layers", -1, "an integer from 0"),
      refused("double-wide MLP (E2B)", "use_double_wide_mlp", true, "false, got true: double-wide"),
      refused("attention biases", "attention_bias", true, "false, got true: attention with biases"),
      refused("another activation", "hidden_activation", "silu",
              "\"gelu_pytorch_tanh\", got \"silu\": other activations are not supported yet"),
      refused("exact GELU", "hidden_activation", "gelu", "\"gelu_pytorch_tanh\", got \"gelu\""),
      refused("text that attends both ways", "use_bidirectional_attention", "all",
              "\"vision\" or null, got \"all\""),
      refused("k_eq_v as a number", "attention_k_eq_v", 1, "true or false, got 1"),
  });
}

TEST(RefusalsTest, TokenIds) {
  const std::string id = "expected a token id from 0 to 96";
  expect_refused({
      with_config("eos past the vocabulary", [](json& c) { c["eos_token_id"] = {1, 97}; },
                  {"config.json: eos_token_id[1]: " + id + ", got 97"}),
      with_config("eos negative", [](json& c) { c["eos_token_id"] = -1; },
                  {"config.json: eos_token_id: " + id + ", or a list of such ids, got -1"}),
      with_config("eos fractional", [](json& c) { c["eos_token_id"] = {1.5}; },
                  {"eos_token_id[0]: " + id + ", got 1.5"}),
      with_config("eos a string", [](json& c) { c["eos_token_id"] = "<eos>"; },
                  {"eos_token_id: " + id, "got \"<eos>\""}),
      with_config("eos nested", [](json& c) { c["eos_token_id"] = {{1}}; },
                  {"eos_token_id[0]: " + id + ", got an array of 1"}),
      with_config("text eos past the vocabulary",
                  [](json& c) { c["text_config"]["eos_token_id"] = 106; },
                  {"text_config: eos_token_id: " + id, "got 106"}),
      with_config("bos past the vocabulary",
                  [](json& c) { c["text_config"]["bos_token_id"] = 200; },
                  {"text_config: bos_token_id: expected an integer from -1 to 96, got 200"}),
      with_config("image id negative", [](json& c) { c["image_token_id"] = -5; },
                  {"image_token_id: expected an integer from 0 to 2147483647, got -5"}),
      with_config("image id a string", [](json& c) { c["image_token_id"] = "<image>"; },
                  {"image_token_id: expected an integer from 0", "got \"<image>\""}),
  });
}

TEST(RefusalsTest, GenerationConfig) {
  const auto key = [](const char* what, const char* name, json value, std::string message) {
    return Row{
        what,
        Start::kTarget,
        [name, value = std::move(value)](TinyCheckpoint& c) { c.generation_config[name] = value; },
        {"generation_config.json: " + std::string(name) + std::move(message)}};
  };
  const auto raw = [](const char* what, std::string text, std::vector<std::string> message) {
    return Row{what, Start::kTarget,
               [text = std::move(text)](TinyCheckpoint& c) {
                 c.raw_files["generation_config.json"] = text;
               },
               std::move(message)};
  };
  expect_refused({
      raw("broken JSON", "{", {"generation_config.json: expected valid JSON"}),
      raw("a list", "[]", {"generation_config.json: expected a JSON object, got an array of 0"}),
      key("eos past the vocabulary", "eos_token_id", {1, 106},
          "[1]: expected a token id from 0 to 96, got 106"),
      key("eos null inside", "eos_token_id", {nullptr}, "[0]: expected a token id from 0 to 96"),
      key("suppressed id past the vocabulary", "suppress_tokens", {258883, 258882},
          "[0]: expected a token id from 0 to 96, got 258883"),
      key("temperature negative", "temperature", -1.0,
          ": expected a number from 0 and at most 100"),
      key("temperature in quotes", "temperature", "1.0", ": expected a number"),
      key("top_k fractional", "top_k", 1.5, ": expected an integer from -1"),
      key("top_k -2", "top_k", -2, ": expected an integer from -1"),
      key("top_p 0", "top_p", 0, ": expected a number above 0 and at most 1, got 0"),
      key("top_p 1.5", "top_p", 1.5, ": expected a number above 0 and at most 1, got 1.5"),
      key("min_p 2", "min_p", 2, ": expected a number from 0 and at most 1, got 2"),
      key("repetition_penalty 0", "repetition_penalty", 0,
          ": expected a number from 1e-30 and at most 1e+30, got 0"),
      key("repetition_penalty that requests may not have", "repetition_penalty", 1e-300,
          ": expected a number from 1e-30 and at most 1e+30, got 1e-300"),
      key("do_sample a number", "do_sample", 1, ": expected true or false, got 1"),
  });
}

}  // namespace
}  // namespace tandem::io
