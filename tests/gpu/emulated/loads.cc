#include "tests/gpu/emulated/loads.h"

#include <algorithm>
#include <memory>

#include "tests/gpu/emulated/text.h"

namespace tandem::emulated {
namespace {

using engine::EngineRequest;
using sampling::SamplingParams;

// What may come next depends on what came last and how much; at times anything.
class Pattern final : public base::TokenConstraint {
 public:
  Pattern(uint64_t seed, uint64_t spread) : seed_(seed), spread_(spread) {}

  std::span<const uint32_t> allowed() override {
    if (allows_all()) return {};
    std::ranges::fill(mask_, 0);
    for (int32_t id = 0; id < kVocab; ++id)
      if (allows(id)) mask_[static_cast<size_t>(id) / 32] |= 1U << (id % 32);
    return mask_;
  }
  bool accept(int32_t token) override {
    if (!allows(token)) return false;
    tokens_.push_back(token);
    return true;
  }
  void rollback(int count) override { tokens_.resize(tokens_.size() - static_cast<size_t>(count)); }
  bool finished() const override { return !tokens_.empty() && tokens_.back() == kEndOfText; }

 private:
  uint64_t state() const {
    const auto last = static_cast<uint64_t>(tokens_.empty() ? 0 : tokens_.back());
    return seed_ * 31 + tokens_.size() * 7 + last * 13;
  }
  bool allows_all() const { return state() % 5 == 4; }
  bool allows(int32_t id) const {
    const uint64_t mixed = static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ULL >> 40;
    return allows_all() || (mixed + state()) % spread_ == 0;
  }

  uint64_t seed_, spread_;
  std::vector<int32_t> tokens_;
  std::vector<uint32_t> mask_ = std::vector<uint32_t>((kVocab + 31) / 32);
};

int32_t any_id(Dice& dice) {
  return static_cast<int32_t>(dice.from(0, kVocab - 1));
}

std::vector<int32_t> any_ids(Dice& dice, int64_t count) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(any_id(dice));
  return ids;
}

void add_biases(SamplingParams& params, Dice& dice, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    params.logit_bias.push_back({any_id(dice), static_cast<float>(dice.from(-3, 3))});
}

void add_logprobs(SamplingParams& params, Dice& dice) {
  if (dice.one_in(3)) params.num_logprobs = static_cast<int32_t>(dice.from(0, 20));
  if (dice.one_in(6)) params.num_prompt_logprobs = static_cast<int32_t>(dice.from(0, 5));
  if (!dice.one_in(6)) return;
  params.num_logprobs = 0;
  params.logprob_token_ids = dice.one_in(2) ? std::vector<int32_t>{5, 300, 2} : any_ids(dice, 90);
}

void add_rules(SamplingParams& params, Dice& dice) {
  if (dice.one_in(3)) params.top_k = 0;
  if (dice.one_in(5)) params.presence_penalty = 0.8;
  if (dice.one_in(5)) params.frequency_penalty = dice.one_in(2) ? 0.7 : -0.7;
  if (dice.one_in(5)) params.repetition_penalty = dice.one_in(2) ? 0.9 : 1.3;
  if (dice.one_in(6)) params.logit_bias = {{40, 100.0F}, {41, -100.0F}, {42, 3.0F}};
  if (dice.one_in(8)) add_biases(params, dice, 120);
  if (dice.one_in(9)) params.banned_token_ids = any_ids(dice, dice.one_in(2) ? 110 : 3);
  if (dice.one_in(9)) params.banned_sequences = {{35, 36}, {37}};
  if (dice.one_in(6)) params.stop_token_ids = any_ids(dice, 3);
  if (dice.one_in(6)) params.allowed_token_ids = any_ids(dice, dice.one_in(2) ? 120 : 6);
  if (!params.allowed_token_ids.empty()) params.allowed_token_ids.push_back(kEndOfText);
}

void add_everything(EngineRequest& request, Dice& dice) {
  SamplingParams& params = request.sampling;
  add_logprobs(params, dice);
  add_rules(params, dice);
  if (dice.one_in(6)) params.min_tokens = std::min<int64_t>(request.max_tokens, 10);
  if (!dice.one_in(4)) return;
  request.constraint = std::make_shared<Pattern>(dice.any(), 2 + dice.any() % 30);
  params.allowed_token_ids.clear();
  params.min_tokens = 0;
}

// One of three beginnings, then what the request has alone.
std::vector<int32_t> make_prompt(Dice& dice, int64_t longest) {
  const int64_t trunk = dice.from(0, 2);
  const int64_t shared = dice.from(0, 200);
  const int64_t length = dice.from(1, dice.one_in(3) ? 20 : longest);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i)
    ids.push_back(i < shared ? static_cast<int32_t>((trunk * 37 + i * 11) % 380 + 10)
                             : any_id(dice));
  return ids;
}

void set_draws(SamplingParams& params, Dice& dice, Style style) {
  params.seed = dice.any();
  params.ignore_eos = dice.one_in(2);
  params.temperature = dice.one_in(3) || style == Style::kGreedy
                           ? 0.0
                           : static_cast<double>(dice.from(50, 149)) / 100;
  params.top_k = style == Style::kGreedy ? 0 : dice.from(1, style == Style::kRaised ? 20 : 64);
  params.top_p = dice.one_in(2) ? 0.9 : 1.0;
  params.min_p = dice.one_in(5) ? 0.03 : 0.0;
}

}  // namespace

std::vector<EngineRequest> make_requests(Dice& dice, int64_t count, Style style) {
  std::vector<EngineRequest> requests;
  for (int64_t i = 0; i < count; ++i) {
    EngineRequest request;
    request.id = static_cast<uint64_t>(i);
    request.prompt_ids = make_prompt(dice, style == Style::kScored ? 600 : 300);
    request.max_tokens = dice.from(1, 50);
    set_draws(request.sampling, dice, style);
    if (style == Style::kScored && dice.one_in(20)) request.sampling.num_prompt_logprobs = 1;
    if (style == Style::kEverything) add_everything(request, dice);
    if (style == Style::kRaised) {
      for (int64_t raised = dice.from(70, 100); raised > 0; --raised)
        request.sampling.logit_bias.push_back({any_id(dice), static_cast<float>(dice.from(1, 8))});
      request.sampling.num_logprobs = 2;
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

void lengthen(std::vector<EngineRequest>& requests, Dice& dice) {
  for (EngineRequest& request : requests)
    request.prompt_ids = any_ids(dice, dice.one_in(3) ? dice.from(1, 200) : dice.from(4000, 8900));
}

}  // namespace tandem::emulated
