// Refusals: assistants on their own, and pairs that do not fit.
#include <gtest/gtest.h>

#include "io/checkpoint.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

using nlohmann::json;
using test_support::TempFolder;
using test_support::TinyCheckpoint;

json& text(TinyCheckpoint& checkpoint) {
  return checkpoint.config["text_config"];
}

Row assistant(const char* what, std::function<void(TinyCheckpoint&)> edit,
              std::vector<std::string> message) {
  return {what, Start::kAssistant, std::move(edit), std::move(message)};
}

TEST(RefusalsTest, AssistantConfig) {
  const std::string size = "config.json: backbone_hidden_size: expected an integer from 1 to ";
  expect_refused({
      assistant("no backbone_hidden_size", [](auto& c) { c.config.erase("backbone_hidden_size"); },
                {size + "16777216, got no such key"}),
      assistant("backbone_hidden_size 0", [](auto& c) { c.config["backbone_hidden_size"] = 0; },
                {size}),
      assistant("backbone_hidden_size in quotes",
                [](auto& c) { c.config["backbone_hidden_size"] = "64"; }, {size}),
      assistant(
          "clustered embeddings (E2B, E4B)",
          [](auto& c) { c.config["use_ordered_embeddings"] = true; },
          {"use_ordered_embeddings: expected false, got true", "(E2B, E4B) are not supported"}),
      assistant("half of its layers have KV", [](auto& c) { text(c)["num_kv_shared_layers"] = 2; },
                {"num_kv_shared_layers: expected 4, all layers of the assistant"}),
      assistant("experts", [](auto& c) { text(c)["enable_moe_block"] = true; },
                {"enable_moe_block: expected false, got true"}),
      assistant("no text_config", [](auto& c) { c.config.erase("text_config"); },
                {"text_config: expected an object, got no such key"}),
  });
}

TEST(RefusalsTest, AssistantTensors) {
  const auto bf16 = core::DType::kBF16;
  expect_refused({
      assistant("no pre_projection", [](auto& c) { c.remove("pre_projection.weight"); },
                {"model.safetensors: tensor pre_projection.weight: expected a weight of shape "
                 "[32, 128], got no such tensor"}),
      assistant("no post_projection", [](auto& c) { c.remove("post_projection.weight"); },
                {"tensor post_projection.weight: expected a weight of shape [64, 32]"}),
      assistant("made for another target", [](auto& c) { c.config["backbone_hidden_size"] = 128; },
                {"tensor pre_projection.weight: expected BF16 [32, 256], got BF16 [32, 128]"}),
      assistant(
          "a K projection",
          [bf16](auto& c) { c.add("model.layers.0.self_attn.k_proj.weight", bf16, {1}, "ab"); },
          {"tensor model.layers.0.self_attn.k_proj.weight: expected no K or V in an assistant "
           "(it reads the target's), got one"}),
      assistant(
          "a V projection",
          [bf16](auto& c) { c.add("model.layers.0.self_attn.v_proj.weight", bf16, {1}, "ab"); },
          {"expected no K or V in an assistant"}),
      assistant("a KV scale",
                [](auto& c) { c.add_scalar("model.layers.0.self_attn.k_proj.k_scale", 1.0F); },
                {"expected no K or V in an assistant"}),
      assistant("clustered embeddings without the flag",
                [bf16](auto& c) { c.add("masked_embedding.centroids.weight", bf16, {1}, "ab"); },
                {"tensor masked_embedding.centroids.weight", "clustered output embeddings"}),
      assistant("vision tensors",
                [bf16](auto& c) { c.add("model.vision_embedder.pos_norm.bias", bf16, {1}, "ab"); },
                {"tensor model.vision_embedder.pos_norm.bias: expected only tensors of a "
                 "gemma4_unified_assistant with 4 layers"}),
  });
}

base::Status as_target(const std::filesystem::path& dir) {
  TANDEM_ASSIGN_OR_RETURN(const ModelConfig config, read_model_config(dir));
  return require_target(dir, config);
}

base::Status as_assistant(const std::filesystem::path& dir) {
  TANDEM_ASSIGN_OR_RETURN(const ModelConfig config, read_model_config(dir));
  return require_assistant(dir, config);
}

TEST(RefusalsTest, WrongPlaces) {
  const TempFolder folder;
  test_support::write_tiny_pair(folder.path());
  const std::string prefix = folder.path().string();
  expect_message(
      "an assistant where a target belongs", as_target(folder / "assistant"),
      {"assistant: expected a target model, got an assistant", "no standalone text model",
       "hidden_size 64 as the first argument", "--speculative-config '{\"model\": \"assistant\""},
      prefix);
  expect_message("a target where an assistant belongs", as_assistant(folder / "target"),
                 {"target: expected an assistant", "got a target (model_type gemma4_unified)",
                  "backbone_hidden_size 64"},
                 prefix);
  EXPECT_TRUE(as_target(folder / "target").has_value());
  EXPECT_TRUE(as_assistant(folder / "assistant").has_value());
  const auto target = read_model_config(folder / "target");
  const auto drafter = read_model_config(folder / "assistant");
  expect_message("two targets", check_pair(*target, *target),
                 {"pair: expected an assistant second"});
  expect_message("two assistants", check_pair(*drafter, *drafter),
                 {"pair: expected a target first"});
  expect_message("no such folder", Checkpoint::open(folder / "nothing").map([](auto&&) {}),
                 {"nothing: expected a model folder, got nothing of that name", "local folder"},
                 prefix);
  expect_message("a file instead of a folder",
                 Checkpoint::open(folder / "target/config.json").map([](auto&&) {}),
                 {"config.json: expected a model folder, got a file"}, prefix);
}

TEST(RefusalsTest, Pairs) {
  expect_pair_refused({
      {"another hidden size",
       [](auto&, auto& a) { a.config["backbone_hidden_size"] = 3840; },
       {"pair: backbone_hidden_size: expected 64 (the target's hidden_size), got 3840",
        "belongs to another target"}},
      {"another vocabulary",
       [](auto&, auto& a) { text(a)["vocab_size"] = 128; },
       {"pair: vocab_size: expected 97 (the target's), got 128"}},
      {"another window",
       [](auto&, auto& a) { text(a)["sliding_window"] = 16; },
       {"pair: sliding_window: expected 8 (the target's), got 16"}},
      {"another head_dim",
       [](auto&, auto& a) { text(a)["head_dim"] = 32; },
       {"pair: assistant layer 0 (sliding_attention): head_dim: expected the target's 16, got 32"}},
      {"another global head_dim",
       [](auto&, auto& a) { text(a)["global_head_dim"] = 64; },
       {"pair: assistant layer 3 (full_attention): head_dim: expected the target's 32, got 64"}},
      {"other KV heads",
       [](auto&, auto& a) { text(a)["num_key_value_heads"] = 1; },
       {"assistant layer 0 (sliding_attention): num_key_value_heads: expected the target's 2, got "
        "1"}},
      {"other global KV heads",
       [](auto&, auto& a) { text(a)["num_global_key_value_heads"] = 2; },
       {"layer 3 (full_attention): num_key_value_heads: expected the target's 1, got 2"}},
      {"another rope base",
       [](auto&, auto& a) { text(a)["rope_parameters"]["sliding_attention"]["rope_theta"] = 5e5; },
       {"layer 0 (sliding_attention): rope_theta: expected the target's 10000, got 500000"}},
      {"another rotary share",
       [](auto&, auto& a) {
         text(a)["rope_parameters"]["full_attention"]["partial_rotary_factor"] = 0.5;
       },
       {"layer 3 (full_attention): partial_rotary_factor: expected the target's 0.25, got 0.5"}},
      {"a target without sliding layers",
       [](auto& t, auto&) {
         text(t)["layer_types"] = {"full_attention", "full_attention", "full_attention"};
       },
       {"pair: assistant layer 0 (sliding_attention): expected a target layer of that type"}},
      {"another bos",
       [](auto&, auto& a) { text(a)["bos_token_id"] = 3; },
       {"pair: bos_token_id: expected the assistant to have the target's 2, got 3"}},
      {"another pad",
       [](auto&, auto& a) { text(a)["pad_token_id"] = 9; },
       {"pair: pad_token_id: expected the assistant to have the target's 0, got 9"}},
      {"another image id",
       [](auto& t, auto& a) {
         t.config["image_token_id"] = 90;
         a.config["image_token_id"] = 91;
       },
       {"pair: image_token_id: expected the assistant to have the target's 90, got 91"}},
      {"another end of audio, in both spellings",
       [](auto& t, auto& a) {
         t.config["eoa_token_index"] = 90;
         a.config["eoa_token_id"] = 91;
       },
       {"pair: eoa_token_id: expected the assistant to have the target's 90, got 91"}},
  });
}

TEST(PairTest, AFittingPairPassesAndReadsTheLastLayers) {
  const TempFolder folder;
  test_support::TinyOptions options;
  options.layers = "sfssfssf";
  test_support::write_tiny_pair(folder.path(), options);
  const auto target = read_model_config(folder / "target");
  const auto drafter = read_model_config(folder / "assistant");
  ASSERT_TRUE(check_pair(*target, *drafter).has_value());
  EXPECT_EQ(shared_kv_layers(*target, *drafter), (std::vector<int64_t>{6, 6, 6, 7}));
}

}  // namespace
}  // namespace tandem::io
