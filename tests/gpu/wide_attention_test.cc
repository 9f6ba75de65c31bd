// Attention of prompts against ops/reference, and the promise that a row's bits do not depend on
// the rows beside it.
#include <string>

#include "tests/gpu/wide_attention_run.h"

namespace tandem::ops::test {
namespace {

std::string name_of(const testing::TestParamInfo<Heads>& info) {
  return name_of(info.param);
}

// Over caches of BF16 and of E4M3.
std::vector<Heads> in_both_formats(std::vector<Heads> shapes) {
  for (size_t i = 0, n = shapes.size(); i < n; ++i) {
    shapes.push_back(shapes[i]);
    shapes.back().e4m3_cache = true;
  }
  return shapes;
}

class WideAttentionTest : public tests::OfPrompts<testing::TestWithParam<Heads>> {};

// The demo pair's, 12B and 31B heads of both types; groups that are no power of two.
INSTANTIATE_TEST_SUITE_P(Shapes, WideAttentionTest,
                         testing::ValuesIn(in_both_formats({{8, 2, 32},
                                                            {8, 1, 64},
                                                            {6, 2, 64},
                                                            {5, 1, 128},
                                                            {16, 8, 256},
                                                            {8, 4, 256},
                                                            {16, 1, 512},
                                                            {8, 1, 512},
                                                            {3, 1, 512}})),
                         name_of);

TEST_P(WideAttentionTest, PagesOfSeveralSequences) {
  expect_like_reference({GetParam(), 0, {{0, 0, 1}, {1, 0, 70}, {2, 190, 260}, {3, 63, 66}}});
}

TEST_P(WideAttentionTest, AWindowInPages) {
  expect_like_reference({GetParam(), 70, {{0, 0, 200}, {1, 129, 193}}});
}

TEST_P(WideAttentionTest, OldKeysInARingTheirOwnBesideIt) {
  PassSetup setup{GetParam(), 70, {{0, 0, 150}, {1, 300, 371}, {2, 64, 65}, {3, 30, 95}}};
  setup.in_chunk = true;
  expect_like_reference(setup);
}

// Alone, in tiles cut elsewhere, in shorter chunks, from the cache or beside it.
TEST_P(WideAttentionTest, BitsOfARowDoNotDependOnItsCompany) {
  for (const int window : {0, 90}) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    const PassSetup whole{GetParam(), window, {{0, 0, 230}, {1, 100, 140}}};
    const auto all = run(whole);
    const auto columns = static_cast<size_t>(GetParam().num_heads * GetParam().head_dim);
    const auto expect_rows = [&](const PassSetup& setup, size_t first, const std::string& how) {
      const auto got = run(setup);
      for (size_t i = 0; i < got.size(); ++i)
        ASSERT_EQ(got[i], all[first * columns + i])
            << how << ": row " << first + i / columns << " column " << i % columns;
    };
    PassSetup odd = whole;
    odd.tile_rows = 13;
    expect_rows(odd, 0, "tiles of 13");
    for (const int row : {0, 1, 63, 64, 89, 90, 127, 229})
      expect_rows({GetParam(), window, {{0, row, row + 1}}}, static_cast<size_t>(row), "alone");
    expect_rows({GetParam(), window, {{0, 57, 171}}}, 57, "a chunk");
    expect_rows({GetParam(), window, {{1, 100, 140}}}, 230, "the second sequence");
    if (window == 0) continue;
    for (const int begin : {0, 101}) {
      PassSetup beside{GetParam(), window, {{0, begin, 230}}};
      beside.in_chunk = true;
      expect_rows(beside, static_cast<size_t>(begin), "beside a ring");
    }
  }
}

using WideAttentionLong = tests::OfPrompts<testing::Test>;

TEST_F(WideAttentionLong, TheWindowOfThe12B) {
  for (const Heads& heads : in_both_formats({{16, 8, 256}})) {
    PassSetup setup{heads, 1024, {{0, 1800, 1990}}};
    setup.in_chunk = true;
    expect_like_reference(setup, 17);
  }
}

// Those of which the copy engine takes whole pages, and others.
TEST_F(WideAttentionLong, BlockSizesChangeNoBit) {
  PassSetup setup{{16, 1, 512}, 0, {{0, 150, 280}, {1, 0, 5}, {2, 63, 64}}};
  const auto expected = run(setup);
  for (const int block_size : {1, 8, 24, 32, 64, 256}) {
    setup.block_size = block_size;
    EXPECT_TRUE(run(setup) == expected) << block_size;
  }
}

TEST_F(WideAttentionLong, AFullLayerOverManyKeys) {
  for (const Heads& heads : in_both_formats({{16, 1, 512}}))
    expect_like_reference({heads, 0, {{0, 5000, 5070}}}, 9);
}

}  // namespace
}  // namespace tandem::ops::test
