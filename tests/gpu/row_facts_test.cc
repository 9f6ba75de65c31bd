// What the device tells of rows of logits, against the host's own code on the same rows.
#include "ops/cuda/row_facts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "sampling/candidates.h"
#include "sampling/rng.h"
#include "sampling/score.h"
#include "tests/gpu/support.h"

namespace tandem {
namespace {

using ops::cuda::kLikeliest;
using ops::cuda::kMaxAsked;
using ops::cuda::RowFacts;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Rows {
  Rows(int num_rows, int vocab_size) : count(num_rows), vocab(vocab_size) {
    logits.resize(static_cast<size_t>(count) * static_cast<size_t>(vocab));
  }
  std::span<float> row(int r) {
    return std::span(logits).subspan(static_cast<size_t>(r * vocab), static_cast<size_t>(vocab));
  }
  void fill(uint32_t seed, float sigma) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, sigma);
    for (float& x : logits) x = normal(random);
  }

  int count;
  int vocab;
  std::vector<float> logits;
  std::vector<int32_t> targets, sequences, asked, positions;
  std::vector<ops::cuda::Draw> draws;
};

// Memory behind the rows is NaN, which a kernel that reads too far would report.
std::vector<RowFacts> facts_of(const Rows& rows) {
  auto padded = rows.logits;
  padded.resize(padded.size() + 512, kNan);
  const auto logits = tests::to_device(padded);
  const auto targets = tests::to_device(rows.targets);
  const auto sequences = tests::to_device(rows.sequences);
  const auto asked = tests::to_device(rows.asked);
  const auto positions = tests::to_device(rows.positions);
  const auto draws = tests::to_device(rows.draws);
  const auto scratch = tests::poisoned(ops::cuda::row_facts_scratch_bytes(rows.count, rows.vocab));
  const auto out = tests::poisoned(static_cast<size_t>(rows.count + 1) * sizeof(RowFacts));
  ops::cuda::row_facts({},
                       {.num_rows = rows.count,
                        .vocab_size = rows.vocab,
                        .logits = logits.as<float>(),
                        .targets = rows.targets.empty() ? nullptr : targets.as<int32_t>(),
                        .sequences = sequences.as<int32_t>(),
                        .asked = rows.asked.empty() ? nullptr : asked.as<int32_t>(),
                        .draws = rows.draws.empty() ? nullptr : draws.as<ops::cuda::Draw>(),
                        .positions = positions.as<int32_t>()},
                       scratch.data(), out.as<RowFacts>());
  tests::synchronize();
  auto facts = tests::to_host<RowFacts>(out, static_cast<size_t>(rows.count + 1));
  EXPECT_EQ(facts.back().likeliest.status, -1) << "written beyond the end";
  facts.pop_back();
  return facts;
}

void expect_row(std::span<const float> row, const RowFacts& got, const std::string& what) {
  const sampling::RowMax best = sampling::row_max(row);
  EXPECT_EQ(got.likeliest.status, best.finite ? 1 : 0) << what;
  if (!best.finite) return;
  std::vector<sampling::Candidate> expected;
  sampling::select_top(row, kLikeliest, expected);
  ASSERT_EQ(got.likeliest.count, static_cast<int32_t>(expected.size())) << what;
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(got.likeliest.ids[i], expected[i].id) << what << " place " << i;
    ASSERT_EQ(got.likeliest.logits[i], expected[i].logit) << what << " place " << i;
  }
  if (expected.empty()) return;
  // expf and sums of 128 in FP32, at most 2^-20 together, the rest in FP64.
  const double sum = std::exp(sampling::log_sum_exp(row, best.logit) - double{best.logit});
  EXPECT_NEAR(double{got.sum} / sum, 1.0, 2e-6) << what;
}

void expect_rows(Rows& rows, const std::string& what) {
  const auto facts = facts_of(rows);
  for (int r = 0; r < rows.count; ++r)
    expect_row(rows.row(r), facts[static_cast<size_t>(r)], what + " row " + std::to_string(r));
}

TEST(RowFacts, RandomRows) {
  for (const int vocab : {1, 3, 40, 127, 128, 130, 1500, 4097, 20000, 262144}) {
    Rows rows(3, vocab);
    rows.fill(static_cast<uint32_t>(vocab), 4.0F);
    expect_rows(rows, "vocabulary " + std::to_string(vocab));
  }
}

TEST(RowFacts, SpecialRows) {
  struct Special {
    const char* name;
    std::function<float(int id)> logit;
  };
  const Special specials[] = {
      {"all equal", [](int) { return 2.0F; }},
      {"growing", [](int id) { return static_cast<float>(id) * 1e-3F; }},
      {"falling, negative", [](int id) { return -static_cast<float>(id) - 1.0F; }},
      {"zeros of both signs",
       [](int id) {
         const float zero = id % 2 == 0 ? -0.0F : 0.0F;
         return id < 4000 ? -1.0F : zero;
       }},
      {"minus infinity but one", [](int id) { return id == 8191 ? -1e30F : -kInfinity; }},
      {"minus infinity but fifty", [](int id) { return id % 180 == 7 ? 1.0F : -kInfinity; }},
      {"minus infinity", [](int) { return -kInfinity; }},
      {"plus infinity", [](int id) { return id == 5000 ? kInfinity : 1.0F; }},
      {"NaN", [](int id) { return id == 8999 ? kNan : 1.0F; }},
      {"far apart", [](int id) { return id == 77 ? 3e38F : -3e38F; }},
      {"a peak in every set",
       [](int id) { return id % 128 == 5 ? 10.0F + static_cast<float>(id) * 1e-3F : 0.0F; }},
      {"ties at the end of the list", [](int id) { return id % 75 == 3 ? 5.0F : 1.0F; }}};
  for (const Special& special : specials) {
    Rows rows(3, 9000);
    rows.fill(5, 3.0F);
    for (int id = 0; id < rows.vocab; ++id)
      rows.row(1)[static_cast<size_t>(id)] = special.logit(id);
    expect_rows(rows, special.name);
  }
}

TEST(RowFacts, TargetsAndTheirRanks) {
  Rows rows(24, 5000);
  rows.fill(9, 3.0F);
  for (float& x : rows.row(3)) x = std::round(x);
  std::ranges::fill(rows.row(4), 0.0F);
  for (size_t i = 0; i < 4000; ++i) rows.row(5)[i] = -kInfinity;
  for (int r = 0; r < rows.count; ++r)
    rows.targets.push_back(r % 6 == 1 ? -1 : (r * 977 + 13) % rows.vocab);
  const auto facts = facts_of(rows);
  for (int r = 0; r < rows.count; ++r) {
    const int32_t target = rows.targets[static_cast<size_t>(r)];
    if (target < 0) continue;
    const RowFacts& got = facts[static_cast<size_t>(r)];
    const sampling::TokenScore expected = sampling::score_token(rows.row(r), target, 0);
    EXPECT_EQ(got.target_rank + 1, expected.rank) << "row " << r;
    EXPECT_EQ(got.target_logit, rows.row(r)[static_cast<size_t>(target)]) << "row " << r;
  }
}

TEST(RowFacts, AskedLogits) {
  Rows rows(5, 3000);
  rows.fill(2, 3.0F);
  rows.sequences = {1, 0, -1, 1, 2};
  rows.asked.assign(3 * kMaxAsked, -1);
  for (size_t i = 0; i < kMaxAsked; ++i) rows.asked[i] = static_cast<int32_t>(i * 41);
  rows.asked[kMaxAsked] = 2999;
  const auto facts = facts_of(rows);
  for (int r = 0; r < rows.count; ++r)
    for (size_t i = 0; i < kMaxAsked; ++i) {
      const int32_t sequence = rows.sequences[static_cast<size_t>(r)];
      const int32_t id =
          sequence < 0 ? -1 : rows.asked[static_cast<size_t>(sequence) * kMaxAsked + i];
      const float got = facts[static_cast<size_t>(r)].asked[i];
      if (id < 0)
        EXPECT_TRUE(std::isnan(got));
      else
        EXPECT_EQ(got, rows.row(r)[static_cast<size_t>(id)]);
    }
}

// Sums of FP32 in short chains: errors far below 1e-5.
void expect_weights(std::span<const float> row, float inverse_temperature, const RowFacts& got,
                    int r) {
  const double largest{sampling::row_max(row).logit};
  double all = 0;
  std::vector<double> before(static_cast<size_t>(got.num_contenders));
  for (size_t id = 0; id < row.size(); ++id) {
    const double weight = std::exp((double{row[id]} - largest) * double{inverse_temperature});
    all += weight;
    for (size_t i = 0; i < before.size(); ++i)
      if (sampling::comes_before({row[id], static_cast<int32_t>(id)},
                                 {got.contender_logits[i], got.contender_ids[i]}))
        before[i] += weight;
  }
  EXPECT_NEAR(double{got.weight} / all, 1.0, 5e-6) << "row " << r;
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_NEAR(double{got.weight_before[i]} / all, before[i] / all, 5e-6) << "row " << r;
}

// Scores in FP64 from the sampler's own noise. The device's differ by some 1e-5, so what it lists
// is a list of the best within that; far temperatures make the logits or the noise decide alone.
TEST(RowFacts, TheBestOfADraw) {
  using sampling::token_noise;
  constexpr double kError = 2e-4;
  const float temperatures[] = {1.0F, 0.1F, 2.0F, 100.0F, 0.7F};
  Rows rows(40, 30001);
  rows.fill(12, 3.0F);
  for (size_t i = 5; i < 30001; ++i) rows.row(3)[i] = -kInfinity;
  rows.row(4)[77] = kNan;
  std::ranges::fill(rows.row(5), 1.0F);
  for (int r = 0; r < rows.count; ++r) {
    rows.sequences.push_back(r % 7 == 6 ? -1 : r % 6);
    rows.positions.push_back(r * 31);
  }
  for (uint64_t s = 0; s < 5; ++s)
    rows.draws.push_back({s * 0x123456789ULL, 1 / temperatures[s], 0});
  rows.draws.push_back({5, 0.0F, 0});
  const auto facts = facts_of(rows);
  for (int r = 0; r < rows.count; ++r) {
    const RowFacts& got = facts[static_cast<size_t>(r)];
    const int sequence = rows.sequences[static_cast<size_t>(r)];
    if (sequence < 0 || sequence == 5 || r == 4) {
      EXPECT_EQ(got.num_contenders, 0) << "row " << r;
      continue;
    }
    const auto s = static_cast<size_t>(sequence);
    const auto score = [&](int32_t id) {
      return double{rows.row(r)[static_cast<size_t>(id)]} *
                 double{rows.draws[s].inverse_temperature} +
             token_noise(rows.draws[s].seed, r * 31 + 1, id);
    };
    std::vector<double> scores;
    for (int32_t id = 0; id < rows.vocab; ++id)
      if (rows.row(r)[static_cast<size_t>(id)] > -kInfinity) scores.push_back(score(id));
    std::ranges::sort(scores, std::greater());
    const size_t count = std::min<size_t>(scores.size(), ops::cuda::kContenders);
    ASSERT_EQ(got.num_contenders, static_cast<int32_t>(count)) << "row " << r;
    for (size_t i = 0; i < count; ++i) {
      const int32_t id = got.contender_ids[i];
      EXPECT_NEAR(score(id), scores[i], kError * std::max(1.0, std::abs(scores[i]) / 10))
          << "row " << r << " place " << i;
      EXPECT_EQ(got.contender_logits[i], rows.row(r)[static_cast<size_t>(id)]);
    }
    expect_weights(rows.row(r), rows.draws[s].inverse_temperature, got, r);
    EXPECT_NEAR(double{got.last_score}, scores[count - 1], kError * 10) << "row " << r;
  }
}

// Ids whose noise lies at either end, where the lower halves of the random bits count.
TEST(RowFacts, NoiseAtItsEnds) {
  Rows rows(1, 262144);
  rows.draws = {{99, 1.0F, 0}};
  rows.sequences = {0};
  double largest = 0;
  double smallest = 0;
  for (int position = 0; position < 6; ++position) {
    rows.positions = {position};
    // All tokens alike: the order is that of the noise. Then turned around for its other end.
    std::ranges::fill(rows.row(0), 0.0F);
    const RowFacts top = facts_of(rows)[0];
    for (int i = 0; i < ops::cuda::kContenders; ++i)
      largest = std::max(largest, sampling::token_noise(99, position + 1, top.contender_ids[i]));
    EXPECT_NEAR(
        double{top.last_score},
        sampling::token_noise(99, position + 1, top.contender_ids[ops::cuda::kContenders - 1]),
        1e-4);
    // One token in front of all others by what the smallest noise takes away.
    int32_t unlucky = 0;
    for (int32_t id = 0; id < rows.vocab; ++id)
      if (sampling::token_noise(99, position + 1, id) <
          sampling::token_noise(99, position + 1, unlucky))
        unlucky = id;
    smallest = std::min(smallest, sampling::token_noise(99, position + 1, unlucky));
    std::ranges::fill(rows.row(0), -kInfinity);
    rows.row(0)[static_cast<size_t>(unlucky)] = 4.0F;
    EXPECT_NEAR(double{facts_of(rows)[0].last_score},
                4.0 + sampling::token_noise(99, position + 1, unlucky), 1e-4);
  }
  EXPECT_GT(largest, 13);
  EXPECT_LT(smallest, -2.4);
}

TEST(RowFacts, ARowIsTheSameInEveryCompany) {
  Rows many(128, 20001);
  many.fill(4, 5.0F);
  const auto facts = facts_of(many);
  for (const int r : {0, 7, 64, 127}) {
    Rows alone(1, many.vocab);
    std::ranges::copy(many.row(r), alone.logits.begin());
    const RowFacts& expected = facts[static_cast<size_t>(r)];
    const RowFacts got = facts_of(alone)[0];
    EXPECT_EQ(std::bit_cast<uint32_t>(got.sum), std::bit_cast<uint32_t>(expected.sum));
    EXPECT_EQ(
        std::memcmp(got.likeliest.logits, expected.likeliest.logits, sizeof(got.likeliest.logits)),
        0)
        << "row " << r;
    EXPECT_EQ(std::memcmp(got.likeliest.ids, expected.likeliest.ids, sizeof(got.likeliest.ids)), 0)
        << "row " << r;
  }
}

TEST(RowFacts, GathersFromHostMemory) {
  Rows rows(2, 3000);
  rows.fill(8, 3.0F);
  const auto logits = tests::to_device(rows.logits);
  const ops::cuda::PinnedBuffer ids(700 * sizeof(int32_t));
  const ops::cuda::PinnedBuffer out(700 * sizeof(float));
  for (int i = 0; i < 700; ++i) ids.as<int32_t>()[i] = (i * 1237 + 5) % 3000;
  ops::cuda::gather_logits({}, logits.as<float>() + 3000, ids.as<int32_t>(), 700, out.as<float>());
  tests::synchronize();
  for (int i = 0; i < 700; ++i)
    EXPECT_EQ(out.as<float>()[i], rows.row(1)[static_cast<size_t>(ids.as<int32_t>()[i])]);
}

}  // namespace
}  // namespace tandem
