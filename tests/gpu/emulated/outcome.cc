#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/gpu/emulated/loads.h"
#include "tests/gpu/emulated/text.h"

namespace tandem::emulated {
namespace {

using engine::EngineRequest;
using engine::TokenEvent;

void take(const TokenEvent& event, Answer& answer) {
  for (const sampling::TokenChoice& choice : event.tokens) {
    answer.tokens.push_back(choice.token);
    answer.logprobs.push_back(choice.logprob);
    for (const auto& top : choice.top) {
      answer.others.push_back(top.token);
      answer.logprobs.push_back(top.logprob);
    }
  }
  for (const sampling::TokenScore& score : event.prompt_scores) {
    answer.others.insert(answer.others.end(), {score.token, score.rank});
    answer.logprobs.push_back(score.logprob);
    for (const auto& top : score.top) {
      answer.others.push_back(top.token);
      answer.logprobs.push_back(top.logprob);
    }
  }
  if (event.finish)
    answer.finish =
        static_cast<int32_t>(event.finish->reason) * 10000 + event.finish->stop_token.value_or(-1);
}

// Of some requests, so that others wait.
void add_requests(engine::Engine& engine, std::span<const EngineRequest> requests, size_t& next,
                  const Settings& settings, Dice& dice) {
  while (next < requests.size() && engine.stats().num_waiting < 2 * settings.max_sequences + 3 &&
         (!dice.one_in(4) || !engine.has_work())) {
    EngineRequest request = requests[next++];
    if (settings.priorities) request.priority = dice.from(0, 3);
    if (settings.num_drafts > 0 && dice.one_in(5))
      request.num_draft_tokens = static_cast<int>(dice.from(0, settings.num_drafts));
    const base::Status added = engine.add_request(std::move(request));
    ASSERT_TRUE(added.has_value()) << added.error().message;
  }
}

// One of the newest 20.
void cancel_one(engine::Engine& engine, size_t num_added, Dice& dice, Outcome& outcome) {
  const auto newest = static_cast<int64_t>(num_added) - 1;
  const auto id = static_cast<uint64_t>(dice.from(std::max<int64_t>(0, newest - 19), newest));
  if (engine.cancel(id)) outcome.cancelled.insert(id);
}

// The text of one sequence, row by row.
class PlainStep {
 public:
  speculation::SpecResult run(const speculation::SpecBatch& batch) {
    speculation::SpecResult result;
    for (const speculation::SpecSequence& sequence : batch.sequences)
      result.sequences.push_back(run(sequence));
    return result;
  }

 private:
  speculation::SpecSequenceResult run(const speculation::SpecSequence& sequence) {
    speculation::SpecSequenceResult result;
    hashes_.resize(static_cast<size_t>(sequence.start_position));
    for (size_t i = 0; i < sequence.tokens.size(); ++i) {
      hashes_.push_back(extend(hashes_.empty() ? kNoText : hashes_.back(), sequence.tokens[i]));
      if (i < sequence.scored_tokens.size())
        result.scores.push_back(sampling::score_token(
            logits_of(hashes_.back()), sequence.scored_tokens[i], sequence.num_scored_top));
    }
    if (!sequence.samples) return result;
    const auto allowed = sequence.constraint != nullptr ? sequence.constraint->allowed()
                                                        : std::span<const uint32_t>();
    sampling::TokenChoice choice = sequence.sampler->choose(
        logits_of(hashes_.back()), static_cast<int64_t>(hashes_.size()), allowed);
    result.failed = choice.token == sampling::kNotFinite ||
                    (sequence.constraint != nullptr && !sequence.constraint->accept(choice.token));
    if (result.failed) return result;
    sequence.sampler->commit(choice.token);
    result.tokens.push_back(std::move(choice));
    return result;
  }

  std::vector<uint64_t> hashes_;  // of each position of the running sequence
};

void expect_same(uint64_t id, const Answer& got, const Answer& want) {
  // The host may sum what the device summed, and that adds FP32 numbers.
  constexpr float kTolerance = 3e-5F;
  const auto [mine, theirs] = std::ranges::mismatch(got.tokens, want.tokens);
  if (mine != got.tokens.end() || theirs != want.tokens.end()) {
    ADD_FAILURE() << "request " << id << ": " << want.tokens.size() << " tokens expected, got "
                  << got.tokens.size() << "; token " << mine - got.tokens.begin() << ": expected "
                  << (theirs == want.tokens.end() ? -1 : *theirs) << ", got "
                  << (mine == got.tokens.end() ? -1 : *mine);
    return;
  }
  EXPECT_EQ(got.finish, want.finish) << "request " << id << ": reason of the end";
  EXPECT_EQ(got.others, want.others) << "request " << id << ": tokens beside the text";
  ASSERT_EQ(got.logprobs.size(), want.logprobs.size()) << "request " << id;
  for (size_t i = 0; i < want.logprobs.size(); ++i) {
    if (got.logprobs[i] == want.logprobs[i]) continue;
    ASSERT_NEAR(got.logprobs[i], want.logprobs[i], kTolerance)
        << "request " << id << ": log-probability " << i;
  }
}

}  // namespace

Outcome run_load(engine::Engine& engine, const std::vector<EngineRequest>& requests,
                 const Settings& settings, Dice& dice) {
  constexpr int kMostSteps = 200000;
  Outcome outcome;
  size_t next = 0;
  for (int steps = 0; next < requests.size() || engine.has_work(); ++steps) {
    add_requests(engine, requests, next, settings, dice);
    for (const TokenEvent& event : engine.step()) take(event, outcome.answers[event.id]);
    if (settings.cancels && next > 0 && dice.one_in(25)) cancel_one(engine, next, dice, outcome);
    const std::string broken = engine.find_fault();
    if (!broken.empty() || steps > kMostSteps || testing::Test::HasFatalFailure()) {
      ADD_FAILURE() << "step " << steps << ": " << broken;
      return outcome;
    }
  }
  EXPECT_EQ(engine.stats().num_held_pages, 0);
  return outcome;
}

Outcome reference_of(const std::vector<EngineRequest>& requests) {
  Settings plain;
  plain.num_drafts = 0;
  plain.max_sequences = 1;
  plain.prefix_caching = false;
  plain.max_model_len = plain.max_batched_tokens = plain.max_chunk_tokens = 9000;
  plain.num_page_blocks = plain.max_model_len / plain.block_size + 1;
  PlainStep step;
  engine::Engine engine(plain.engine_options(),
                        [&](const speculation::SpecBatch& batch) { return step.run(batch); });
  Dice dice(1);
  return run_load(engine, requests, plain, dice);
}

void expect_same(const Outcome& got, const Outcome& want) {
  constexpr int kMostReported = 3;
  int num_wrong = 0;
  for (const auto& [id, answer] : want.answers) {
    if (got.cancelled.contains(id)) continue;
    const auto found = got.answers.find(id);
    EXPECT_NE(found, got.answers.end()) << "request " << id << " has no answer";
    if (found == got.answers.end()) continue;
    const Answer& mine = found->second;
    if (mine.tokens != answer.tokens) ++num_wrong;
    if (num_wrong <= kMostReported) expect_same(id, mine, answer);
  }
  EXPECT_EQ(num_wrong, 0) << "wrong texts of " << want.answers.size();
}

}  // namespace tandem::emulated
