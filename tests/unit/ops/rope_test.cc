#include "ops/rope.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

using nlohmann::json;

Tensor angles(const Context& context, const std::vector<int32_t>& positions,
              const std::vector<float>& inv_freq, bool sine, bool round_bf16 = false) {
  const auto n = static_cast<int64_t>(positions.size());
  const auto half = static_cast<int64_t>(inv_freq.size());
  Tensor cos(DType::kF32, {n, half}, 2);
  Tensor sin(DType::kF32, {n, half}, 2);
  rope_angles(context, positions, inv_freq, round_bf16, cos, sin);
  return sine ? std::move(sin) : std::move(cos);
}

// transformers' own frequencies, cosines and sines (tests/golden/rope.json says how near).
TEST(Rope, AnglesAreThoseOfTransformers) {
  std::ifstream file(std::string(TANDEM_TEST_DATA) + "/golden/rope.json");
  const json golden = json::parse(file);
  ASSERT_GE(golden["cases"].size(), 2U);
  for (const json& c : golden["cases"]) {
    SCOPED_TRACE(c["type"].get<std::string>());
    const auto head_dim = c["head_dim"].get<int64_t>();
    const auto rotated = c["num_rotated_pairs"].get<size_t>();
    const double factor = 2.0 * static_cast<double>(rotated) / static_cast<double>(head_dim);
    const std::vector<float> inv_freq =
        rope_inv_freq(head_dim, c["rope_theta"].get<double>(), factor);
    const auto expected = c["inv_freq"].get<std::vector<float>>();
    ASSERT_EQ(inv_freq.size(), static_cast<size_t>(head_dim / 2));
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      const float truth = i < rotated ? expected[i] : 0.0F;
      ASSERT_NEAR(inv_freq[i], truth, truth * std::ldexp(1.0F, -23)) << "pair " << i;
    }
    const auto positions = c["positions"].get<std::vector<int32_t>>();
    const Tensor cos = angles(Context{}, positions, inv_freq, false);
    const Tensor sin = angles(Context{}, positions, inv_freq, true);
    for (size_t r = 0; r < positions.size(); ++r)
      for (size_t i = 0; i < rotated; ++i) {
        const float angle = static_cast<float>(positions[r]) * inv_freq[i];
        const float tolerance = (angle + 1.0F) * std::ldexp(1.0F, -22);
        const auto row = static_cast<int64_t>(r);
        const auto column = static_cast<int64_t>(i);
        ASSERT_NEAR(cos.at(row, column), c["cos"][r][i].get<float>(), tolerance);
        ASSERT_NEAR(sin.at(row, column), c["sin"][r][i].get<float>(), tolerance);
      }
  }
}

TEST(Rope, FullLayersTurnAQuarterOfThePairs) {
  const std::vector<float> inv_freq = rope_inv_freq(512, 1e6, 0.25);
  ASSERT_EQ(inv_freq.size(), 256U);
  EXPECT_EQ(inv_freq[0], 1.0F);
  EXPECT_NEAR(inv_freq[63], std::pow(1e6, -126.0 / 512.0), 1e-8);
  for (size_t i = 64; i < 256; ++i) EXPECT_EQ(inv_freq[i], 0.0F);
}

TEST(Rope, AZeroFrequencyPassesItsPairThrough) {
  const std::vector<int32_t> positions = {100000};
  const std::vector<float> inv_freq = {0.5F, 0.0F, 0.0F};
  for (const Context& context : {kReferenceContext, Context{}}) {
    Tensor x = std::move(Tensor(DType::kBF16, {1, 2, 6}).fill_normal(1, 1.0F));
    const std::string before = x.row_bytes(0);
    rope(context, angles(context, positions, inv_freq, false),
         angles(context, positions, inv_freq, true), x);
    const std::string after = x.row_bytes(0);
    for (const size_t i : {1U, 2U, 4U, 5U, 7U, 8U, 10U, 11U})
      EXPECT_EQ(after.substr(2 * i, 2), before.substr(2 * i, 2)) << i;
    EXPECT_NE(after.substr(0, 2), before.substr(0, 2));
  }
}

TEST(Rope, AnglesRoundToBf16WhenAsked) {
  const std::vector<int32_t> positions = {3, 77};
  const std::vector<float> inv_freq = rope_inv_freq(32, 1e4, 1.0);
  const Tensor exact = angles(Context{}, positions, inv_freq, false);
  const Tensor rounded = angles(Context{}, positions, inv_freq, false, true);
  for (int64_t r = 0; r < 2; ++r)
    for (int64_t i = 0; i < 16; ++i)
      EXPECT_EQ(rounded.at(r, i), core::round_to_bf16(exact.at(r, i)));
}

// The vector kernel does the reference's two products and one sum: no tolerance at all.
TEST(Rope, EveryBackendHasTheBitsOfTheReference) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const int64_t head_dim : {24, 32, 136}) {
      const std::vector<float> inv_freq = rope_inv_freq(head_dim, 1e4, 1.0);
      std::vector<int32_t> positions;
      for (int32_t r = 0; r < 64; ++r) positions.push_back(r * r);
      const Tensor cos = angles(kReferenceContext, positions, inv_freq, false);
      const Tensor sin = angles(kReferenceContext, positions, inv_freq, true);
      const auto make = [&] {
        return std::move(Tensor(dtype, {64, 3, head_dim}, 5).fill_normal(3, 1.0F));
      };
      const Tensor expected = make();
      rope(kReferenceContext, cos, sin, expected);
      for_all_ways([&](const Context& context) {
        const Tensor all = make();
        rope(context, cos, sin, all);
        ASSERT_TRUE(same_bits(all, expected));
        ASSERT_TRUE(all.surroundings_intact());
        ASSERT_TRUE(same_bits(angles(context, positions, inv_freq, true), sin));
        const Tensor some = make();
        rope(context, cos.view().slice_rows(20, 21), sin.view().slice_rows(20, 21),
             some.view().slice_rows(20, 21));
        ASSERT_TRUE(same_bits(some, 20, expected, 20));
      });
    }
}

}  // namespace
}  // namespace tandem::ops::test
