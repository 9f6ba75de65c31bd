#include "quantize/modules.h"

#include <gtest/gtest.h>

#include "io/module_patterns.h"

namespace tandem::quantize {
namespace {

using Names = std::vector<std::string>;

const Names kLayerProjections = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                 "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                 "mlp.down_proj"};

Names layers(const std::string& prefix, int count) {
  Names names;
  for (int i = 0; i < count; ++i)
    for (const std::string& projection : kLayerProjections)
      names.push_back(prefix + "layers." + std::to_string(i) + "." + projection);
  return names;
}

void move_matching(const std::string& part, Names& from, Names& to) {
  for (auto it = from.begin(); it != from.end();) {
    const bool matches = it->find(part) != std::string::npos;
    if (matches) to.push_back(*it);
    it = matches ? from.erase(it) : it + 1;
  }
}

// The published forms (modelopt_fp8 3).
TEST(ExclusionList, Target) {
  const Names unquantized = {"lm_head", "model.vision_embedder.patch_dense",
                             "model.embed_vision.embedding_projection",
                             "model.embed_audio.embedding_projection"};
  EXPECT_EQ(
      exclusion_list(unquantized, layers("model.language_model.", 48)),
      (Names{"lm_head", "model.embed_audio*", "model.embed_vision*", "model.vision_embedder*"}));
}

TEST(ExclusionList, Assistant) {
  EXPECT_EQ(exclusion_list({"pre_projection", "post_projection", "lm_head"}, layers("model.", 4)),
            (Names{"lm_head", "post_projection", "pre_projection"}));
}

TEST(ExclusionList, OneModuleStaysWhole) {
  Names quantized = layers("model.", 12);
  Names unquantized;
  move_matching(".1.mlp.down_proj", quantized, unquantized);
  EXPECT_EQ(exclusion_list(unquantized, quantized), Names{"model.layers.1.mlp.down_proj"});
}

TEST(ExclusionList, ASubtreeIsShortened) {
  Names quantized = layers("model.", 12);
  Names unquantized;
  move_matching(".7.self_attn.", quantized, unquantized);
  EXPECT_EQ(exclusion_list(unquantized, quantized), Names{"model.layers.7.self_attn*"});
}

// "layers.1*" would cover layers 10 and 11, and so would "layers.1" for readers that look for it as
// plain text anywhere in a name.
TEST(ExclusionList, ALayerDoesNotSwallowTheOnesThatBeginLikeIt) {
  Names quantized = layers("model.", 12);
  Names unquantized;
  move_matching("layers.1.", quantized, unquantized);
  const Names list = exclusion_list(unquantized, quantized);
  EXPECT_EQ(list, Names{"model.layers.1.*"});
  const auto patterns = io::ModulePatterns::modelopt(list);
  for (const std::string& name : unquantized) EXPECT_TRUE(patterns.matches(name)) << name;
  for (const std::string& name : quantized) EXPECT_FALSE(patterns.matches(name)) << name;
}

TEST(Modules, SharedInputs) {
  EXPECT_EQ(shared_input("layers.3.self_attn.v_proj"), "layers.3.self_attn.q_proj");
  EXPECT_EQ(shared_input("layers.3.self_attn.k_proj"), "layers.3.self_attn.q_proj");
  EXPECT_EQ(shared_input("layers.3.mlp.up_proj"), "layers.3.mlp.gate_proj");
  EXPECT_EQ(shared_input("layers.3.mlp.down_proj"), "layers.3.mlp.down_proj");
  EXPECT_EQ(shared_input("pre_projection"), "pre_projection");
  EXPECT_EQ(fused_groups(layers("", 3)).size(), size_t{3 * 4});
}

TEST(Modules, PatternsSelectInAnySpelling) {
  const Names modules = layers("", 2);
  EXPECT_EQ(select_modules({"*.down_proj"}, modules, "--exclude")->size(), size_t{2});
  EXPECT_EQ(select_modules({"model.language_model.layers.1"}, modules, "--exclude")->size(),
            kLayerProjections.size());
  const auto none = select_modules({"layers.9.mlp.down_proj"}, modules, "--exclude");
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("layers.9.mlp.down_proj"), std::string::npos);
  EXPECT_FALSE(select_modules({""}, modules, "--exclude"));
}

}  // namespace
}  // namespace tandem::quantize
