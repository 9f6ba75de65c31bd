// Tokens drawn on the device against the host's sampler on the same rows.
#include "ops/cuda/draw.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cuda/row_facts.h"
#include "sampling/sampler.h"
#include "tests/gpu/support.h"

namespace tandem {
namespace {

using ops::cuda::DrawRules;
using ops::cuda::kUndecided;
using ops::cuda::RowFacts;
using sampling::Sampler;
using sampling::SamplingParams;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Rows, each with a sampler of its own.
struct Draws {
  int vocab = 0;
  std::vector<int32_t> suppressed = {3, 7, 11};
  std::vector<float> logits;  // [rows, vocab]
  std::vector<SamplingParams> params;
  std::vector<int32_t> positions;

  int num_rows() const { return static_cast<int>(params.size()); }
  std::span<const float> row(int r) const {
    return std::span(logits).subspan(static_cast<size_t>(r * vocab), static_cast<size_t>(vocab));
  }
  Sampler sampler(int r) const {
    return Sampler(params[static_cast<size_t>(r)], vocab, {}, suppressed, {}, seed(r));
  }
  static uint64_t seed(int r) { return 0x1234567800000000ULL + static_cast<uint64_t>(r) * 77; }
};

DrawRules rules_of(const Sampler& sampler) {
  const sampling::Truncation truncation = sampler.truncation();
  if (sampler.params().greedy()) return {};
  return {sampler.seed(),
          truncation.temperature,
          truncation.top_p,
          sampling::min_p_depth(truncation),
          static_cast<int32_t>(truncation.top_k),
          0};
}

std::vector<int32_t> draw(const Draws& draws, double slack = 1e-10) {
  const int rows = draws.num_rows();
  const auto logits = tests::to_device(draws.logits);
  const auto scratch = tests::poisoned(ops::cuda::row_facts_scratch_bytes(rows, draws.vocab));
  const auto facts = tests::poisoned(static_cast<size_t>(rows) * sizeof(RowFacts));
  ops::cuda::row_facts({},
                       {.num_rows = rows, .vocab_size = draws.vocab, .logits = logits.as<float>()},
                       scratch.data(), facts.as<RowFacts>());
  std::vector<DrawRules> rules;
  std::vector<int32_t> sequences;
  for (int r = 0; r < rows; ++r) {
    sequences.push_back(rows - 1 - r);
    rules.insert(rules.begin(), rules_of(draws.sampler(r)));
  }
  sequences.push_back(-1);
  const auto device_rules = tests::to_device(rules);
  const auto device_sequences = tests::to_device(sequences);
  const auto positions = tests::to_device(draws.positions);
  const auto suppressed = tests::to_device(draws.suppressed);
  const auto tokens = tests::to_device(std::vector<int32_t>(static_cast<size_t>(rows) + 1, -77));
  ops::cuda::draw_tokens({}, {.num_rows = rows,
                              .likeliest = &facts.as<RowFacts>()->likeliest,
                              .stride = sizeof(RowFacts),
                              .sequences = device_sequences.as<int32_t>(),
                              .positions = positions.as<int32_t>(),
                              .rules = device_rules.as<DrawRules>(),
                              .suppressed = suppressed.as<int32_t>(),
                              .num_suppressed = static_cast<int>(draws.suppressed.size()),
                              .slack = slack,
                              .tokens = tokens.as<int32_t>()});
  tests::synchronize();
  auto got = tests::to_host<int32_t>(tokens, static_cast<size_t>(rows) + 1);
  EXPECT_EQ(got.back(), -77) << "written beyond the end";
  got.pop_back();
  return got;
}

int32_t expected(const Draws& draws, int r) {
  return draws.sampler(r).choose(draws.row(r), draws.positions[static_cast<size_t>(r)] + 1).token;
}

// All others must be those of the host.
int count_undecided(const Draws& draws, const std::vector<int32_t>& got) {
  int undecided = 0;
  for (int r = 0; r < draws.num_rows(); ++r) {
    if (got[static_cast<size_t>(r)] == kUndecided)
      ++undecided;
    else
      EXPECT_EQ(got[static_cast<size_t>(r)], expected(draws, r)) << "row " << r;
  }
  return undecided;
}

Draws random_draws(int num_rows, int vocab, float sigma, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, sigma);
  Draws draws;
  draws.vocab = vocab;
  for (int r = 0; r < num_rows; ++r) {
    SamplingParams params;
    params.temperature = r % 7 == 6 ? 0.0 : 0.3 + 0.2 * (r % 9);
    params.top_k = 1 + r * 13 % 125;
    params.top_p = r % 3 == 0 ? 1.0 : 0.5 + 0.06 * (r % 8);
    params.min_p = r % 4 == 1 ? 0.02 * (1 + r % 5) : 0.0;
    draws.params.push_back(params);
    draws.positions.push_back(r * 311 % 5000);
    for (int i = 0; i < vocab; ++i) draws.logits.push_back(normal(random));
  }
  return draws;
}

TEST(DrawTokens, AreThoseOfTheHost) {
  for (const int vocab : {130, 1000, 4096, 30001})
    for (const float sigma : {0.01F, 1.0F, 6.0F}) {
      const Draws draws = random_draws(61, vocab, sigma, static_cast<uint32_t>(vocab));
      const std::vector<int32_t> got = draw(draws);
      for (int r = 0; r < draws.num_rows(); ++r)
        EXPECT_EQ(got[static_cast<size_t>(r)], expected(draws, r))
            << "vocab " << vocab << " sigma " << sigma << " row " << r;
    }
}

// Rounded logits: most tokens have equals, in the cut of top-k too. Only where top-p ends exactly
// between two of them may the host be asked.
TEST(DrawTokens, TakeTheLowerIdsOfEquals) {
  Draws draws = random_draws(200, 1000, 3.0F, 5);
  for (float& x : draws.logits) x = std::round(x);
  EXPECT_LT(count_undecided(draws, draw(draws)), 20);
}

TEST(DrawTokens, AFewTokensAndNone) {
  Draws draws = random_draws(40, 300, 2.0F, 8);
  for (int r = 0; r < draws.num_rows(); ++r)
    for (int i = 0; i < draws.vocab; ++i)
      if (i % draws.vocab >= r) draws.logits[static_cast<size_t>(r * draws.vocab + i)] = -kInfinity;
  const std::vector<int32_t> got = draw(draws);
  for (int r = 0; r < draws.num_rows(); ++r)
    EXPECT_EQ(got[static_cast<size_t>(r)], expected(draws, r)) << "row " << r;
  EXPECT_EQ(got[0], -1);
}

TEST(DrawTokens, NotFiniteRowsGiveNone) {
  Draws draws = random_draws(6, 500, 2.0F, 9);
  draws.logits[static_cast<size_t>(1 * draws.vocab + 77)] = std::numeric_limits<float>::quiet_NaN();
  draws.logits[static_cast<size_t>(4 * draws.vocab + 499)] = kInfinity;
  const std::vector<int32_t> got = draw(draws);
  for (int r = 0; r < draws.num_rows(); ++r)
    EXPECT_EQ(got[static_cast<size_t>(r)], r == 1 || r == 4 ? -1 : expected(draws, r)) << r;
}

// With a large slack some rows are left open, and all others are decided as before.
TEST(DrawTokens, CloseOnesAreLeftOpen) {
  const Draws draws = random_draws(300, 1000, 1.0F, 10);
  const int undecided = count_undecided(draws, draw(draws, 0.05));
  EXPECT_GT(undecided, 10);
  EXPECT_LT(undecided, 250);
}

}  // namespace
}  // namespace tandem
