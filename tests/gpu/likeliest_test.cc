// screened_likeliest() against product(), full_logits() and row_facts(): the same tokens and logits
// bit for bit, whatever the rows.
#include <cmath>
#include <cstring>
#include <numeric>

#include "ops/cuda/head_likeliest.h"
#include "ops/cuda/head_screen.cuh"
#include "ops/cuda/row_facts.h"
#include "tests/gpu/screen_support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using ops::cuda::kLikeliest;
using ops::cuda::Likeliest;

constexpr int kMostRows = 8 * ops::cuda::kMaxScreenedTiles;
// More ids than there is room for where all are in doubt.
constexpr int kManyTokens = 4097;
constexpr int kNumCounts = 4;
constexpr int kCounts[kNumCounts] = {128, 66, 17, 1};

class LikeliestOfHead : public tests::ScreenTest {
 protected:
  LikeliestOfHead()
      : own_workspace_(tests::poisoned(likeliest_workspace_bytes(screen_))),
        suppressed_(tests::to_device(std::vector<int32_t>{0, 1, 2, 5})) {}

  static bool is_large() { return vocab() >= kManyTokens; }
  ops::cuda::HeadLogits logits(int num_rows) const {
    ops::cuda::HeadLogits result;
    result.num_rows = num_rows;
    result.vocab_size = vocab();
    result.cap = GetParam().cap;
    result.suppressed = suppressed_.as<int32_t>();  // which changes nothing
    result.num_suppressed = 4;
    return result;
  }
  // The whole rows.
  std::vector<Likeliest> facts_of(const DeviceBuffer& operand, int num_rows, int num_tiles) const {
    const auto rows = static_cast<size_t>(num_rows);
    const auto partials = tests::poisoned(static_cast<size_t>(head_.partial_bytes(8 * num_tiles)));
    const auto all = tests::poisoned(rows * static_cast<size_t>(vocab()) * 4);
    const auto scratch = tests::poisoned(ops::cuda::row_facts_scratch_bytes(num_rows, vocab()));
    const auto facts = tests::poisoned(rows * sizeof(ops::cuda::RowFacts));
    product({}, head_, operand.data(), num_tiles, partials.as<float>());
    ops::cuda::HeadLogits head = logits(num_rows);
    head.sums = head_.partials(partials.as<float>(), 8 * num_tiles);
    full_logits({}, head, nullptr, num_rows, all.as<float>());
    ops::cuda::RowFactsJob job;
    job.num_rows = num_rows;
    job.vocab_size = vocab();
    job.logits = all.as<float>();
    row_facts({}, job, scratch.data(), facts.as<ops::cuda::RowFacts>());
    tests::synchronize();
    std::vector<Likeliest> result;
    for (const auto& one : tests::to_host<ops::cuda::RowFacts>(facts, rows))
      result.push_back(one.likeliest);
    return result;
  }
  // launch(job) twice: nothing may be left of the first one.
  template <typename Launch>
  std::vector<Likeliest> find(int num_rows, int num_likeliest, const Launch& launch) const {
    const auto rows = static_cast<size_t>(num_rows);
    const auto out = tests::poisoned(rows * sizeof(Likeliest));
    ops::cuda::HeadLikeliest job;
    job.logits = logits(num_rows);
    job.num_likeliest = num_likeliest;
    job.workspace = own_workspace_.data();
    job.exchange = exchange_.data();
    job.out = out.as<Likeliest>();
    for (int i = 0; i < 2; ++i) launch(job);
    tests::synchronize();
    expect_clean();
    return tests::to_host<Likeliest>(out, rows);
  }
  void expect_clean() const {
    const size_t flags = static_cast<size_t>(screen_.num_shares) * 4;
    EXPECT_EQ(tests::to_host<uint8_t>(exchange_, flags), std::vector<uint8_t>(flags));
    EXPECT_EQ(tests::to_host<uint8_t>(workspace_, 4 * ops::cuda::kMaxProductRows),
              std::vector<uint8_t>(4 * ops::cuda::kMaxProductRows));
  }
  // unsure: bits of rows whose status may be -1.
  static void expect_first(const std::vector<Likeliest>& got, const std::vector<Likeliest>& facts,
                           int num_likeliest, uint32_t unsure) {
    for (size_t row = 0; row < got.size(); ++row) {
      SCOPED_TRACE("row " + std::to_string(row));
      if ((unsure >> row & 1) != 0 && got[row].status == -1) continue;
      ASSERT_EQ(got[row].status, facts[row].status);
      if (got[row].status == 0) continue;
      const int count = std::min(num_likeliest, facts[row].count);
      ASSERT_EQ(got[row].count, count);
      for (int i = 0; i < kLikeliest; ++i) {
        const bool there = i < count;
        ASSERT_EQ(got[row].ids[i], there ? facts[row].ids[i] : -1) << i;
        ASSERT_EQ(std::bit_cast<uint32_t>(got[row].logits[i]),
                  there ? std::bit_cast<uint32_t>(facts[row].logits[i]) : 0U)
            << i;
      }
    }
  }
  // Eight rows, of which the first `num_rows` count, alone and in tiles among others.
  void expect_same_for(const std::vector<BFloat16>& x, int num_rows, uint32_t unsure = 0) {
    SCOPED_TRACE("rows " + std::to_string(num_rows));
    const auto operand = operand_of(x, 1);
    const auto facts = facts_of(operand, num_rows, 1);
    for (const int count : kCounts) {
      SCOPED_TRACE("of which " + std::to_string(count));
      last_ = find(num_rows, count, [&](const auto& job) {
        screened_likeliest({}, head_, screen(), {}, operand.data(), job);
      });
      expect_first(last_, facts, count, unsure);
    }
    for (const int num_tiles : {2, 4})
      expect_same_rows(among_others(x, num_tiles), 8 * num_tiles - (8 - num_rows), num_tiles,
                       everyone_ ? ~0U : unsure << 8);
  }
  void expect_same_rows(const std::vector<BFloat16>& x, int num_rows, int num_tiles,
                        uint32_t unsure) {
    SCOPED_TRACE("tiles " + std::to_string(num_tiles));
    const auto operand = operand_of(x, num_tiles);
    const auto facts = facts_of(operand, num_rows, num_tiles);
    const auto partials =
        tests::poisoned(static_cast<size_t>(screen_.partial_bytes(8 * num_tiles)));
    for (const int count : {128, 17}) {
      SCOPED_TRACE("of which " + std::to_string(count));
      const auto got = find(num_rows, count, [&](const auto& job) {
        screened_likeliest_rows({}, head_, screen(), operand.data(), num_tiles,
                                partials.as<float>(), job);
      });
      expect_first(got, facts, count, unsure);
    }
  }

  DeviceBuffer own_workspace_, suppressed_;
  std::vector<Likeliest> last_;
  bool everyone_ = false;  // no weights of which a row's status would be sure
};

// Logits that the cap makes equal by the thousand are in doubt.
bool is_saturated(const tests::ScreenCase& c) {
  return c.size > 10.0F;
}

TEST_P(LikeliestOfHead, AreThoseOfTheHead) {
  set_weights(random_weights(1));
  everyone_ = is_saturated(GetParam());
  for (const int rows : {1, 2, 5, 8})
    expect_same_for(random_rows(static_cast<uint32_t>(rows)), rows, everyone_ ? ~0U : 0U);
}

// Rows that are weights themselves, so that one token leads by far; but not all others are so far
// below a cap that they are nearly equal to it.
TEST_P(LikeliestOfHead, BehindOneThatLeadsByFar) {
  const auto weights = random_weights(2);
  set_weights(weights);
  everyone_ = is_saturated(GetParam());
  std::vector<BFloat16> x;
  for (int row = 0; row < 8; ++row) {
    const int leader = (row * 977 + 60) % vocab();
    const auto begin = weights.begin() + static_cast<std::ptrdiff_t>(leader) * in();
    for (auto at = begin; at < begin + in(); ++at)
      x.push_back(GetParam().cap > 0.0F ? core::to_bf16(core::to_float(*at) * 64.0F) : *at);
  }
  expect_same_for(x, 8, everyone_ ? ~0U : 0U);
  if (GetParam().cap == 0.0F) {
    EXPECT_EQ(last_[7].ids[0], (7 * 977 + 60) % vocab());
  }
}

// Every weight four times: the lower id comes first.
TEST_P(LikeliestOfHead, EqualOnesByTheirIds) {
  auto weights = random_weights(3);
  const auto width = static_cast<size_t>(in());
  const auto quarter = static_cast<size_t>(out() / 4);
  for (size_t id = quarter; id < static_cast<size_t>(out()); ++id)
    std::copy_n(weights.begin() + static_cast<std::ptrdiff_t>(id % quarter * width), width,
                weights.begin() + static_cast<std::ptrdiff_t>(id * width));
  set_weights(weights);
  everyone_ = is_saturated(GetParam());
  expect_same_for(random_rows(5), 8, everyone_ ? ~0U : 0U);
  if (everyone_) return;
  EXPECT_EQ(last_[0].status, 1);
}

// Known where there is room for all.
TEST_P(LikeliestOfHead, OfManyThatAreNearlyEqual) {
  set_weights(nearly_equal_weights(3));
  everyone_ = is_large();
  expect_same_for(random_rows(6), 8, everyone_ ? ~0U : 0U);
}

TEST_P(LikeliestOfHead, RowsOfZerosLeaveEveryone) {
  set_weights(random_weights(4));
  everyone_ = is_saturated(GetParam());
  auto x = random_rows(8);
  std::fill_n(x.begin() + 2 * in(), in(), BFloat16{});
  expect_same_for(x, 3, everyone_ ? ~0U : is_large() ? 4U : 0U);
  EXPECT_EQ(last_[2].status, is_large() ? -1 : 1);
  if (!is_large()) {
    EXPECT_EQ(last_[2].ids[0], 0);
  }
}

TEST_P(LikeliestOfHead, SayWhichRowsAreNotFinite) {
  set_weights(random_weights(5));
  everyone_ = is_saturated(GetParam());
  expect_same_for(rows_not_finite(4), 5, everyone_ ? ~0U : is_large() ? 10U : 0U);
  EXPECT_EQ(last_[1].status, is_large() ? -1 : 0);
}

// A token whose weights are not finite.
TEST_P(LikeliestOfHead, SayWhichTokensAreNotFinite) {
  for (const uint16_t bits : std::vector<uint16_t>{0x7fc0, 0x7f80, 0xff80}) {
    SCOPED_TRACE(bits);
    auto weights = random_weights(5);
    weights[static_cast<size_t>(vocab() - 3) * static_cast<size_t>(in()) + 9] = BFloat16{bits};
    set_weights(weights);
    everyone_ = is_saturated(GetParam());
    expect_same_for(random_rows(4), 5, everyone_ ? ~0U : 0U);
    if (bits == 0x7fc0 && !everyone_) {
      EXPECT_EQ(last_[4].status, 0);
    }
  }
}

// Also rows and weights near FP32's and BF16's limits.
TEST_P(LikeliestOfHead, OfAnySize) {
  set_weights(weights_of_any_size(6));
  // What a cap makes of them is equal or nearly so.
  everyone_ = is_large() && GetParam().cap > 0.0F;
  for (const int exponent : {-60, -20, 20, 60, 100}) {
    SCOPED_TRACE("2^" + std::to_string(exponent));
    expect_same_for(random_rows_of_size(7, exponent), 4,
                    everyone_ || (is_large() && exponent >= 60) ? ~0U : 0U);
  }
}

TEST_P(LikeliestOfHead, MakeTheNorm) {
  const int hidden = in();
  if (hidden > ops::cuda::kMaxNormedHidden) GTEST_SKIP() << "norms of shorter rows";
  set_weights(random_weights(7));
  const tests::NormedInput normed(hidden);
  for (int rows = 1; rows <= ops::cuda::kFewRows; ++rows) {
    const auto got = find(rows, 64, [&](const auto& job) {
      screened_likeliest({}, head_, screen(), {}, normed.rows, job);
    });
    // The operand that the screen's kernel left.
    const auto places_operand = tests::poisoned(16 * static_cast<size_t>(hidden));
    TANDEM_CUDA_CHECK(cudaMemcpy(places_operand.data(), screen_places(screen()).operand,
                                 places_operand.size_bytes(), cudaMemcpyDeviceToDevice));
    expect_first(got, facts_of(places_operand, rows, 1), 64, is_saturated(GetParam()) ? ~0U : 0U);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, LikeliestOfHead,
                         testing::Values(tests::ScreenCase{262144, 512, 132, 0.0F, 0.05F},
                                         tests::ScreenCase{300000, 64, 132, 0.0F, 0.5F},
                                         tests::ScreenCase{20000, 3840, 132, 30.0F, 0.02F},
                                         tests::ScreenCase{20000, 256, 132, 30.0F, 40.0F},
                                         tests::ScreenCase{3001, 416, 5, 30.0F, 0.5F},
                                         tests::ScreenCase{1000, 96, 4, 0.0F, 1.0F},
                                         tests::ScreenCase{130, 96, 1, 0.0F, 1.0F},
                                         tests::ScreenCase{100, 96, 1, 30.0F, 1.0F}),
                         tests::name_of);

}  // namespace
}  // namespace tandem
