#include "io/module_patterns.h"

#include <gtest/gtest.h>

namespace tandem::io {
namespace {

bool excludes(const char* entry, const char* module) {
  return ModulePatterns::modelopt({entry}).matches(module);
}

bool ignores(const char* entry, const char* module) {
  return ModulePatterns::compressed({entry}, "x")->matches(module);
}

TEST(ModulePatternsTest, ModelOptEntries) {
  EXPECT_TRUE(excludes("lm_head", "lm_head"));
  EXPECT_TRUE(excludes("model.language_model.layers.1.mlp.up_proj", "layers.1.mlp.up_proj"));
  EXPECT_FALSE(excludes("model.language_model.layers.1.mlp.up_proj", "layers.1.mlp.down_proj"));
  EXPECT_TRUE(excludes("model.layers.1", "layers.1.mlp.up_proj"));
  EXPECT_FALSE(excludes("model.layers.1", "layers.10.mlp.up_proj"));
  EXPECT_TRUE(excludes("model.layers.1*", "layers.1.mlp.up_proj"));
  EXPECT_FALSE(excludes("model.layers.1*", "layers.10.mlp.up_proj"));
  EXPECT_TRUE(excludes("pre_projection*", "pre_projection"));
  EXPECT_FALSE(excludes("pre_projection.*", "pre_projection"));
  EXPECT_TRUE(excludes("layers.3.*", "layers.3.mlp.up_proj"));
  EXPECT_TRUE(excludes("*", "layers.3.mlp.up_proj"));
  EXPECT_TRUE(excludes("*self_attn*", "layers.3.self_attn.q_proj"));
  EXPECT_TRUE(excludes("*.q_proj", "layers.3.self_attn.q_proj"));
  EXPECT_FALSE(excludes("*.q_proj", "layers.3.self_attn.k_proj"));
  EXPECT_TRUE(excludes("*layers.[0-2].*", "layers.1.mlp.up_proj"));
  EXPECT_FALSE(excludes("*layers.[!0-2].*", "layers.1.mlp.up_proj"));
  EXPECT_FALSE(excludes("proj", "layers.1.mlp.up_proj"));
}

TEST(ModulePatternsTest, CompressedTensorsExpressions) {
  EXPECT_TRUE(ignores("re:.*lm_head", "lm_head"));
  EXPECT_TRUE(ignores("re:model\\.layers\\.1\\..*", "layers.1.mlp.up_proj"));
  EXPECT_FALSE(ignores("re:model\\.layers\\.1\\..*", "layers.10.mlp.up_proj"));
  EXPECT_TRUE(ignores("re:^lm_head$", "lm_head"));
  EXPECT_TRUE(ignores("re:.*up_pro?j$", "layers.1.mlp.up_proj"));
  EXPECT_FALSE(ignores("re:.*up_pro$", "layers.1.mlp.up_proj"));
  EXPECT_TRUE(ignores("re:layers.1+.mlp", "layers.111.mlp.up_proj"));
  EXPECT_FALSE(ignores("re:up_proj", "layers.1.mlp.up_proj"));  // from the start, as re.match
  EXPECT_FALSE(ModulePatterns::compressed({"re:a{2}"}, "x").has_value());
  EXPECT_FALSE(ModulePatterns::compressed({"re:*"}, "x").has_value());
  EXPECT_FALSE(ModulePatterns::compressed({"re:\\d"}, "x").has_value());
}

TEST(ModulePatternsTest, TheEntryIsNamed) {
  const auto patterns = ModulePatterns::modelopt({"lm_head", "model.layers.0*"});
  EXPECT_EQ(patterns.matching_entry("layers.0.mlp.up_proj"), "model.layers.0*");
  EXPECT_EQ(patterns.matching_entry("layers.1.mlp.up_proj"), "");
}

// Patterns that ruin backtracking matchers.
TEST(ModulePatternsTest, HostilePatternsAreQuick) {
  std::string stars;
  for (int i = 0; i < 500; ++i) stars += "*a";
  EXPECT_FALSE(matches_wildcard(stars + "b", std::string(1000, 'a')));
  std::string regex;
  for (int i = 0; i < 300; ++i) regex += "a*";
  EXPECT_FALSE(matches_regex(regex + "b$", std::string(1000, 'a')));
}

}  // namespace
}  // namespace tandem::io
