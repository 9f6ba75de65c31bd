// head_product() against product() and argmax_rows(): the same tokens, drafts and side sums, and
// nothing left in what is shared from launch to launch.
#include "ops/cuda/head_product.h"

#include <optional>

#include "tests/gpu/head_support.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using ops::cuda::HeadArgmax;
using ops::cuda::NormedRows;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using ops::cuda::SideProduct;

constexpr int kSideFeatures = 272;

using Case = tests::HeadCase;

class HeadProduct : public testing::TestWithParam<Case> {
 protected:
  HeadProduct()
      : head_(tests::random_head(GetParam())),
        side_(make_packed_linear(side_type(), kSideFeatures, in_features(),
                                 GetParam().num_multiprocessors)),
        exchange_(head_exchange_bytes(head_)),
        scratch_(ops::cuda::argmax_scratch_bytes(8)),
        suppressed_(tests::to_device(ids_)) {
    fill_random({}, side_, 6);
    TANDEM_CUDA_CHECK(cudaMemset(exchange_.data(), 0, exchange_.size_bytes()));
    TANDEM_CUDA_CHECK(cudaMemset(scratch_.data(), 0, scratch_.size_bytes()));
    tests::synchronize();
  }

  // Weights alone in FP8 have BF16 beside them.
  static PackedType side_type() {
    return GetParam().type == PackedType::kFp8 ? PackedType::kFp8 : PackedType::kBF16;
  }
  int in_features() const { return GetParam().in_features; }
  float input_scale() const { return GetParam().type == PackedType::kFp8 ? 0.037F : 0.0F; }

  HeadArgmax argmax(int num_rows, const DeviceBuffer& tokens) const {
    HeadArgmax job;
    job.logits = tests::logits_of(GetParam(), num_rows, scales_);
    job.logits.suppressed = suppressed_.as<int32_t>();
    job.logits.num_suppressed = num_suppressed_;
    job.scratch = scratch_.data();
    job.tokens = tokens.as<int32_t>();
    job.exchange = exchange_.data();
    return job;
  }
  std::vector<int32_t> expected_of(const void* operand, int num_rows) const {
    const auto tokens = tests::poisoned(8 * sizeof(int32_t));
    const auto sums = tests::poisoned(static_cast<size_t>(head_.partial_bytes(8)));
    product({}, head_, operand, 1, sums.as<float>());
    HeadArgmax job = argmax(num_rows, tokens);
    job.logits.sums = head_.partials(sums.as<float>(), 8);
    argmax_rows({}, job.logits, job.scratch, job.tokens);
    tests::synchronize();
    return tests::to_host<int32_t>(tokens, static_cast<size_t>(num_rows));
  }
  // Launches follow each other as dependents, as in a step.
  template <typename Rows>
  std::vector<int32_t> tokens_of(const Rows& rows, int num_rows, const SideProduct& side) {
    const auto tokens = tests::poisoned(8 * sizeof(int32_t));
    for (int i = 0; i < 2; ++i) head_product({}, head_, side, rows, argmax(num_rows, tokens));
    tests::synchronize();
    expect_clean();
    const auto all = tests::to_host<int32_t>(tokens, 8);
    for (size_t i = static_cast<size_t>(num_rows); i < 8; ++i) EXPECT_EQ(all[i], -1);
    return {all.begin(), all.begin() + num_rows};
  }
  void expect_clean() const {
    const auto bytes = tests::to_host<uint8_t>(scratch_, scratch_.size_bytes());
    EXPECT_EQ(bytes, std::vector<uint8_t>(bytes.size()));
    const auto flags = tests::to_host<uint32_t>(exchange_, static_cast<size_t>(head_.num_shares));
    EXPECT_EQ(flags, std::vector<uint32_t>(flags.size()));
  }
  void expect_side(const void* operand, const DeviceBuffer& got, int num_rows) const {
    const auto sums = tests::poisoned(static_cast<size_t>(side_.partial_bytes(8)));
    product({}, side_, operand, 1, sums.as<float>());
    tests::synchronize();
    const auto a = tests::to_host<uint32_t>(sums, sums.size_bytes() / 4);
    const auto b = tests::to_host<uint32_t>(got, got.size_bytes() / 4);
    for (size_t i = 0; i < a.size(); ++i)
      if (static_cast<int>(i / ops::cuda::kSetColumns % 8) < num_rows) {
        ASSERT_EQ(a[i], b[i]) << i;
      }
  }
  DeviceBuffer operand_of(std::vector<core::BFloat16> x) const {
    DeviceBuffer operand = tests::poisoned(16 * static_cast<size_t>(in_features()));
    const auto rows = tests::to_device(x);
    ops::cuda::rows_to_operand({}, rows.as<uint16_t>(), 8, in_features(), input_scale(),
                               operand.data(), 1);
    tests::synchronize();
    return operand;
  }
  std::vector<core::BFloat16> random_rows(uint32_t seed) const {
    return tests::random_bf16(8 * static_cast<size_t>(in_features()), seed);
  }

  PackedLinear head_, side_;
  DeviceBuffer exchange_, scratch_;
  std::vector<int32_t> ids_ = std::vector<int32_t>(64, -1);
  DeviceBuffer suppressed_;
  DeviceBuffer scales_ = tests::to_device(tests::token_scales(GetParam()));
  int num_suppressed_ = 0;
};

TEST_P(HeadProduct, GivesTheTokensOfProductAndArgmax) {
  ASSERT_TRUE(takes_head_product(head_, {&side_, nullptr}));
  for (const int rows : {1, 2, 5, 8}) {
    SCOPED_TRACE(rows);
    const auto operand = operand_of(random_rows(static_cast<uint32_t>(rows)));
    const auto side = tests::poisoned(static_cast<size_t>(side_.partial_bytes(8)));
    EXPECT_EQ(tokens_of(static_cast<const void*>(operand.data()), rows,
                        SideProduct{&side_, side.as<float>()}),
              expected_of(operand.data(), rows));
    expect_side(operand.data(), side, rows);
  }
}

TEST_P(HeadProduct, LeavesOutSuppressedIds) {
  const auto operand = operand_of(random_rows(3));
  // The winners of one round are suppressed in the next.
  for (num_suppressed_ = 0; num_suppressed_ <= 56; num_suppressed_ += 8) {
    const auto tokens = tokens_of(static_cast<const void*>(operand.data()), 8, {});
    EXPECT_EQ(tokens, expected_of(operand.data(), 8)) << num_suppressed_;
    for (size_t i = 0; i < 8; ++i) {
      EXPECT_EQ(std::count(ids_.begin(), ids_.begin() + num_suppressed_, tokens[i]), 0);
      ids_[static_cast<size_t>(num_suppressed_) + i] = tokens[i];
    }
    TANDEM_CUDA_CHECK(cudaMemcpy(suppressed_.data(), ids_.data(), suppressed_.size_bytes(),
                                 cudaMemcpyHostToDevice));
    if (num_suppressed_ == 56) break;
  }
}

TEST_P(HeadProduct, EqualLogitsGoToTheLowestId) {
  const std::vector<core::BFloat16> zeros(8 * static_cast<size_t>(in_features()));
  const auto operand = operand_of(zeros);
  ids_[0] = 0;
  TANDEM_CUDA_CHECK(cudaMemcpy(suppressed_.data(), ids_.data(), suppressed_.size_bytes(),
                               cudaMemcpyHostToDevice));
  EXPECT_EQ(tokens_of(static_cast<const void*>(operand.data()), 8, {}), std::vector<int32_t>(8, 0));
  num_suppressed_ = 1;
  EXPECT_EQ(tokens_of(static_cast<const void*>(operand.data()), 8, {}), std::vector<int32_t>(8, 1));
}

TEST_P(HeadProduct, SaysWhichRowsAreNotFinite) {
  auto x = random_rows(4);
  const auto in = static_cast<size_t>(in_features());
  x[1 * in + 3] = core::BFloat16{0x7fc0};  // E4M3 has NaN as well
  const auto operand = operand_of(x);
  const auto tokens = tokens_of(static_cast<const void*>(operand.data()), 4, {});
  EXPECT_EQ(tokens, expected_of(operand.data(), 4));
  EXPECT_EQ(tokens[1], -1);
  EXPECT_GE(tokens[0], 0);
  EXPECT_GE(tokens[2], 0);
}

TEST_P(HeadProduct, MakesTheNorm) {
  const int hidden = in_features();
  if (hidden > ops::cuda::kMaxNormedHidden) GTEST_SKIP() << "norms of shorter rows";
  tests::HostSums sums(8, hidden, 32, std::max(1, hidden / 128 * 13 / 2));
  sums.fill_normal(7, 0.7F, 8);
  const auto x = tests::random_bf16(static_cast<size_t>(8 * hidden), 2, 2.0F);
  const auto post = tests::to_device(tests::random_bf16(static_cast<size_t>(hidden), 3));
  const auto norm = tests::to_device(tests::random_bf16(static_cast<size_t>(hidden), 4));
  const auto x_device = tests::to_device(x);
  const auto old_x = tests::to_device(x);
  for (int rows = 1; rows <= ops::cuda::kFewRows; ++rows) {
    NormedRows normed{.hidden = hidden, .sums = sums.upload(), .scale = 0.83F};
    normed.post_weight = post.as<uint16_t>();
    normed.eps = normed.next_eps = 0.02F;
    normed.x = x_device.as<uint16_t>();
    normed.weight = norm.as<uint16_t>();
    normed.input_scale = input_scale();
    tests::TestOperand operand(8, hidden, input_scale());
    TANDEM_CUDA_CHECK(
        cudaMemcpy(old_x.data(), x.data(), old_x.size_bytes(), cudaMemcpyHostToDevice));
    ops::cuda::residual_norm({}, {rows,
                                  hidden,
                                  normed.sums,
                                  0.83F,
                                  post.as<uint16_t>(),
                                  0.02F,
                                  1.0F,
                                  old_x.as<uint16_t>(),
                                  {norm.as<uint16_t>(), 0.02F, operand.view(), nullptr}});
    const auto side = tests::poisoned(static_cast<size_t>(side_.partial_bytes(8)));
    EXPECT_EQ(tokens_of(normed, rows, SideProduct{&side_, side.as<float>()}),
              expected_of(operand.view().data, rows));
    expect_side(operand.view().data, side, rows);
  }
}

// Under a cap all of them are equal, the lowest there is: only who may be chosen counts.
TEST_P(HeadProduct, SuppressedIdsAreNoLogitsAtTheCap) {
  if (GetParam().cap == 0.0F || GetParam().type != PackedType::kBF16) GTEST_SKIP();
  const auto in = static_cast<size_t>(in_features());
  const auto minus = tests::to_device(std::vector<core::BFloat16>(
      static_cast<size_t>(head_.out_features) * in, core::to_bf16(-1.0F)));
  pack_rows({}, head_, minus.data(), 0, head_.out_features);
  const auto operand = operand_of(std::vector<core::BFloat16>(8 * in, core::to_bf16(64.0F)));
  for (int i = 0; i < 64; ++i) ids_[static_cast<size_t>(i)] = i;
  TANDEM_CUDA_CHECK(cudaMemcpy(suppressed_.data(), ids_.data(), suppressed_.size_bytes(),
                               cudaMemcpyHostToDevice));
  for (num_suppressed_ = 1; num_suppressed_ <= 64; num_suppressed_ += 21)
    EXPECT_EQ(tokens_of(static_cast<const void*>(operand.data()), 8, {}),
              std::vector<int32_t>(8, num_suppressed_));
}

constexpr PackedType kFp8 = PackedType::kFp8;
constexpr PackedType kBF16 = PackedType::kBF16;
constexpr PackedType kFp8Weights = PackedType::kFp8Weights;
INSTANTIATE_TEST_SUITE_P(Shapes, HeadProduct,
                         testing::Values(Case{kBF16, 262144, 1024, 132, 0.0F, 1.0F},
                                         Case{kBF16, 20000, 3840, 132, 30.0F, 1.0F},
                                         Case{kBF16, 20000, 256, 132, 30.0F, 4000.0F},
                                         Case{kFp8, 20000, 1024, 132, 0.0F, 0.01F},
                                         Case{kFp8, 3001, 416, 5, 30.0F, 3.0F},
                                         Case{kBF16, 1000, 96, 4, 0.0F, 1.0F},
                                         Case{kBF16, 130, 96, 1, 0.0F, 1.0F},
                                         Case{kFp8Weights, 262144, 1024, 132, 0.0F, 0.01F},
                                         Case{kFp8Weights, 20000, 256, 132, 30.0F, 40.0F},
                                         Case{kFp8Weights, 3001, 416, 5, 30.0F, 0.03F},
                                         Case{kFp8Weights, 130, 96, 1, 0.0F, 1.0F}),
                         tests::name_of);

TEST(HeadProductShapes, ThatDoNotFit) {
  const PackedLinear small = ops::cuda::make_packed_linear(kBF16, 256, 1024, 132);
  EXPECT_FALSE(takes_head_product(small, {}));
  const PackedLinear head = ops::cuda::make_packed_linear(kBF16, 20000, 256, 132);
  const PackedLinear other = ops::cuda::make_packed_linear(kBF16, 256, 512, 132);
  EXPECT_TRUE(takes_head_product(head, {}));
  EXPECT_FALSE(takes_head_product(head, {&other, nullptr}));
  const PackedLinear rounded = ops::cuda::make_packed_linear(kFp8Weights, 20000, 256, 132);
  const PackedLinear bf16 = ops::cuda::make_packed_linear(kBF16, 256, 256, 132);
  EXPECT_TRUE(takes_head_product(rounded, {&bf16, nullptr}));
  EXPECT_FALSE(takes_head_product(rounded, {&rounded, nullptr}));
}

}  // namespace
}  // namespace tandem
