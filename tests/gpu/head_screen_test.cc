// screened_head() against head_product(): the same tokens, drafts and side sums, whatever the rows;
// and a screen's error bounds against errors in double.
#include "ops/cuda/head_screen.h"

#include <algorithm>
#include <cmath>

#include "tests/gpu/screen_support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using ops::cuda::HeadArgmax;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using ops::cuda::SideProduct;

constexpr int kSideFeatures = 272;
constexpr int kMostRows = ops::cuda::kMaxProductRows;
constexpr int kMostSuppressed = 96;

class ScreenedHead : public tests::ScreenTest {
 protected:
  ScreenedHead()
      : side_(make_packed_linear(PackedType::kBF16, kSideFeatures, in(), multiprocessors())),
        scratch_(zeros(ops::cuda::argmax_scratch_bytes(kMostRows))),
        suppressed_(tests::to_device(ids_)) {
    fill_random({}, side_, 6);
    tests::synchronize();
  }

  HeadArgmax argmax(int num_rows, const DeviceBuffer& tokens) const {
    HeadArgmax job;
    job.logits.num_rows = num_rows;
    job.logits.vocab_size = vocab();
    job.logits.cap = GetParam().cap;
    job.logits.suppressed = suppressed_.as<int32_t>();
    job.logits.num_suppressed = num_suppressed_;
    job.scratch = scratch_.data();
    job.tokens = tokens.as<int32_t>();
    job.exchange = exchange_.data();
    return job;
  }
  // Two launches: nothing may be left of the first one. Padding is not zero.
  template <typename Rows>
  void expect_same(const Rows& rows, int num_rows) {
    SCOPED_TRACE(num_rows);
    const auto bytes = static_cast<size_t>(side_.partial_bytes(8));
    const auto tokens = tests::poisoned(32);
    const auto expected = tests::poisoned(32);
    const auto side = tests::poisoned(bytes);
    const auto expected_side = tests::poisoned(bytes);
    for (int i = 0; i < 2; ++i)
      screened_head({}, head_, screen(), SideProduct{&side_, side.as<float>()}, rows,
                    argmax(num_rows, tokens));
    head_product({}, head_, SideProduct{&side_, expected_side.as<float>()}, rows,
                 argmax(num_rows, expected));
    tests::synchronize();
    last_ = tests::to_host<int32_t>(tokens, 8);
    EXPECT_EQ(last_, tests::to_host<int32_t>(expected, 8));
    EXPECT_EQ(tests::to_host<uint32_t>(side, bytes / 4),
              tests::to_host<uint32_t>(expected_side, bytes / 4));
    expect_clean();
  }
  void expect_clean() const {
    for (const DeviceBuffer* zeros : {&exchange_, &scratch_, &workspace_}) {
      const size_t count = zeros == &exchange_    ? static_cast<size_t>(screen_.num_shares) * 4
                           : zeros == &workspace_ ? 4 * (2 * kMostRows + 1024)  // the first of it
                                                  : zeros->size_bytes();
      EXPECT_EQ(tests::to_host<uint8_t>(*zeros, count), std::vector<uint8_t>(count));
    }
  }
  // Eight rows, of which the first `num_rows` count; and tiles of them among others.
  void expect_same_for(const std::vector<BFloat16>& x, int num_rows) {
    const auto operand = operand_of(x, 1);
    expect_same(static_cast<const void*>(operand.data()), num_rows);
    expect_same_among_others(x, num_rows);
  }
  void expect_same_among_others(const std::vector<BFloat16>& x, int num_rows) {
    for (const int num_tiles : {2, 4, 8})
      if (takes_screened_rows(head_, screen_, num_tiles))
        expect_same_rows(among_others(x, num_tiles), 8 * num_tiles - (8 - num_rows), num_tiles);
  }
  void expect_same_rows(const std::vector<BFloat16>& x, int num_rows, int num_tiles) {
    SCOPED_TRACE("rows " + std::to_string(num_rows));
    const auto count = static_cast<size_t>(num_rows);
    const auto operand = operand_of(x, num_tiles);
    const auto tokens = tests::poisoned(4 * kMostRows);
    const auto expected = tests::poisoned(4 * kMostRows);
    const auto partials = tests::poisoned(static_cast<size_t>(head_.partial_bytes(8 * num_tiles)));
    for (int i = 0; i < 2; ++i)
      screened_rows({}, head_, screen(), operand.data(), num_tiles, partials.as<float>(),
                    argmax(num_rows, tokens));
    product({}, head_, operand.data(), num_tiles, partials.as<float>());
    HeadArgmax job = argmax(num_rows, expected);
    job.logits.sums = head_.partials(partials.as<float>(), 8 * num_tiles);
    argmax_rows({}, job.logits, job.scratch, job.tokens);
    tests::synchronize();
    EXPECT_EQ(tests::to_host<int32_t>(tokens, count), tests::to_host<int32_t>(expected, count));
    expect_clean();
  }
  void suppress(const std::vector<int32_t>& ids) {
    std::ranges::copy(ids, ids_.begin());
    num_suppressed_ = static_cast<int>(ids.size());
    TANDEM_CUDA_CHECK(cudaMemcpy(suppressed_.data(), ids_.data(), suppressed_.size_bytes(),
                                 cudaMemcpyHostToDevice));
  }

  PackedLinear side_;
  DeviceBuffer scratch_;
  std::vector<int32_t> ids_ = std::vector<int32_t>(kMostSuppressed, -1);
  DeviceBuffer suppressed_;
  int num_suppressed_ = 0;
  std::vector<int32_t> last_;
};

TEST_P(ScreenedHead, GivesTheTokensOfTheHead) {
  set_weights(random_weights(1));
  for (const int rows : {1, 2, 5, 8})
    expect_same_for(random_rows(static_cast<uint32_t>(rows)), rows);
}

// Rows that are weights themselves, so that one token leads by far; and the same with the winners
// suppressed.
TEST_P(ScreenedHead, FindsWhoLeadsByFar) {
  const auto weights = random_weights(2);
  set_weights(weights);
  std::vector<BFloat16> x;
  std::vector<int32_t> winners;
  for (int row = 0; row < 8; ++row) {
    winners.push_back((row * 977 + 60) % vocab());
    const auto begin = weights.begin() + static_cast<std::ptrdiff_t>(winners.back()) * in();
    x.insert(x.end(), begin, begin + in());
  }
  expect_same_for(x, 8);
  if (GetParam().cap == 0.0F) {
    EXPECT_EQ(last_, winners);
  }
  suppress(winners);
  expect_same_for(x, 8);
}

// More ids than the kernels of heads keep in shared memory.
TEST_P(ScreenedHead, LeavesOutManyIds) {
  const auto weights = random_weights(8);
  set_weights(weights);
  std::vector<BFloat16> x;
  std::vector<int32_t> ids;
  for (int i = 0; i < kMostSuppressed; ++i) ids.push_back((i * 61 + 7) % vocab());
  for (int row = 0; row < 8; ++row) {
    const auto begin =
        weights.begin() + static_cast<std::ptrdiff_t>(ids[static_cast<size_t>(row * 12)]) * in();
    x.insert(x.end(), begin, begin + in());
  }
  suppress(ids);
  expect_same_among_others(x, 8);
}

// Of those that are equal the lowest id wins.
TEST_P(ScreenedHead, TellsWhatTheScreenCannot) {
  set_weights(nearly_equal_weights(3));
  expect_same_for(random_rows(5), 8);
  expect_same_for(random_rows(6), 1);
}

TEST_P(ScreenedHead, RowsOfZerosLeaveEveryone) {
  set_weights(random_weights(4));
  expect_same_for(std::vector<BFloat16>(8 * static_cast<size_t>(in())), 3);
  EXPECT_EQ(last_[0], 0);
  suppress({0, 1});
  expect_same_for(std::vector<BFloat16>(8 * static_cast<size_t>(in())), 3);
  EXPECT_EQ(last_[2], 2);
}

TEST_P(ScreenedHead, SaysWhichRowsAreNotFinite) {
  set_weights(random_weights(5));
  expect_same_for(rows_not_finite(4), 5);
  EXPECT_EQ(last_[1], -1);
  EXPECT_GE(last_[2], 0);
}

// Also rows and weights near FP32's and BF16's limits.
TEST_P(ScreenedHead, TakesAnySize) {
  set_weights(weights_of_any_size(6));
  for (const int exponent : {-60, -20, 20, 60, 100})
    expect_same_for(random_rows_of_size(7, exponent), 4);
}

TEST_P(ScreenedHead, MakesTheNorm) {
  const int hidden = in();
  if (hidden > ops::cuda::kMaxNormedHidden) GTEST_SKIP() << "norms of shorter rows";
  set_weights(random_weights(7));
  const tests::NormedInput normed(hidden);
  for (int rows = 1; rows <= ops::cuda::kFewRows; ++rows) expect_same(normed.rows, rows);
}

// Every error of a logit is within the bound; and the bound is of use: it is at most twice as long
// as the error of the weights.
TEST_P(ScreenedHead, BoundsItsErrors) {
  const auto weights = random_weights(8);
  const auto rows = tests::to_device(weights);
  const auto codes = tests::poisoned(num_weights());
  ops::cuda::round_to_integers({}, rows.data(), out(), in(), codes.as<uint8_t>(),
                               scales_.as<float>(), errors_.as<float>());
  tests::synchronize();
  const auto got = tests::to_host<uint8_t>(codes, num_weights());
  const auto scales = tests::to_host<float>(scales_, static_cast<size_t>(out()));
  const auto errors = tests::to_host<float>(errors_, static_cast<size_t>(out()));
  const auto width = static_cast<size_t>(in());
  for (size_t id = 0; id < static_cast<size_t>(std::min(out(), 3000)); ++id) {
    double squares = 0;
    double lost = 0;
    for (size_t i = id * width; i < (id + 1) * width; ++i) {
      const double weight = core::to_float(weights[i]);
      const double magnitude = double{scales[id]} * (got[i] & 127);
      const double difference = weight - (got[i] >= 128 ? -magnitude : magnitude);
      ASSERT_LE(std::abs(difference), double{scales[id]} * 0.5001);
      squares += weight * weight;
      lost += difference * difference;
    }
    ASSERT_GE(double{errors[id]}, std::sqrt(lost) + std::sqrt(squares) * 0x1p-12) << id;
    ASSERT_LE(double{errors[id]}, 2 * std::sqrt(lost) + 1e-17) << id;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, ScreenedHead,
                         testing::Values(tests::ScreenCase{262144, 1024, 132, 0.0F, 0.05F},
                                         tests::ScreenCase{20000, 3840, 132, 30.0F, 0.02F},
                                         tests::ScreenCase{33700, 3840, 132, 30.0F, 0.02F},
                                         tests::ScreenCase{20000, 256, 132, 30.0F, 40.0F},
                                         tests::ScreenCase{33700, 256, 132, 30.0F, 40.0F},
                                         tests::ScreenCase{3001, 96, 4, 0.0F, 1.0F},
                                         tests::ScreenCase{3001, 416, 5, 30.0F, 0.5F},
                                         tests::ScreenCase{1000, 96, 4, 0.0F, 1.0F},
                                         tests::ScreenCase{130, 96, 1, 0.0F, 1.0F}),
                         tests::name_of);

TEST(ScreenedHeadShapes, ThatDoNotFit) {
  const auto make = [](PackedType type, int out, int in) {
    return ops::cuda::make_packed_linear(type, out, in, 132);
  };
  const PackedLinear head = make(PackedType::kBF16, 20000, 256);
  ops::cuda::HeadLogits logits;
  logits.num_rows = 8;
  EXPECT_TRUE(takes_screened_head(head, make(PackedType::kIntegers, 20000, 256), {}, logits));
  EXPECT_FALSE(takes_screened_head(head, make(PackedType::kIntegers, 20000, 512), {}, logits));
  EXPECT_FALSE(takes_screened_head(head, make(PackedType::kFp8Weights, 20000, 256), {}, logits));
  EXPECT_TRUE(takes_screened_rows(head, make(PackedType::kIntegers, 20000, 256), 4));
  EXPECT_FALSE(takes_screened_rows(head, make(PackedType::kIntegers, 20000, 256), 8));
  const PackedLinear whole = make(PackedType::kBF16, 33700, 256);  // sets belong to one share each
  EXPECT_EQ(takes_screened_rows(whole, make(PackedType::kIntegers, 33700, 256), 8),
            tests::has_room_for_heads());
  EXPECT_FALSE(takes_screened_rows(whole, make(PackedType::kIntegers, 33700, 256), 12));
  EXPECT_FALSE(takes_screened_rows(head, make(PackedType::kIntegers, 20000, 512), 2));
  logits.num_rows = 9;
  EXPECT_FALSE(takes_screened_head(head, make(PackedType::kIntegers, 20000, 256), {}, logits));
}

}  // namespace
}  // namespace tandem
