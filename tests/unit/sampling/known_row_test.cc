// choose_known() against choose() on the whole row: what it decides is the same, and it decides
// nearly all that users ask for.
#include "sampling/known_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "sampling/rng.h"
#include "sampling/sampler.h"
#include "tests/unit/sampling/distribution.h"

namespace tandem::sampling {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kVocab = 3000;

using Random = std::mt19937_64;

double share(Random& random) {
  return static_cast<double>(random() % 1024) / 1024;
}

std::vector<int32_t> some_ids(Random& random, size_t count) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i)
    ids.push_back(static_cast<int32_t>(random() % static_cast<uint64_t>(kVocab)));
  return ids;
}

// Like a model's: a few likely tokens above a wide floor, sometimes flat, coarse or full of holes.
std::vector<float> random_row(Random& random) {
  std::vector<float> row = test::random_logits(random, kVocab, 2.0F);
  const uint64_t kind = random() % 8;
  if (kind < 5)
    for (size_t i = 0; i < 30; ++i)
      row[random() % row.size()] = 8.0F + 8.0F * static_cast<float>(share(random));
  if (kind == 4 || kind == 5)
    for (float& x : row) x = std::round(x);  // many ties
  if (kind == 6)
    for (size_t i = 0; i < row.size(); ++i)
      if (i % 64 != 3) row[i] = -kInf;
  if (random() % 40 == 0) row[random() % row.size()] = random() % 2 == 0 ? kNan : kInf;
  if (random() % 40 == 0) std::ranges::fill(row, -kInf);
  return row;
}

SamplingParams random_params(Random& random) {
  SamplingParams params;
  if (random() % 3 == 0) params.temperature = 0;
  if (random() % 3 == 0) params.temperature = 0.1 + 2 * share(random);
  if (random() % 2 == 0) params.top_k = 1 + static_cast<int64_t>(random() % 64);
  if (random() % 2 == 0) params.top_p = 0.05 + 0.9 * share(random);
  if (random() % 4 == 0) params.min_p = share(random) / 4;
  if (random() % 4 == 0) params.presence_penalty = 4 * share(random) - 2;
  if (random() % 4 == 0) params.frequency_penalty = 4 * share(random) - 2;
  if (random() % 4 == 0) params.repetition_penalty = 0.5 + 2 * share(random);
  if (random() % 4 == 0) params.num_logprobs = static_cast<int32_t>(random() % 21);
  if (random() % 8 == 0) params.logprob_token_ids = some_ids(random, 1 + random() % 4);
  if (random() % 6 == 0) params.banned_token_ids = some_ids(random, random() % 20);
  if (random() % 10 == 0) params.allowed_token_ids = some_ids(random, random() % 50);
  if (random() % 8 == 0) params.banned_sequences = {{5}, {7, 9}, {7, 8, 9}};
  if (random() % 4 == 0)
    for (const int32_t id : some_ids(random, 1 + random() % 6))
      params.logit_bias.emplace_back(id, random() % 2 == 0
                                             ? (random() % 2 == 0 ? 100.0F : -100.0F)
                                             : static_cast<float>(8 * share(random) - 4));
  params.min_tokens = static_cast<int64_t>(random() % 3);
  return params;
}

std::vector<uint32_t> random_mask(Random& random) {
  std::vector<uint32_t> mask((kVocab + 31) / 32, random() % 2 == 0 ? ~0U : 0U);
  for (uint32_t& word : mask)
    if (random() % 3 == 0) word = static_cast<uint32_t>(random());
  if (random() % 6 == 0) std::ranges::fill(mask, 0U);
  if (random() % 3 == 0)
    for (uint32_t& word : mask) word = 1U << (random() % 32);
  return mask;
}

// What a device would tell of a row.
class Facts {
 public:
  Facts(const std::vector<float>& row, const Sampler& sampler, int64_t num_top, size_t most_asked,
        int64_t position, double error = 0) {
    const RowMax best = row_max(row);
    known_.finite = best.finite;
    if (!best.finite) return;
    select_top(row, num_top, top_);
    std::vector<int32_t> asked;
    sampler.add_asked_ids(asked);
    asked.resize(std::min(asked.size(), most_asked));
    for (const int32_t id : asked) others_.push_back({row[static_cast<size_t>(id)], id});
    known_.top = top_;
    known_.complete = static_cast<int64_t>(top_.size()) < num_top;
    if (sampler.draws_from_all()) add_contenders(row, sampler, position, error);
    known_.others = others_;
    known_.log_sum = best.id < 0 ? 0 : log_sum_exp(row, best.logit) + error;
  }
  Facts(const Facts&) = delete;
  Facts& operator=(const Facts&) = delete;
  const KnownRow& operator*() const { return known_; }

 private:
  // In FP32, as a device would.
  void add_contenders(const std::vector<float>& row, const Sampler& sampler, int64_t position,
                      double error) {
    constexpr size_t kContenders = 16;
    const auto inverse = static_cast<float>(1 / sampler.params().temperature);
    std::vector<Candidate> scores;
    for (size_t id = 0; id < row.size(); ++id) {
      const double noise = token_noise(sampler.seed(), position, static_cast<int32_t>(id)) + error;
      if (row[id] > -kInf)
        scores.push_back({row[id] * inverse + static_cast<float>(noise), static_cast<int32_t>(id)});
    }
    std::ranges::sort(scores, comes_before);
    scores.resize(std::min(scores.size(), kContenders));
    if (scores.empty()) return;
    const double largest{top_.front().logit};
    const auto weight = [&](float logit) {
      return std::exp((double{logit} - largest) / sampler.params().temperature);
    };
    for (const Candidate& c : scores) {
      const Candidate contender = {row[static_cast<size_t>(c.id)], c.id};
      others_.push_back(contender);
      double before = 0;
      for (size_t id = 0; id < row.size(); ++id)
        if (comes_before({row[id], static_cast<int32_t>(id)}, contender)) before += weight(row[id]);
      contenders_.push_back({c.id, static_cast<float>(before * (1 + error))});
    }
    for (const float logit : row) known_.weight += weight(logit);
    known_.contenders = contenders_;
    known_.most_score = double{scores.back().logit};
  }

  std::vector<Candidate> top_, others_;
  std::vector<Contender> contenders_;
  KnownRow known_;
};

void expect_equal(const TokenChoice& got, const TokenChoice& want, const std::string& what) {
  ASSERT_EQ(got.token, want.token) << what;
  ASSERT_EQ(got.top.size(), want.top.size()) << what;
  const auto near = [&](float a, float b) {
    if (a == b) return;
    ASSERT_NEAR(a, b, 2e-5F) << what;
  };
  near(got.logprob, want.logprob);
  for (size_t i = 0; i < want.top.size(); ++i) {
    ASSERT_EQ(got.top[i].token, want.top[i].token) << what << " place " << i;
    near(got.top[i].logprob, want.top[i].logprob);
  }
}

TEST(KnownRow, DecidesAsTheWholeRow) {
  Random random(41);
  int decided = 0;
  int failed_rows = 0;
  constexpr int kTrials = 5000;
  for (int trial = 0; trial < kTrials; ++trial) {
    const std::vector<float> row = random_row(random);
    const SamplingParams params = random_params(random);
    Sampler sampler(params, kVocab, some_ids(random, random() % 8), {3, 700, 2999}, {1, 7}, trial);
    for (const int32_t id : some_ids(random, random() % 30)) sampler.commit(id);
    // Of the likeliest tokens, many have been said before.
    std::vector<Candidate> likely;
    select_top(row, 40, likely);
    for (const Candidate& c : likely)
      if (random() % 4 == 0) sampler.commit(c.id);
    if (random() % 4 == 0) sampler.commit(7);
    const std::vector<uint32_t> mask =
        random() % 3 == 0 ? random_mask(random) : std::vector<uint32_t>();
    const double error = 4e-6 * (share(random) - 0.5);
    const Facts facts(row, sampler, random() % 2 == 0 ? 128 : 20, 64, trial, error);
    const auto choice = sampler.choose_known(*facts, trial, mask);
    if (!choice) continue;
    ++decided;
    const TokenChoice want = sampler.choose(row, trial, mask);
    failed_rows += want.token == kNotFinite ? 1 : 0;
    expect_equal(*choice, want, "trial " + std::to_string(trial));
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(decided, kTrials / 2);
  EXPECT_GT(failed_rows, 50);
}

// Where whole rows would be needed often, the device's work would be in vain.
double decided_share(const std::function<void(SamplingParams&)>& change, bool with_mask = false) {
  Random random(6);
  int decided = 0;
  constexpr int kTrials = 200;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<float> row = test::random_logits(random, kVocab, 2.0F);
    std::vector<uint32_t> mask((kVocab + 31) / 32);
    for (int i = 0; i < 30; ++i) {
      const size_t id = random() % row.size();
      row[id] = 8.0F + 10.0F * static_cast<float>(share(random));
      if (i % 4 == 0) mask[id / 32] |= 1U << (id % 32);
    }
    SamplingParams params;
    params.top_k = 64;
    params.top_p = 0.95;
    change(params);
    Sampler sampler(params, kVocab, {}, {3, 700}, {1}, 5);
    std::vector<Candidate> likely;
    select_top(row, 60, likely);
    for (size_t i = 0; i < likely.size(); i += 2) sampler.commit(likely[i].id);
    const Facts facts(row, sampler, 128, 64, trial);
    const auto choice =
        sampler.choose_known(*facts, trial, with_mask ? TokenMask(mask) : TokenMask());
    if (sampler.needs_no_row(128, 64) && !with_mask) {
      EXPECT_TRUE(choice.has_value());
    }
    decided += choice ? 1 : 0;
  }
  return static_cast<double>(decided) / kTrials;
}

TEST(KnownRow, DecidesWhatUsersAskFor) {
  using Params = SamplingParams;
  EXPECT_EQ(decided_share([](Params&) {}), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.top_p = 1; }), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.num_logprobs = 20; }), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.temperature = p.num_logprobs = 0; }), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.presence_penalty = 1.5; }), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.frequency_penalty = 0.5; }), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.repetition_penalty = 1.2; }), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.presence_penalty = -1; }), 1);
  EXPECT_EQ(decided_share([](Params& p) { p.logit_bias = {{3, 100.0F}, {4, -100.0F}, {5, 1.0F}}; }),
            1);
  EXPECT_EQ(decided_share([](Params& p) { p.min_tokens = 100; }), 1);
  EXPECT_GT(decided_share([](Params& p) { p.top_k = 0; }), 0.97);
  EXPECT_EQ(decided_share([](Params& p) {
              p.top_k = 0;
              p.top_p = 1;
              p.min_p = 0.05;
            }),
            1);
  const auto with_mask = [](const std::function<void(Params&)>& change) {
    return decided_share(change, true);
  };
  EXPECT_EQ(with_mask([](Params& p) { p.temperature = 0; }), 1);
  EXPECT_GT(with_mask([](Params&) {}), 0.97);
  EXPECT_GT(with_mask([](Params& p) { p.top_k = 0; }), 0.97);
  // Without truncation every token may come: the tokens that are ahead in the draw decide.
  const auto everything = [](Params& p) {
    p.top_k = 0;
    p.top_p = 1;
  };
  EXPECT_EQ(decided_share(everything), 1);
  // And, with top-p, the weight of what comes before them.
  EXPECT_GT(decided_share([](Params& p) {
              p.top_k = 0;
              p.top_p = 0.7;
              p.temperature = 4;
              p.logit_bias = {{5, 2.0F}, {6, -3.0F}};
            }),
            0.97);
  EXPECT_GT(with_mask(everything), 0.9);
  EXPECT_EQ(decided_share([](Params& p) {
              p.top_k = 0;
              p.top_p = 1;
              p.temperature = 3;
              p.presence_penalty = 0.5;
            }),
            1);
}

TEST(KnownRow, WhatMayNeedTheRowSaysSo) {
  const auto needs_none = [](const std::function<void(SamplingParams&)>& change) {
    SamplingParams params;
    params.top_k = 64;
    change(params);
    return Sampler(params, kVocab, {}, {3, 700}, {1}, 5).needs_no_row(128, 64);
  };
  EXPECT_TRUE(needs_none([](SamplingParams&) {}));
  EXPECT_TRUE(needs_none([](SamplingParams& p) { p.num_logprobs = 20; }));
  EXPECT_TRUE(needs_none([](SamplingParams& p) { p.temperature = 0; }));
  EXPECT_TRUE(needs_none([](SamplingParams& p) { p.logit_bias = {{1, 2.0F}, {2, -1.0F}}; }));
  EXPECT_TRUE(needs_none([](SamplingParams& p) { p.banned_token_ids.assign(62, 9); }));
  EXPECT_FALSE(needs_none([](SamplingParams& p) { p.banned_token_ids.assign(63, 9); }));
  // More raised tokens than a device is asked for.
  EXPECT_TRUE(needs_none([](SamplingParams& p) {
    p.top_k = 1;
    p.logit_bias.assign(64, {9, 1.0F});
  }));
  EXPECT_FALSE(needs_none([](SamplingParams& p) {
    p.top_k = 1;
    p.logit_bias.assign(65, {9, 1.0F});
  }));
  EXPECT_FALSE(needs_none([](SamplingParams& p) { p.top_k = 127; }));
  EXPECT_FALSE(needs_none([](SamplingParams& p) { p.top_k = 0; }));
  EXPECT_FALSE(needs_none([](SamplingParams& p) { p.top_k = kVocab; }));
  EXPECT_FALSE(needs_none([](SamplingParams& p) { p.presence_penalty = 1; }));
  EXPECT_FALSE(needs_none([](SamplingParams& p) { p.allowed_token_ids = {4}; }));
}

// A token that a bias lifts in front of all others is chosen only where its logit is known.
TEST(KnownRow, RaisedTokensMustBeKnown) {
  std::vector<float> row(kVocab, 0.0F);
  for (size_t i = 0; i < 50; ++i) row[i] = 10.0F;
  row[2000] = -3.0F;
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{2000, 20.0F}};
  const Sampler sampler(params, kVocab, {}, {}, {}, 5);
  EXPECT_FALSE(sampler.choose_known(*Facts(row, sampler, 20, 0, 0), 0).has_value());
  const auto choice = sampler.choose_known(*Facts(row, sampler, 20, 1, 0), 0);
  ASSERT_TRUE(choice);
  EXPECT_EQ(choice->token, 2000);
}

}  // namespace

}  // namespace tandem::sampling
