// head_argmax() against product() and argmax_rows(): the same tokens and drafts of 9 to 192 rows,
// whatever is in the rows between them and their tiles, and nothing left in the scratch.
#include "ops/cuda/head_argmax.h"

#include "tests/gpu/head_support.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using ops::cuda::HeadArgmax;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;

constexpr int kMostRows = ops::cuda::kMaxProductRows;

using Case = tests::HeadCase;

class HeadArgmaxOp : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    // Cards with less shared memory multiply first and choose then.
    if (!tests::has_room_for_heads()) GTEST_SKIP() << "no room for it on this card";
  }
  HeadArgmaxOp() {
    TANDEM_CUDA_CHECK(cudaMemset(scratch_.data(), 0, scratch_.size_bytes()));
    tests::synchronize();
  }

  static size_t in_features() { return static_cast<size_t>(GetParam().in_features); }

  HeadArgmax job(int num_rows, const DeviceBuffer& tokens) const {
    HeadArgmax argmax;
    argmax.logits = tests::logits_of(GetParam(), num_rows, scales_);
    argmax.logits.suppressed = suppressed_.as<int32_t>();
    argmax.logits.num_suppressed = num_suppressed_;
    argmax.scratch = scratch_.data();
    argmax.tokens = tokens.as<int32_t>();
    return argmax;
  }
  void multiply_and_choose(const DeviceBuffer& operand, int num_tiles, HeadArgmax argmax) const {
    const auto sums = tests::poisoned(static_cast<size_t>(head_.partial_bytes(num_tiles * 8)));
    product({}, head_, operand.data(), num_tiles, sums.as<float>());
    argmax.logits.sums = head_.partials(sums.as<float>(), num_tiles * 8);
    argmax_rows({}, argmax.logits, argmax.scratch, argmax.tokens,
                argmax.draft.tokens == nullptr ? nullptr : &argmax.draft);
    tests::synchronize();
  }
  std::vector<int32_t> expected_of(const DeviceBuffer& operand, int num_tiles, int num_rows) const {
    const auto tokens = tests::poisoned(kMostRows * sizeof(int32_t));
    multiply_and_choose(operand, num_tiles, job(num_rows, tokens));
    return tests::to_host<int32_t>(tokens, static_cast<size_t>(num_rows));
  }
  // Launches follow each other as dependents, as in a step.
  std::vector<int32_t> tokens_of(const DeviceBuffer& operand, int num_tiles, int num_rows) const {
    const HeadArgmax one = job(num_rows, tokens_);
    EXPECT_TRUE(takes_head_argmax(head_, num_tiles, one.logits));
    TANDEM_CUDA_CHECK(cudaMemset(tokens_.data(), 0xff, tokens_.size_bytes()));
    for (int i = 0; i < 2; ++i) head_argmax({}, head_, operand.data(), num_tiles, one);
    tests::synchronize();
    expect_clean();
    const auto all = tests::to_host<int32_t>(tokens_, kMostRows);
    for (size_t i = static_cast<size_t>(num_rows); i < all.size(); ++i) EXPECT_EQ(all[i], -1);
    return {all.begin(), all.begin() + num_rows};
  }
  void expect_clean() const {
    const auto bytes = tests::to_host<uint8_t>(scratch_, scratch_.size_bytes());
    EXPECT_EQ(bytes, std::vector<uint8_t>(bytes.size()));
  }
  // Rows that are not there stay NaN.
  DeviceBuffer operand_of(std::vector<core::BFloat16> x, int num_tiles) const {
    x.resize(static_cast<size_t>(num_tiles) * 8 * in_features(), core::BFloat16{0xffff});
    DeviceBuffer operand = tests::poisoned(x.size() * 2);
    const auto rows = tests::to_device(x);
    ops::cuda::rows_to_operand({}, rows.as<uint16_t>(), num_tiles * 8, GetParam().in_features, 0.0F,
                               operand.data(), num_tiles);
    tests::synchronize();
    return operand;
  }
  std::vector<core::BFloat16> random_rows(int num_rows, uint32_t seed) const {
    return tests::random_bf16(static_cast<size_t>(num_rows) * in_features(), seed);
  }
  void suppress(const std::vector<int32_t>& ids) {
    num_suppressed_ = static_cast<int>(ids.size());
    TANDEM_CUDA_CHECK(
        cudaMemcpy(suppressed_.data(), ids.data(), ids.size() * 4, cudaMemcpyHostToDevice));
  }

  PackedLinear head_ = tests::random_head(GetParam());
  DeviceBuffer scratch_{ops::cuda::argmax_scratch_bytes(kMostRows)};
  DeviceBuffer tokens_{kMostRows * sizeof(int32_t)};
  DeviceBuffer suppressed_ = tests::to_device(std::vector<int32_t>(64, -1));
  DeviceBuffer scales_ = tests::to_device(tests::token_scales(GetParam()));
  int num_suppressed_ = 0;
};

TEST_P(HeadArgmaxOp, GivesTheTokensOfProductAndArgmax) {
  for (const auto& [tiles, rows] : {std::pair{2, 9},
                                    {2, 16},
                                    {4, 17},
                                    {4, 32},
                                    {8, 33},
                                    {8, 64},
                                    {12, 65},
                                    {12, 96},
                                    {16, 97},
                                    {16, 128},
                                    {20, 129},
                                    {20, 160},
                                    {24, 161},
                                    {24, 192}}) {
    SCOPED_TRACE(rows);
    const auto operand = operand_of(random_rows(rows, static_cast<uint32_t>(rows)), tiles);
    EXPECT_EQ(tokens_of(operand, tiles, rows), expected_of(operand, tiles, rows));
  }
}

// The winners of one round are suppressed in the next.
TEST_P(HeadArgmaxOp, LeavesOutSuppressedIds) {
  const auto operand = operand_of(random_rows(16, 3), 2);
  std::vector<int32_t> ids;
  for (int round = 0; round < 5; ++round) {
    const auto tokens = tokens_of(operand, 2, 16);
    EXPECT_EQ(tokens, expected_of(operand, 2, 16)) << round;
    const auto suppressed = ids;
    for (const int32_t token : tokens) {
      EXPECT_EQ(std::ranges::count(suppressed, token), 0);
      if (ids.size() < 64 && std::ranges::count(ids, token) == 0) ids.push_back(token);
    }
    suppress(ids);
  }
}

TEST_P(HeadArgmaxOp, EqualLogitsGoToTheLowestId) {
  const auto operand = operand_of(std::vector<core::BFloat16>(96 * in_features()), 12);
  EXPECT_EQ(tokens_of(operand, 12, 96), std::vector<int32_t>(96, 0));
  suppress({0, 2, 1});
  EXPECT_EQ(tokens_of(operand, 12, 96), std::vector<int32_t>(96, 3));
}

TEST_P(HeadArgmaxOp, SaysWhichRowsAreNotFinite) {
  auto x = random_rows(60, 4);
  x[1 * in_features() + 3] = core::BFloat16{0x7fc0};
  x[59 * in_features()] = core::BFloat16{0x7f80};
  const auto operand = operand_of(x, 8);
  const auto tokens = tokens_of(operand, 8, 60);
  EXPECT_EQ(tokens, expected_of(operand, 8, 60));
  EXPECT_EQ(tokens[1], -1);
  for (const size_t row : {0UL, 2UL, 58UL}) EXPECT_GE(tokens[row], 0);
}

// Under a cap all of them are equal, the lowest there is: only who may be chosen counts.
TEST_P(HeadArgmaxOp, SuppressedIdsAreNoLogitsAtTheCap) {
  if (GetParam().cap == 0.0F || head_.type != PackedType::kBF16) GTEST_SKIP();
  const auto minus = tests::to_device(std::vector<core::BFloat16>(
      static_cast<size_t>(head_.out_features) * in_features(), core::to_bf16(-1.0F)));
  pack_rows({}, head_, minus.data(), 0, head_.out_features);
  const auto operand =
      operand_of(std::vector<core::BFloat16>(16 * in_features(), core::to_bf16(30000.0F)), 2);
  std::vector<int32_t> ids(40);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  suppress(ids);
  EXPECT_EQ(tokens_of(operand, 2, 16), std::vector<int32_t>(16, 40));
}

TEST_P(HeadArgmaxOp, HandsDraftsOver) {
  constexpr int kRows = 18;
  constexpr int kEntries = 17;
  auto x = random_rows(kRows, 7);
  x[2 * in_features()] = core::BFloat16{0x7fc0};
  const auto operand = operand_of(x, 4);
  std::vector<int32_t> first_rows;
  std::vector<int32_t> wanted;
  for (int i = 0; i < kEntries; ++i) {
    first_rows.push_back(5 * i);
    wanted.push_back(i % 5);
  }
  const auto first_device = tests::to_device(first_rows);
  const auto wanted_device = tests::to_device(wanted);
  std::vector<std::vector<int32_t>> results;
  for (const bool fused : {true, false}) {
    const auto verify = tests::to_device(std::vector<int32_t>(5 * kEntries, 1));
    const auto inputs = tests::to_device(std::vector<int32_t>(kRows, 1));
    const auto counts = tests::to_device(std::vector<int32_t>(kEntries, 7));
    for (int step = 0; step < 3; ++step) {
      HeadArgmax one = job(kRows, tokens_);
      one.draft = {step,
                   kEntries,
                   first_device.as<int32_t>(),
                   wanted_device.as<int32_t>(),
                   counts.as<int32_t>(),
                   verify.as<int32_t>(),
                   inputs.as<int32_t>()};
      if (fused)
        head_argmax({}, head_, operand.data(), 4, one);
      else
        multiply_and_choose(operand, 4, one);
      tests::synchronize();
    }
    auto all = tests::to_host<int32_t>(verify, 5 * kEntries);
    for (const int32_t token : tests::to_host<int32_t>(inputs, kRows)) all.push_back(token);
    for (const int32_t count : tests::to_host<int32_t>(counts, kEntries)) all.push_back(count);
    results.push_back(all);
  }
  EXPECT_EQ(results[0], results[1]);
}

constexpr PackedType kBF16 = PackedType::kBF16;
constexpr PackedType kFp8Weights = PackedType::kFp8Weights;
INSTANTIATE_TEST_SUITE_P(Shapes, HeadArgmaxOp,
                         testing::Values(Case{kBF16, 262144, 1024, 132, 0.0F, 1.0F},
                                         Case{kBF16, 33700, 3840, 132, 30.0F, 1.0F},
                                         Case{kBF16, 33700, 256, 132, 30.0F, 4000.0F},
                                         Case{kBF16, 33700, 256, 132, 30.0F, 0.001F},
                                         Case{kBF16, 3001, 96, 4, 0.0F, 1.0F},
                                         Case{kBF16, 250, 96, 1, 5.0F, 1.0F},
                                         Case{kFp8Weights, 262144, 1024, 132, 0.0F, 0.01F},
                                         Case{kFp8Weights, 33700, 256, 132, 30.0F, 40.0F},
                                         Case{kFp8Weights, 3001, 416, 4, 30.0F, 0.03F}),
                         tests::name_of);

TEST(HeadArgmaxShapes, ThatDoNotFit) {
  const PackedLinear head = ops::cuda::make_packed_linear(kBF16, 33700, 256, 132);
  EXPECT_EQ(takes_head_argmax(head, 2, {}), tests::has_room_for_heads());
  EXPECT_FALSE(takes_head_argmax(head, 1, {}));
  ops::cuda::HeadLogits logits;
  logits.num_rows = 17;
  EXPECT_FALSE(takes_head_argmax(head, 2, logits));
  EXPECT_EQ(takes_head_argmax(head, 4, logits), tests::has_room_for_heads());
  logits.num_suppressed = 65;
  EXPECT_FALSE(takes_head_argmax(head, 4, logits));
  const PackedLinear cut = ops::cuda::make_packed_linear(kBF16, 1024, 256, 132);
  EXPECT_FALSE(takes_head_argmax(cut, 2, {}));
  const PackedLinear integers =
      ops::cuda::make_packed_linear(PackedType::kIntegers, 33700, 256, 132);
  EXPECT_FALSE(takes_head_argmax(integers, 2, {}));
}

}  // namespace
}  // namespace tandem
