#include "sampling/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "base/check.h"
#include "sampling/candidates.h"
#include "sampling/rng.h"

namespace tandem::sampling {
namespace {

constexpr float kNegativeInfinity = -std::numeric_limits<float>::infinity();

// Grows to one row and is reused by every sampler of the thread: holds nothing between calls.
struct Scratch {
  std::vector<float> logits;  // [vocab_size]
  std::vector<Candidate> candidates;
};
Scratch& scratch() {
  thread_local Scratch instance;
  return instance;
}

// The upper halves of the tokens' noise; neighbours share one block.
class NoiseWords {
 public:
  NoiseWords(uint64_t seed, int64_t position) : seed_(seed), position_(position) {}
  uint32_t high(uint32_t id) {
    if (id / 4 != block_) {
      block_ = id / 4;
      words_ = random_block(seed_, position_, Purpose::kTokenHigh, block_);
    }
    return words_[id % 4];
  }
  uint32_t low(uint32_t id) const { return random_word(seed_, position_, Purpose::kTokenLow, id); }

 private:
  uint64_t seed_;
  int64_t position_;
  uint32_t block_ = std::numeric_limits<uint32_t>::max();
  PhiloxCounter words_{};
};

// An upper bound of gumbel_from_bits(high, any): g <= -log(v), v >= high / 2^32 >= 2^-(1 + zeros).
double gumbel_bound(uint32_t high) {
  if (high == 0) return std::numeric_limits<double>::infinity();
  return (1 + std::countl_zero(high)) * std::numbers::ln2 + 1e-9;
}

void fill_logprobs(std::span<const float> logits, float max_logit, const SamplingParams& params,
                   TokenChoice& choice) {
  const double log_sum = log_sum_exp(logits, max_logit);
  const auto logprob = [&](float logit) { return logprob_of(logit, log_sum); };
  choice.logprob = logprob(logits[static_cast<size_t>(choice.token)]);
  for (const int32_t id : params.logprob_token_ids)
    choice.top.push_back({id, logprob(logits[static_cast<size_t>(id)])});
  if (!choice.top.empty()) return;
  auto& candidates = scratch().candidates;
  select_top(logits, params.num_logprobs, candidates);
  choice.top.reserve(candidates.size());
  for (const Candidate& c : candidates) choice.top.push_back({c.id, logprob(c.logit)});
}

}  // namespace

void keep_allowed(TokenMask allowed, std::span<float> logits) {
  if (allowed.empty()) return;
  TANDEM_CHECK_GE(allowed.size() * 32, logits.size());
  for (size_t begin = 0; begin < logits.size(); begin += 32) {
    const size_t count = std::min<size_t>(32, logits.size() - begin);
    const uint32_t inside = count == 32 ? ~0U : (1U << count) - 1;
    for (uint32_t off = ~allowed[begin / 32] & inside; off != 0; off &= off - 1)
      logits[begin + static_cast<size_t>(std::countr_zero(off))] = kNegativeInfinity;
  }
}

Sampler::Sampler(SamplingParams params, int64_t vocab_size, std::span<const int32_t> prompt_ids,
                 std::vector<int32_t> suppress_tokens, std::vector<int32_t> eos_ids, uint64_t seed)
    : params_(std::move(params)),
      vocab_size_(vocab_size),
      suppress_tokens_(std::move(suppress_tokens)),
      stop_ids_(std::move(eos_ids)),
      seed_(seed),
      tracks_history_(params_.presence_penalty != 0 || params_.frequency_penalty != 0 ||
                      params_.repetition_penalty != 1) {
  const auto valid = validate(params_, vocab_size_);
  TANDEM_CHECK_MSG(valid.has_value(), "{}", valid.error().message);
  stop_ids_.insert(stop_ids_.end(), params_.stop_token_ids.begin(), params_.stop_token_ids.end());
  for (const int32_t id : suppress_tokens_) TANDEM_CHECK(id >= 0 && id < vocab_size_);
  never_ids_ = suppress_tokens_;
  never_ids_.insert(never_ids_.end(), params_.banned_token_ids.begin(),
                    params_.banned_token_ids.end());
  allowed_ids_ = params_.allowed_token_ids;
  std::ranges::sort(never_ids_);
  std::ranges::sort(allowed_ids_);
  std::ranges::sort(stop_ids_);
  // Biases of one token are added in the order in which they came.
  std::ranges::stable_sort(params_.logit_bias, {}, &std::pair<int32_t, float>::first);
  for (const int32_t id : stop_ids_) TANDEM_CHECK(id >= 0 && id < vocab_size_);
  for (const auto& sequence : params_.banned_sequences)
    longest_banned_ = std::max(longest_banned_, sequence.size());
  if (params_.repetition_penalty != 1)
    for (const int32_t id : prompt_ids) output_counts_.try_emplace(id, 0);
}

void Sampler::commit(int32_t token) {
  TANDEM_CHECK(token >= 0 && token < vocab_size_);
  ++num_output_tokens_;
  if (tracks_history_) ++output_counts_[token];
  if (longest_banned_ < 2) return;
  recent_.push_back(token);
  if (recent_.size() >= longest_banned_) recent_.erase(recent_.begin());
}

bool Sampler::adjusts_logits() const {
  return !params_.logit_bias.empty() || !params_.banned_token_ids.empty() ||
         !params_.banned_sequences.empty() || !params_.allowed_token_ids.empty() ||
         (tracks_history_ && !output_counts_.empty()) || (stops_banned() && !stop_ids_.empty());
}

bool Sampler::history_raises() const {
  return params_.presence_penalty < 0 || params_.frequency_penalty < 0 ||
         params_.repetition_penalty < 1;
}

bool Sampler::is_plain() const {
  return params_.num_logprobs < 0 && !tracks_history_ && !adjusts_logits();
}

float Sampler::adjusted(int32_t id, float logit, std::span<const int32_t> ended) const {
  const auto holds = [id](const auto& sorted) { return std::ranges::binary_search(sorted, id); };
  const auto names = [id](const auto& ids) { return std::ranges::find(ids, id) != ids.end(); };
  if (holds(never_ids_) || names(ended) || (stops_banned() && holds(stop_ids_)) ||
      (!allowed_ids_.empty() && !holds(allowed_ids_)))
    return kNegativeInfinity;
  const auto biases =
      std::ranges::equal_range(params_.logit_bias, id, {}, &std::pair<int32_t, float>::first);
  for (const auto& [biased, bias] : biases) logit += bias;
  return tracks_history_ ? penalized(id, logit) : logit;
}

float Sampler::penalized(int32_t id, float logit) const {
  const auto found = output_counts_.find(id);
  if (found == output_counts_.end()) return logit;
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  const auto frequency = static_cast<float>(params_.frequency_penalty);
  const auto presence = static_cast<float>(params_.presence_penalty);
  logit = logit > 0 ? logit / repetition : logit * repetition;
  const int32_t count = found->second;
  return count > 0 ? logit - (frequency * static_cast<float>(count) + presence) : logit;
}

void Sampler::adjust_logits(std::span<const float> logits, TokenMask allowed,
                            std::vector<float>& row) const {
  if (allowed_ids_.empty()) {
    row.assign(logits.begin(), logits.end());
    keep_allowed(allowed, row);
  } else {
    row.assign(logits.size(), kNegativeInfinity);
  }
  const std::vector<int32_t> ended = ended_ids();
  // All other logits stay.
  const auto adjust = [&](int32_t id) {
    const auto i = static_cast<size_t>(id);
    row[i] = is_allowed(allowed, id) ? adjusted(id, logits[i], ended) : kNegativeInfinity;
  };
  std::ranges::for_each(named_ids(ended), adjust);
}

std::vector<int32_t> Sampler::named_ids(std::span<const int32_t> ended) const {
  std::vector<int32_t> ids = never_ids_;
  ids.insert(ids.end(), ended.begin(), ended.end());
  if (stops_banned()) ids.insert(ids.end(), stop_ids_.begin(), stop_ids_.end());
  ids.insert(ids.end(), allowed_ids_.begin(), allowed_ids_.end());
  for (const auto& [id, bias] : params_.logit_bias) ids.push_back(id);
  for (const auto& [id, count] : output_counts_) ids.push_back(id);
  return ids;
}

std::vector<int32_t> Sampler::ended_ids() const {
  std::vector<int32_t> ids;
  for (const std::vector<int32_t>& sequence : params_.banned_sequences) {
    const auto count = static_cast<std::ptrdiff_t>(sequence.size()) - 1;
    if (count > static_cast<std::ptrdiff_t>(recent_.size())) continue;
    const bool begun =
        std::equal(recent_.end() - count, recent_.end(), sequence.begin(), sequence.end() - 1);
    if (begun) ids.push_back(sequence.back());
  }
  return ids;
}

TokenChoice Sampler::choose(std::span<const float> logits, int64_t position,
                            TokenMask allowed) const {
  TokenChoice choice;
  const RowMax raw = row_max(logits);
  choice.token = choose_token(logits, raw, position, allowed);
  if (choice.token != kNotFinite && params_.num_logprobs >= 0)
    fill_logprobs(logits, raw.logit, params_, choice);
  return choice;
}

int32_t Sampler::guess(std::span<const float> logits, int64_t position) const {
  return choose_token(logits, row_max(logits), position, {});
}

int32_t Sampler::choose_token(std::span<const float> logits, const RowMax& raw, int64_t position,
                              TokenMask allowed) const {
  TANDEM_CHECK_EQ(static_cast<int64_t>(logits.size()), vocab_size_);
  TANDEM_CHECK_GE(position, 0);
  if (!raw.finite) return kNotFinite;
  RowMax best = raw;
  std::span<const float> adjusted = logits;
  // A suppressed token is rarely the largest: greedy rows are almost always one scan.
  const bool hits_suppressed =
      std::find(suppress_tokens_.begin(), suppress_tokens_.end(), raw.id) != suppress_tokens_.end();
  const bool suppresses = params_.greedy() ? hits_suppressed : !suppress_tokens_.empty();
  if (suppresses || !allowed.empty() || adjusts_logits()) {
    auto& row = scratch().logits;
    adjust_logits(logits, allowed, row);
    best = row_max(row);
    adjusted = row;
  }
  if (!best.finite || best.id < 0) return kNotFinite;
  if (params_.greedy()) return best.id;
  auto& candidates = scratch().candidates;
  truncate(adjusted, best.logit, truncation(), candidates);
  return draw(candidates, best.logit, position);
}

Truncation Sampler::truncation() const {
  return {.temperature = params_.temperature,
          .top_k = params_.top_k,
          .top_p = params_.top_p,
          .min_p = params_.min_p};
}

int32_t Sampler::draw(std::span<const Candidate> candidates, float max_logit,
                      int64_t position) const {
  TANDEM_CHECK(!candidates.empty());
  NoiseWords noise(seed_, position);
  double best_score = -std::numeric_limits<double>::infinity();
  int32_t best_id = kNotFinite;
  for (const Candidate& c : candidates) {
    const double scaled =
        (static_cast<double>(c.logit) - static_cast<double>(max_logit)) / params_.temperature;
    const auto id = static_cast<uint32_t>(c.id);
    const uint32_t high = noise.high(id);
    // Most of a large vocabulary cannot win whatever its lower bits: no logarithm for those.
    if (scaled + gumbel_bound(high) < best_score) continue;
    const double score = scaled + gumbel_from_bits(high, noise.low(id));
    if (score > best_score || (score == best_score && c.id < best_id)) {
      best_score = score;
      best_id = c.id;
    }
  }
  return best_id;
}

}  // namespace tandem::sampling
