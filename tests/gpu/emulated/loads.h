// Requests, and what came of them: through the step on the emulated device, and through plain code
// that computes one sequence after the other.
#pragma once

#include <map>
#include <set>
#include <vector>

#include "engine/engine.h"
#include "tests/gpu/emulated/settings.h"

namespace tandem::emulated {

enum class Style {
  kGreedy,
  kDraws,       // among the likeliest tokens: the device chooses
  kScored,      // the same, and some prompts are scored
  kEverything,  // mostly the host chooses
  kRaised,      // more ids raised by logit_bias than a device is asked for
};

std::vector<engine::EngineRequest> make_requests(Dice& dice, int64_t count, Style style);
// Prompts of thousands of tokens, some short ones between.
void lengthen(std::vector<engine::EngineRequest>& requests, Dice& dice);

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<int64_t> others;  // ids of top log-probabilities; ids and ranks of prompt scores
  std::vector<float> logprobs;
  int32_t finish = -1;  // reason and stop token in one
};

struct Outcome {
  std::map<uint64_t, Answer> answers;
  std::set<uint64_t> cancelled;
};

// Requests come as there is room for them, and as the dice fall.
Outcome run_load(engine::Engine& engine, const std::vector<engine::EngineRequest>& requests,
                 const Settings& settings, Dice& dice);
// Their texts alone.
Outcome reference_of(const std::vector<engine::EngineRequest>& requests);

void expect_same(const Outcome& got, const Outcome& want);

}  // namespace tandem::emulated
