// The choice of K: against all choices there are, over costs and chances of every shape.
#include "engine/draft_policy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numeric>
#include <random>

namespace tandem::engine {
namespace {

using speculation::StepTime;

StepTimes times(const std::function<double(int64_t)>& seconds, int64_t most) {
  StepTimes result;
  for (int64_t rows = 1; rows <= most; ++rows) result.add({rows, seconds(rows)});
  return result;
}

// After so many rounds that no prior matters.
AcceptanceEstimate known(const std::vector<double>& chances) {
  AcceptanceEstimate estimate;
  for (size_t i = 0; i < chances.size(); ++i) {
    estimate.tried[i] = 1e9;
    estimate.held[i] = 1e9 * chances[i];
  }
  return estimate;
}

constexpr std::array<double, speculation::kMaxDraftTokens> kPrior = {0.5, 0.5, 0.5, 0.5,
                                                                     0.5, 0.5, 0.5, 0.5};

TEST(StepTimesTest, LowOnesOfTheLastFewAndLinesBetween) {
  StepTimes measured;
  EXPECT_FALSE(measured.at(1).has_value());
  measured.add({1, 9.0});  // the first touch
  for (int i = 0; i < 3; ++i) measured.add({1, 1.0});
  EXPECT_DOUBLE_EQ(*measured.at(1), 1.0);
  measured.add({1, 50.0});  // a hiccup
  EXPECT_DOUBLE_EQ(*measured.at(1), 1.0);
  measured.add({5, 3.0});
  EXPECT_DOUBLE_EQ(*measured.at(3), 2.0);
  EXPECT_DOUBLE_EQ(*measured.at(7), 4.0);  // goes on as steep as before
  for (int i = 0; i < 8; ++i) measured.add({1, 2.0});
  EXPECT_DOUBLE_EQ(*measured.at(1), 2.0);
  measured.add({0, 1.0});
  measured.add({4, 0.0});
  EXPECT_DOUBLE_EQ(*measured.at(4), 2.75);
}

TEST(StepTimesTest, SettledOnesTakeThePlaceOfOthers) {
  StepTimes measured;
  measured.add({1, 5.0, false});
  measured.add({1, 4.0, false});
  EXPECT_DOUBLE_EQ(*measured.at(1), 4.0);
  measured.add({1, 4.5});
  EXPECT_DOUBLE_EQ(*measured.at(1), 4.5);
  measured.add({1, 1.0, false});
  EXPECT_DOUBLE_EQ(*measured.at(1), 4.5);
}

TEST(StepTimesTest, MoveWithTheNumberOfSequences) {
  const auto cost = [](int64_t rows, int64_t sequences) {
    return 5 + 0.02 * static_cast<double>(rows) + 0.05 * static_cast<double>(sequences);
  };
  StepTimes measured;
  for (const int64_t rows : {32, 64, 96, 128})
    for (int i = 0; i < 8; ++i) measured.add({rows, cost(rows, 32)}, 32);
  EXPECT_DOUBLE_EQ(*measured.at(96, 64), cost(96, 32));  // nothing is known of sequences yet
  measured.add({64, cost(64, 64)}, 64);
  for (const int64_t rows : {32, 64, 80, 128}) {
    EXPECT_NEAR(*measured.at(rows, 64), cost(rows, 64), 1e-9) << rows;
    EXPECT_NEAR(*measured.at(rows, 40), cost(rows, 40), 1e-9) << rows;
  }
  // One sequence more teaches nothing, however long it took; and no time becomes nothing.
  measured.add({64, 50.0}, 65);
  EXPECT_NEAR(*measured.at(128, 64), cost(128, 64), 1e-9);
  EXPECT_GE(*measured.at(128, 1), 0.5 * cost(128, 32));
}

TEST(RowsPaid, ArePaddedAndWholePasses) {
  for (int64_t n = 0; n <= 40; ++n) EXPECT_EQ(rows_paid(n, 0), n);
  EXPECT_EQ(rows_paid(0, 128), 0);
  EXPECT_EQ(rows_paid(1, 128), 8);
  EXPECT_EQ(rows_paid(9, 128), 16);
  EXPECT_EQ(rows_paid(65, 128), 96);
  EXPECT_EQ(rows_paid(97, 128), 128);
  EXPECT_EQ(rows_paid(128, 128), 128);
  EXPECT_EQ(rows_paid(129, 128), 136);
  EXPECT_EQ(rows_paid(320, 128), 320);
  EXPECT_EQ(rows_paid(130, 64), 136);
  EXPECT_EQ(rows_paid(129, 192), 160);
  EXPECT_EQ(rows_paid(161, 192), 192);
  EXPECT_EQ(rows_paid(192, 192), 192);
  EXPECT_EQ(rows_paid(193, 192), 200);
  EXPECT_EQ(rows_paid(320, 192), 320);
}

TEST(StepTimesTest, PaddedRowsShareAPrice) {
  StepTimes measured(128);
  measured.add({128, 14.0});
  measured.add({110, 12.0});
  EXPECT_DOUBLE_EQ(*measured.at(100), 12.0);  // the low one of 128 padded rows
  measured.add({130, 22.0});
  EXPECT_DOUBLE_EQ(*measured.at(128), 12.0);
  EXPECT_DOUBLE_EQ(*measured.at(129), 22.0);
}

class DraftCounts : public testing::TestWithParam<DraftSteps> {};
INSTANTIATE_TEST_SUITE_P(Steps, DraftCounts,
                         testing::Values(DraftSteps::kOfThoseLeft, DraftSteps::kOfAll));

TEST_P(DraftCounts, AreTheBestOfAll) {
  std::mt19937_64 random(3);
  const auto uniform = [&] { return static_cast<double>(random() % 1000) / 1000; };
  for (int trial = 0; trial < 300; ++trial) {
    const double base = 0.2 + uniform(), slope = uniform() * 0.3, bend = uniform() * 0.03;
    const double draft_base = uniform() * 0.3, draft_slope = uniform() * 0.05;
    const auto verify_at = [&](int64_t n) {
      return base + slope * static_cast<double>(n) + bend * static_cast<double>(n * n);
    };
    const auto draft_at = [&](int64_t n) {
      return 0.001 + draft_base + draft_slope * static_cast<double>(n);
    };
    std::vector<AcceptanceEstimate> estimates;
    std::vector<std::vector<double>> chances;
    for (int i = 0; i < 3; ++i) {
      chances.push_back({uniform(), uniform(), uniform(), uniform()});
      estimates.push_back(known(chances.back()));
    }
    std::vector<DraftCandidate> candidates;
    for (const AcceptanceEstimate& estimate : estimates)
      candidates.push_back({&estimate, 2 + static_cast<int>(random() % 3)});
    const auto rate = [&](const std::vector<int>& counts) {
      double tokens = 3, seconds = 0;
      int64_t rows = 3;
      for (size_t i = 0; i < 3; ++i) {
        double gain = 1;
        for (int place = 0; place < counts[i]; ++place)
          tokens += gain *= chances[i][static_cast<size_t>(place)];
        rows += counts[i];
      }
      for (int place = 0; place < 4; ++place) {
        int64_t deep = 0, any = 0;
        for (const int count : counts) deep += count > place ? 1 : 0;
        for (const int count : counts) any += count > 0 ? 1 : 0;
        if (deep > 0) seconds += draft_at(GetParam() == DraftSteps::kOfAll ? any : deep);
      }
      return tokens / (seconds + verify_at(rows));
    };
    const std::vector<int> chosen =
        best_draft_counts(times(verify_at, 15), times(draft_at, 3), GetParam(), kPrior, candidates);
    double best = 0;
    for (int a = 0; a <= candidates[0].max_draft_tokens; ++a)
      for (int b = 0; b <= candidates[1].max_draft_tokens; ++b)
        for (int c = 0; c <= candidates[2].max_draft_tokens; ++c)
          best = std::max(best, rate({a, b, c}));
    // The order of gains is not always the order of gains per draft step: close to the best.
    EXPECT_GE(rate(chosen), 0.98 * best) << "trial " << trial;
  }
}

TEST_P(DraftCounts, FollowCostAndChance) {
  const AcceptanceEstimate good = known(std::vector<double>(8, 0.9)),
                           bad = known(std::vector<double>(8, 0.05));
  const StepTimes flat = times([](int64_t) { return 1.0; }, 40);
  const StepTimes linear = times([](int64_t n) { return static_cast<double>(n); }, 40);
  const StepTimes cheap = times([](int64_t) { return 0.01; }, 4);
  const std::vector<DraftCandidate> both = {{&good, 8}, {&bad, 8}};
  // Nothing costs more for two than for one.
  EXPECT_EQ(best_draft_counts(flat, cheap, GetParam(), kPrior, both), (std::vector<int>{8, 8}));
  EXPECT_EQ(best_draft_counts(flat, cheap, GetParam(), kPrior, {both.begin() + 1, 1}),
            (std::vector<int>{1}));
  EXPECT_EQ(best_draft_counts(linear, cheap, GetParam(), kPrior, both), (std::vector<int>{0, 0}));
  EXPECT_EQ(best_draft_counts(StepTimes(), StepTimes(), GetParam(), kPrior, both),
            (std::vector<int>{4, 4}));
  const std::vector<DraftCandidate> ending = {{&good, 1}, {&good, 0}};
  EXPECT_EQ(best_draft_counts(flat, cheap, GetParam(), kPrior, ending), (std::vector<int>{1, 0}));
}

// Of so many drafts those that hold, up to the first one that does not; chance(place).
template <typename Chance>
int num_accepted(std::mt19937_64& random, int num_drafted, const Chance& chance) {
  int accepted = 0;
  while (accepted < num_drafted && static_cast<double>(random() % 10000) < 10000 * chance(accepted))
    ++accepted;
  return accepted;
}

// A machine with these costs, and a text whose drafts hold with these chances.
struct Machine {
  std::function<double(int64_t)> verify, draft;
  std::mt19937_64 random{11};

  // Seconds and tokens of a round of one sequence with K drafts.
  std::pair<double, int> round(int k, double chance) {
    double seconds = verify(1 + k);
    for (int i = 0; i < k; ++i) seconds += draft(1);
    return {seconds, num_accepted(random, k, [&](int) { return chance; })};
  }
  double fixed_rate(int k, double chance) const {
    double tokens = 1, gain = 1;
    for (int i = 0; i < k; ++i) tokens += gain *= chance;
    return tokens / (verify(1 + k) + k * draft(1));
  }
};

struct Play {
  double tokens = 0, seconds = 0, drafted = 0;
  int rounds = 0;
};

Play play(Machine& machine, DraftPolicy& policy, AcceptanceEstimate& estimate, double chance,
          int rounds) {
  Play result;
  for (int i = 0; i < rounds; ++i) {
    const DraftCandidate candidate{&estimate, 8};
    const int k = policy.choose(std::span(&candidate, 1))[0];
    const auto [seconds, accepted] = machine.round(k, chance);
    speculation::SpecResult measured;
    // What a busy machine measures: now and then far too much.
    const double noise = machine.random() % 10 == 0 ? 4.0 : 1.0;
    measured.verify_time = {1 + k, noise * machine.verify(1 + k)};
    for (int j = 0; j < k; ++j) measured.draft_times.push_back({1, machine.draft(1)});
    policy.add_step(measured, true);
    policy.add_round(estimate, k, accepted);
    result.tokens += 1 + accepted;
    result.seconds += seconds;
    result.drafted += k;
    ++result.rounds;
  }
  return result;
}

TEST(DraftPolicyTest, IsNearlyAsFastAsTheBestFixedK) {
  const std::vector<Machine> machines = {
      {[](int64_t n) { return 1 + 0.02 * static_cast<double>(n); }, [](int64_t) { return 0.05; }},
      {[](int64_t n) { return 0.5 + 0.3 * static_cast<double>(n); }, [](int64_t) { return 0.1; }},
      {[](int64_t n) { return n <= 4 ? 1.0 : 2.5; }, [](int64_t) { return 0.02; }},
  };
  for (size_t m = 0; m < machines.size(); ++m)
    for (const double chance : {0.02, 0.3, 0.6, 0.8, 0.95}) {
      Machine machine = machines[m];
      DraftPolicy policy;
      AcceptanceEstimate estimate;
      play(machine, policy, estimate, chance, 200);
      const Play run = play(machine, policy, estimate, chance, 4000);
      double best = 0;
      for (int k = 0; k <= 8; ++k) best = std::max(best, machine.fixed_rate(k, chance));
      EXPECT_GT(run.tokens / run.seconds, 0.9 * best) << "machine " << m << " chance " << chance;
    }
}

// One draft of each of 64 sequences fills a pass of 128 rows; one row more costs another pass.
TEST(DraftPolicyTest, StaysWithinAPass) {
  constexpr int64_t kSequences = 64;
  const auto verify = [](int64_t rows) {
    return 8.0 + 6.0 * static_cast<double>((rows_paid(rows, 128) + 127) / 128);
  };
  constexpr double kDraft = 0.3;
  constexpr double kChance = 0.74;
  DraftPolicy policy(128);
  std::vector<AcceptanceEstimate> estimates(kSequences);
  // They began at different times, so that one or another always looks further.
  for (size_t i = 0; i < estimates.size(); ++i) estimates[i].num_rounds = static_cast<int64_t>(i);
  std::vector<DraftCandidate> candidates;
  for (const AcceptanceEstimate& estimate : estimates) candidates.push_back({&estimate, 8});
  std::mt19937_64 random(5);
  double tokens = 0, seconds = 0;
  for (int step = 0; step < 1000; ++step) {
    const std::vector<int> counts = policy.choose(candidates);
    int64_t rows = kSequences;
    for (const int k : counts) rows += k;
    const int deepest = *std::max_element(counts.begin(), counts.end());
    speculation::SpecResult measured;
    measured.verify_time = {rows, verify(rows)};
    measured.draft_times.assign(static_cast<size_t>(deepest), {kSequences, kDraft});
    policy.add_step(measured, true);
    for (size_t i = 0; i < estimates.size(); ++i) {
      // Only the first draft is likely to hold.
      const int accepted =
          num_accepted(random, counts[i], [&](int place) { return place == 0 ? kChance : 0.2; });
      policy.add_round(estimates[i], counts[i], accepted);
      if (step >= 200) tokens += 1 + accepted;
    }
    if (step >= 200) seconds += verify(rows) + kDraft * deepest;
  }
  const double one_draft = (1 + kChance) * kSequences / (verify(128) + kDraft);
  EXPECT_GT(tokens / seconds, 0.95 * one_draft);
}

// 32 sequences and 64 by turns, with the times of a GPU: padded rows, a second pass above 192 of
// them, keys that cost what they cost whatever the number of rows, and a first launch that is
// slower.
TEST(DraftPolicyTest, KeepsUpWithTheNumberOfSequences) {
  const std::map<int64_t, double> of_32 = {{32, 5.36},  {64, 6.05}, {96, 6.75},
                                           {128, 7.32}, {160, 8.1}, {192, 8.9}};
  const std::map<int64_t, double> of_64 = {
      {64, 7.45}, {96, 8.05}, {128, 8.6}, {160, 9.4}, {192, 10.3}};
  const auto verify = [&](int64_t rows, int64_t sequences) {
    const auto& times = sequences == 32 ? of_32 : of_64;
    const int64_t paid = rows_paid(rows, 192);
    return paid <= 192 ? times.at(paid) : times.at(192) + 0.055 * static_cast<double>(paid - 104);
  };
  const auto draft = [](int64_t sequences) {
    return 0.19 + 0.006 * static_cast<double>(sequences);
  };
  constexpr std::array<double, 4> kChances = {0.74, 0.68, 0.62, 0.6};
  DraftPolicy policy(192);
  std::vector<AcceptanceEstimate> estimates(64);
  std::vector<DraftCandidate> candidates;
  for (const AcceptanceEstimate& estimate : estimates) candidates.push_back({&estimate, 4});
  std::mt19937_64 random(5);
  std::map<std::array<int64_t, 3>, int> seen;
  std::map<int64_t, Play> plays;
  for (int step = 0; step < 6000; ++step) {
    const int64_t sequences = step / 60 % 2 == 0 ? 32 : 64;
    const auto count = static_cast<size_t>(sequences);
    const std::vector<int> counts = policy.choose({candidates.begin(), count});
    const int64_t rows = std::accumulate(counts.begin(), counts.end(), sequences);
    const auto deepest = static_cast<size_t>(std::ranges::max(counts));
    const int64_t drafting = std::ranges::count_if(counts, [](int k) { return k > 0; });
    const bool settled = seen[{rows, sequences, static_cast<int64_t>(deepest)}]++ > 0;
    const double slower = settled ? 1.0 : 1.05;
    speculation::SpecResult measured;
    measured.sequences.resize(count);
    measured.verify_time = {rows, slower * verify(rows, sequences), settled};
    measured.draft_times.assign(deepest, {drafting, slower * draft(drafting), settled});
    policy.add_step(measured, true);
    Play& own = plays[sequences];
    for (size_t i = 0; i < count; ++i) {
      const int accepted = num_accepted(
          random, counts[i], [&](int place) { return kChances[static_cast<size_t>(place)]; });
      policy.add_round(estimates[i], counts[i], accepted);
      if (step >= 300) own.tokens += 1 + accepted;
    }
    if (step < 300) continue;
    own.seconds += measured.verify_time.seconds;
    for (const StepTime& one : measured.draft_times) own.seconds += one.seconds;
  }
  for (const auto& [sequences, own] : plays) {
    double best = 0, tokens = 1, gain = 1;
    for (int k = 0; k <= 4; ++k) {
      const double seconds = verify(sequences * (1 + k), sequences) + k * draft(sequences);
      best = std::max(best, tokens * static_cast<double>(sequences) / seconds);
      if (k < 4) tokens += gain *= kChances[static_cast<size_t>(k)];
    }
    EXPECT_GT(own.tokens / own.seconds, 0.975 * best) << sequences << " sequences";
  }
}

TEST(DraftPolicyTest, GivesUpAndComesBack) {
  Machine machine{[](int64_t n) { return 0.5 + 0.3 * static_cast<double>(n); },
                  [](int64_t) { return 0.1; }};
  DraftPolicy policy;
  AcceptanceEstimate estimate;
  play(machine, policy, estimate, 0.0, 300);
  const Play hopeless = play(machine, policy, estimate, 0.0, 1000);
  EXPECT_LT(hopeless.drafted / hopeless.rounds, 0.2);
  play(machine, policy, estimate, 0.98, 400);
  const Play good = play(machine, policy, estimate, 0.98, 1000);
  EXPECT_GT(good.drafted / good.rounds, 3);
}

}  // namespace
}  // namespace tandem::engine
