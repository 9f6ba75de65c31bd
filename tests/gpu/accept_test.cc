// Acceptance and the hand-over of drafts against the rule written as a loop.
#include "ops/cuda/accept.h"

#include "ops/cuda/draw.h"
#include "sampling/rng.h"
#include "tests/gpu/support.h"

namespace tandem {
namespace {

using ops::cuda::kMaxDrafts;
using ops::cuda::RoundResult;

constexpr int kHidden = 136;
constexpr int kRowsPerEntry = kMaxDrafts + 1;
constexpr int kSlots = 40;
constexpr int kPositionOffset = 1;

// A random batch: what the target chose, what was drafted, and what must come of it.
struct Round {
  std::vector<int32_t> first_rows, num_drafts, slots, tokens, positions, last_keys, chosen;
  std::vector<int32_t> assistant_tokens, assistant_positions, assistant_last_keys;
  std::vector<core::BFloat16> hidden, states;
  std::vector<RoundResult> results;

  size_t num_entries() const { return slots.size(); }
};

Round random_round(int num_entries, uint32_t seed) {
  std::mt19937 random(seed);
  const auto pick = [&](int n) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(n));
  };
  Round round;
  const int rows = num_entries * kRowsPerEntry;
  for (int i = 0; i < rows; ++i) {
    round.tokens.push_back(pick(3));
    const int32_t nothing = pick(12);
    round.chosen.push_back(nothing == 0 ? -1 : nothing == 1 ? ops::cuda::kUndecided : pick(3));
    round.positions.push_back(i);
    round.last_keys.push_back(i);
  }
  for (int entry = 0; entry < num_entries; ++entry) {
    // Entries lie in the rows in another order than in the batch.
    const int32_t first = (num_entries - 1 - entry) * kRowsPerEntry;
    const int32_t drafts = pick(kMaxDrafts + 1);
    round.first_rows.push_back(first);
    round.num_drafts.push_back(drafts);
    round.slots.push_back(entry % 5 == 3 ? -1 : (entry * 7 + 3) % kSlots);
    round.positions[static_cast<size_t>(first)] = pick(100000);
    // Half of the drafts agree.
    for (int32_t i = 0; i < drafts; ++i)
      if (pick(2) == 0)
        round.tokens[static_cast<size_t>(first + 1 + i)] =
            std::max(0, round.chosen[static_cast<size_t>(first + i)]);
  }
  round.assistant_tokens.assign(static_cast<size_t>(num_entries), 77);
  round.assistant_positions = round.assistant_last_keys = round.assistant_tokens;
  round.hidden = tests::random_bf16(static_cast<size_t>(rows * kHidden), seed + 1);
  round.states = tests::random_bf16(static_cast<size_t>(kSlots * kHidden), seed + 2);
  round.results.assign(static_cast<size_t>(num_entries), RoundResult{9, 9, 9, 9, 9, {9}});
  return round;
}

// speculation.md 3 and 3.1, token by token.
void accept_on_host(Round& round, size_t entry, const ops::cuda::SyntheticRates& synthetic) {
  RoundResult& result = round.results[entry];
  result = {};
  if (round.slots[entry] < 0) return;
  const auto first = static_cast<size_t>(round.first_rows[entry]);
  const int32_t newest = round.positions[first];
  const int drafts = round.num_drafts[entry];
  result.num_drafted = drafts;
  size_t row = first;
  for (;; ++row) {
    const int i = result.num_accepted;
    const int32_t own = round.chosen[row];
    if (own < 0) {
      result.failed = own == ops::cuda::kUndecided ? 0 : 1;
      result.undecided = 1 - result.failed;
      break;
    }
    bool accepted = i < drafts && round.tokens[row + 1] == own;
    if (i < drafts && synthetic.enabled)
      accepted =
          sampling::uniform(synthetic.seed, int64_t{newest} + 1 + i, sampling::Purpose::kAccept,
                            static_cast<uint32_t>(round.tokens[first])) < synthetic.conditional[i];
    result.tokens[result.num_tokens++] = accepted ? round.tokens[row + 1] : own;
    if (!accepted) break;
    ++result.num_accepted;
  }
  const bool none = result.undecided != 0 && result.num_tokens == 0;
  if (result.undecided != 0) {  // as if the last known one had not been drafted
    if (!none) --result.num_accepted;
    result.num_drafted = result.num_accepted;
    --row;
  }
  if (!none)
    std::copy_n(round.hidden.begin() + static_cast<int64_t>(row) * kHidden, kHidden,
                round.states.begin() + int64_t{round.slots[entry]} * kHidden);
  if (result.failed != 0 || result.undecided != 0) return;
  const int32_t length = newest + 1 + result.num_tokens;
  const int32_t token = result.tokens[result.num_tokens - 1];
  for (size_t i = 0; i < kRowsPerEntry; ++i)
    round.positions[first + i] = round.last_keys[first + i] = length - 1 + static_cast<int32_t>(i);
  round.tokens[first] = round.assistant_tokens[entry] = token;
  round.assistant_positions[entry] = length - 2 + kPositionOffset;
  round.assistant_last_keys[entry] = length - 2;
}

template <typename T>
void read_back(const ops::cuda::DeviceBuffer& from, std::vector<T>& to) {
  to = tests::to_host<T>(from, to.size());
}

Round accept_on_device(Round round, const ops::cuda::SyntheticRates& synthetic, bool advance) {
  const auto first_rows = tests::to_device(round.first_rows);
  const auto num_drafts = tests::to_device(round.num_drafts);
  const auto slots = tests::to_device(round.slots);
  const auto tokens = tests::to_device(round.tokens);
  const auto positions = tests::to_device(round.positions);
  const auto last_keys = tests::to_device(round.last_keys);
  const auto chosen = tests::to_device(round.chosen);
  const auto hidden = tests::to_device(round.hidden);
  const auto states = tests::to_device(round.states);
  const auto results = tests::to_device(round.results);
  const auto assistant_tokens = tests::to_device(round.assistant_tokens);
  const auto assistant_positions = tests::to_device(round.assistant_positions);
  const auto assistant_last_keys = tests::to_device(round.assistant_last_keys);
  ops::cuda::AcceptDrafts op;
  op.num_entries = static_cast<int>(round.num_entries());
  op.hidden = kHidden;
  op.first_rows = first_rows.as<int32_t>();
  op.num_drafts = num_drafts.as<int32_t>();
  op.slots = slots.as<int32_t>();
  op.tokens = tokens.as<int32_t>();
  op.positions = positions.as<int32_t>();
  op.chosen = chosen.as<int32_t>();
  op.hidden_rows = hidden.as<uint16_t>();
  op.states = states.as<uint16_t>();
  op.results = results.as<RoundResult>();
  op.synthetic = synthetic;
  if (advance)
    op.next = {kMaxDrafts,
               kPositionOffset,
               tokens.as<int32_t>(),
               positions.as<int32_t>(),
               last_keys.as<int32_t>(),
               assistant_tokens.as<int32_t>(),
               assistant_positions.as<int32_t>(),
               assistant_last_keys.as<int32_t>()};
  ops::cuda::accept_drafts({}, op);
  tests::synchronize();
  read_back(tokens, round.tokens);
  read_back(positions, round.positions);
  read_back(last_keys, round.last_keys);
  read_back(states, round.states);
  read_back(results, round.results);
  read_back(assistant_tokens, round.assistant_tokens);
  read_back(assistant_positions, round.assistant_positions);
  read_back(assistant_last_keys, round.assistant_last_keys);
  return round;
}

std::string text(const RoundResult& r) {
  std::string s = std::to_string(r.num_tokens) + " tokens, " + std::to_string(r.num_accepted) +
                  " of " + std::to_string(r.num_drafted) + " accepted, failed " +
                  std::to_string(r.failed) + ", undecided " + std::to_string(r.undecided) + ":";
  for (const int32_t token : r.tokens) s += " " + std::to_string(token);
  return s;
}

void expect_same(const Round& expected, const Round& got) {
  for (size_t entry = 0; entry < expected.num_entries(); ++entry) {
    EXPECT_EQ(text(got.results[entry]), text(expected.results[entry])) << "entry " << entry;
    EXPECT_NE(got.results[entry].finished, 0U) << "entry " << entry;
  }
  int failures = 0;
  for (size_t i = 0; i < expected.states.size() && failures < 5; ++i) {
    if (got.states[i].bits == expected.states[i].bits) continue;
    ++failures;
    ADD_FAILURE() << "state of slot " << i / kHidden << " column " << i % kHidden;
  }
  EXPECT_EQ(got.tokens, expected.tokens);
  EXPECT_EQ(got.positions, expected.positions);
  EXPECT_EQ(got.last_keys, expected.last_keys);
  EXPECT_EQ(got.assistant_tokens, expected.assistant_tokens);
  EXPECT_EQ(got.assistant_positions, expected.assistant_positions);
  EXPECT_EQ(got.assistant_last_keys, expected.assistant_last_keys);
}

TEST(AcceptDrafts, IsTheRuleTokenByToken) {
  int accepted[kMaxDrafts + 1] = {};
  int failed = 0;
  int undecided[2] = {};  // at first, later
  for (uint32_t seed = 0; seed < 30; ++seed) {
    SCOPED_TRACE(seed);
    const Round before = random_round(1 + static_cast<int>(seed), seed);
    Round expected = before;
    for (size_t entry = 0; entry < before.num_entries(); ++entry) {
      accept_on_host(expected, entry, {});
      ++accepted[expected.results[entry].num_accepted];
      failed += expected.results[entry].failed;
      if (expected.results[entry].undecided != 0)
        ++undecided[expected.results[entry].num_tokens == 0 ? 0 : 1];
    }
    expect_same(expected, accept_on_device(before, {}, true));
  }
  // The rounds were worth looking at.
  for (int i = 0; i < 5; ++i) EXPECT_GT(accepted[i], 0) << i;
  EXPECT_GT(failed, 10);
  EXPECT_GT(undecided[0], 5);
  EXPECT_GT(undecided[1], 5);
}

TEST(AcceptDrafts, SyntheticAcceptanceIsThatOfTheHost) {
  ops::cuda::SyntheticRates synthetic;
  synthetic.enabled = true;
  synthetic.seed = 0x123456789abcdefULL;
  for (int i = 0; i < kMaxDrafts; ++i) synthetic.conditional[i] = 0.9 - 0.05 * i;
  for (uint32_t seed = 100; seed < 115; ++seed) {
    SCOPED_TRACE(seed);
    const Round before = random_round(24, seed);
    Round expected = before;
    for (size_t entry = 0; entry < before.num_entries(); ++entry)
      accept_on_host(expected, entry, synthetic);
    expect_same(expected, accept_on_device(before, synthetic, true));
  }
}

// Without places for the next round its inputs stay.
TEST(AcceptDrafts, LeavesInputsAloneUnlessAsked) {
  const Round before = random_round(9, 5);
  Round expected = before;
  for (size_t entry = 0; entry < before.num_entries(); ++entry) accept_on_host(expected, entry, {});
  expected.tokens = before.tokens;
  expected.positions = before.positions;
  expected.last_keys = before.last_keys;
  expected.assistant_tokens = before.assistant_tokens;
  expected.assistant_positions = before.assistant_positions;
  expected.assistant_last_keys = before.assistant_last_keys;
  expect_same(expected, accept_on_device(before, {}, false));
}

// From page-locked memory, as the host leaves them.
TEST(KeepStates, CopiesRowsToSlots) {
  const auto hidden = tests::random_bf16(12 * kHidden, 5);
  auto states = tests::random_bf16(kSlots * kHidden, 6);
  const std::vector<ops::cuda::KeptState> kept = {{11, 3}, {0, 39}, {7, 0}};
  ops::cuda::PinnedBuffer pinned(kept.size() * sizeof(kept[0]));
  std::copy(kept.begin(), kept.end(), pinned.as<ops::cuda::KeptState>());
  const auto hidden_device = tests::to_device(hidden);
  const auto states_device = tests::to_device(states);
  ops::cuda::keep_states({}, {.count = static_cast<int>(kept.size()),
                              .hidden = kHidden,
                              .kept = pinned.as<ops::cuda::KeptState>(),
                              .hidden_rows = hidden_device.as<uint16_t>(),
                              .states = states_device.as<uint16_t>()});
  for (const auto& [row, slot] : kept)
    std::copy_n(hidden.begin() + row * kHidden, kHidden, states.begin() + slot * kHidden);
  tests::synchronize();
  const auto got = tests::to_host<core::BFloat16>(states_device, states.size());
  for (size_t i = 0; i < states.size(); ++i) ASSERT_EQ(got[i].bits, states[i].bits) << i;
}

// Entries want 0 .. 8 drafts; a guess that is not finite ends an entry's drafting for good.
TEST(NextDraftToken, FillsTheVerifyRows) {
  constexpr int kEntries = 70;
  std::mt19937 random(3);
  std::vector<int32_t> first_rows, wanted, made(kEntries, 0);
  for (int e = 0; e < kEntries; ++e) {
    first_rows.push_back((kEntries - 1 - e) * kRowsPerEntry);
    wanted.push_back(e % (kMaxDrafts + 1));
  }
  std::vector<int32_t> tokens(kEntries * kRowsPerEntry, 55), inputs(kEntries, 66);
  const auto first_device = tests::to_device(first_rows);
  const auto wanted_device = tests::to_device(wanted);
  const auto made_device = tests::to_device(std::vector<int32_t>(kEntries, 99));
  const auto tokens_device = tests::to_device(tokens);
  const auto inputs_device = tests::to_device(inputs);
  for (int step = 0; step < kMaxDrafts; ++step) {
    std::vector<int32_t> chosen;
    for (size_t e = 0; e < kEntries; ++e) {
      chosen.push_back(random() % 10 == 0 ? -1 : static_cast<int32_t>(random() % 1000));
      const bool drafts = made[e] == step && step < wanted[e] && chosen[e] >= 0;
      made[e] += drafts ? 1 : 0;
      inputs[e] = drafts ? chosen[e] : 0;
      if (step < wanted[e]) tokens[static_cast<size_t>(first_rows[e] + 1 + step)] = inputs[e];
    }
    const auto chosen_device = tests::to_device(chosen);
    ops::cuda::next_draft_token(
        {},
        {step, kEntries, first_device.as<int32_t>(), wanted_device.as<int32_t>(),
         made_device.as<int32_t>(), tokens_device.as<int32_t>(), inputs_device.as<int32_t>()},
        chosen_device.as<int32_t>());
    tests::synchronize();
    ASSERT_EQ(tests::to_host<int32_t>(made_device, kEntries), made) << "step " << step;
    ASSERT_EQ(tests::to_host<int32_t>(inputs_device, kEntries), inputs) << "step " << step;
    ASSERT_EQ(tests::to_host<int32_t>(tokens_device, tokens.size()), tokens) << "step " << step;
  }
}

}  // namespace
}  // namespace tandem
