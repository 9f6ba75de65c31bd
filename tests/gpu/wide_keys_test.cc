// Attention of prompts over keys that were widened in front of it.
#include "tests/gpu/wide_attention_run.h"

namespace tandem::ops::test {
namespace {

using WidenedKeys = tests::OfPrompts<testing::Test>;

// The 12B's full layers, others that share keys, two KV heads.
std::vector<Heads> widened_heads() {
  std::vector<Heads> all = {{16, 1, 512}, {8, 1, 512}, {8, 2, 512}};
  for (Heads& heads : all) heads.e4m3_cache = true;
  return all;
}

TEST_F(WidenedKeys, AreThoseOfSeveralSequences) {
  for (const Heads& heads : widened_heads()) {
    ASSERT_TRUE(cuda::takes_widened_keys(heads.num_heads, heads.num_kv_heads, heads.head_dim));
    PassSetup setup{heads, 0, {{0, 0, 1}, {1, 0, 70}, {2, 190, 260}, {3, 63, 66}, {4, 700, 901}}};
    setup.widened = true;
    expect_like_reference(setup, 3);
  }
  EXPECT_FALSE(cuda::takes_widened_keys(3, 1, 512));
  EXPECT_FALSE(cuda::takes_widened_keys(16, 8, 256));
}

TEST_F(WidenedKeys, GiveARowTheSameBitsInEveryCompany) {
  for (const Heads& heads : widened_heads()) {
    PassSetup setup{heads, 0, {{0, 0, 230}, {1, 100, 140}}};
    setup.widened = true;
    const auto all = run(setup);
    const auto columns = static_cast<std::ptrdiff_t>(heads.num_heads * heads.head_dim);
    const auto rows = [&](int first, int count) {
      return std::vector<uint8_t>(all.begin() + first * columns,
                                  all.begin() + (first + count) * columns);
    };
    PassSetup odd = setup;
    odd.tile_rows = 13;
    EXPECT_TRUE(run(odd) == all);
    odd = setup;
    odd.block_size = 32;
    EXPECT_TRUE(run(odd) == all);
    setup.chunks = {{1, 100, 140}};
    EXPECT_TRUE(run(setup) == rows(230, 40));
    setup.chunks = {{0, 57, 171}};
    EXPECT_TRUE(run(setup) == rows(57, 114));
    for (const int row : {0, 63, 64, 229}) {
      setup.chunks = {{0, row, row + 1}};
      EXPECT_TRUE(run(setup) == rows(row, 1)) << row;
    }
  }
}

TEST_F(WidenedKeys, AreMany) {
  PassSetup setup{widened_heads()[0], 0, {{0, 5000, 5070}}};
  setup.widened = true;
  expect_like_reference(setup, 9);
}

}  // namespace
}  // namespace tandem::ops::test
