// Choosing from the first tokens of a row. Whatever is decided here is what choose() decides from
// the whole row; what these tokens leave open is left to it.
//
// No rule moves a token that is not among the first ones in front of the last of them, unless it
// raises logits: those it may raise are asked for. So the known tokens that, after the rules, do
// not come behind that last one are the first tokens of the row after the rules.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "sampling/rng.h"
#include "sampling/sampler.h"

namespace tandem::sampling {
namespace {

// Of scores: of KnownRow::most_score, absolute and relative, and of sums in FP64.
constexpr double kNoiseError = 1e-3;
constexpr double kScoreError = 1e-6;
constexpr double kScoreSlack = 1e-12;
constexpr double kWeightSlack = 4e-5;  // of weights in FP32, relative to that of the row
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Reused by every sampler of the thread: holds nothing between calls.
KnownTokens& scratch() {
  thread_local KnownTokens instance;
  return instance;
}

enum class Fate { kIn, kOut, kOpen };

// Whether top-p leaves a contender in: whether what comes before it weighs less than top_p of all.
class NucleusTest {
 public:
  NucleusTest(const KnownRow& row, std::optional<std::vector<ChangedToken>> changed,
              const SamplingParams& params)
      : row_(row), changed_(std::move(changed)), params_(params), total_(row.weight) {
    if (!changed_) return;
    for (const ChangedToken& c : *changed_) total_ += weight(c.logit) - weight(c.raw.logit);
  }

  Fate fate_of(const Candidate& token) const {
    if (!changed_ || std::ranges::find(*changed_, token.id, id_of) != changed_->end())
      return Fate::kOpen;
    const auto contender = std::ranges::find(row_.contenders, token.id, &Contender::id);
    if (contender == row_.contenders.end()) return Fate::kOpen;
    auto before = static_cast<double>(contender->weight_before);
    for (const ChangedToken& c : *changed_) {
      if (comes_before({c.logit, c.raw.id}, token)) before += weight(c.logit);
      if (comes_before(c.raw, token)) before -= weight(c.raw.logit);
    }
    const double slack = kWeightSlack * row_.weight;
    const double distance = params_.top_p * total_ - before;
    if (distance > slack) return Fate::kIn;
    return distance < -slack ? Fate::kOut : Fate::kOpen;
  }

 private:
  static int32_t id_of(const ChangedToken& changed) { return changed.raw.id; }
  double weight(float logit) const {
    return token_weight(logit, row_.top.front().logit, params_.temperature);
  }

  const KnownRow& row_;
  std::optional<std::vector<ChangedToken>> changed_;
  const SamplingParams& params_;
  double total_;
};

}  // namespace

std::optional<TokenChoice> Sampler::choose_known(const KnownRow& row, int64_t position,
                                                 TokenMask allowed) const {
  TANDEM_CHECK_GE(position, 0);
  TokenChoice choice;
  if (!row.finite) return choice;
  KnownTokens& known = scratch();
  if (!apply_rules(row, allowed, known)) return std::nullopt;
  if (known.num_first == 0) return row.holds_all_choices() ? std::optional(choice) : std::nullopt;
  const std::optional<int32_t> token = choose_among(row, known, position, !allowed.empty());
  if (!token) return std::nullopt;
  choice.token = *token;
  if (params_.num_logprobs >= 0 && !add_logprobs(row, choice)) return std::nullopt;
  return choice;
}

bool Sampler::raised_are_known(const KnownRow& row) const {
  if (row.holds_all_choices()) return true;
  const auto is_known = [&](int32_t id) { return find_logit(row, id) != nullptr; };
  for (const auto& [id, bias] : params_.logit_bias)
    if (bias > 0 && !is_known(id)) return false;
  return !history_raises() || std::ranges::all_of(output_counts_, [&](const auto& seen) {
    return is_known(seen.first);
  });
}

bool Sampler::apply_rules(const KnownRow& row, TokenMask allowed, KnownTokens& known) const {
  if (!raised_are_known(row)) return false;
  std::vector<Candidate>& sorted = known.sorted;
  sorted.assign(row.top.begin(), row.top.end());
  if (!row.others.empty()) {
    sorted.insert(sorted.end(), row.others.begin(), row.others.end());
    std::ranges::sort(sorted, {}, &Candidate::id);
    const auto repeated = std::ranges::unique(sorted, {}, &Candidate::id);
    sorted.erase(repeated.begin(), repeated.end());
  }
  const std::vector<int32_t> ended = ended_ids();
  bool finite = true;
  size_t kept = 0;
  for (const Candidate& c : sorted) {
    if (!is_allowed(allowed, c.id)) continue;
    const float logit = adjusted(c.id, c.logit, ended);
    finite = finite && logit < kInfinity;
    if (logit > -kInfinity) sorted[kept++] = {logit, c.id};
  }
  sorted.resize(kept);
  std::ranges::sort(sorted, comes_before);
  known.num_first = kept;
  if (row.holds_all_choices()) return finite;
  const auto first = std::ranges::partition_point(
      sorted, [&](const Candidate& c) { return !comes_before(row.top.back(), c); });
  known.num_first = static_cast<size_t>(first - sorted.begin());
  return finite;
}

std::optional<int32_t> Sampler::choose_among(const KnownRow& row, const KnownTokens& known,
                                             int64_t position, bool is_masked) const {
  if (params_.greedy()) return known.sorted.front().id;
  Truncation rules = truncation();
  if (rules.top_k >= vocab_size_) rules.top_k = 0;
  const auto first = std::span(known.sorted).first(known.num_first);
  const Kept kept =
      truncate_first(first, tail_of(row, known, params_.temperature, vocab_size_), rules);
  if (kept.is_all) return draw(first.first(kept.least), first.front().logit, position);
  if (rules.top_k > 0 || !std::isfinite(row.most_score)) return std::nullopt;
  return win_draw(row, known, kept.least, position, is_masked);
}

std::optional<std::vector<ChangedToken>> Sampler::changed_tokens(const KnownRow& row,
                                                                 bool is_masked) const {
  if (is_masked || tracks_history_ || !allowed_ids_.empty() || row.contenders.empty())
    return std::nullopt;
  const std::vector<int32_t> ended = ended_ids();
  std::vector<int32_t> ids = named_ids(ended);
  std::ranges::sort(ids);
  const auto repeated = std::ranges::unique(ids);
  ids.erase(repeated.begin(), repeated.end());
  std::vector<ChangedToken> changed;
  for (const int32_t id : ids) {
    const float* const logit = find_logit(row, id);
    if (logit == nullptr) return std::nullopt;
    changed.push_back({{*logit, id}, adjusted(id, *logit, ended)});
  }
  return changed;
}

std::optional<int32_t> Sampler::win_draw(const KnownRow& row, const KnownTokens& known,
                                         size_t least, int64_t position, bool is_masked) const {
  const double floor = min_p_floor(known.sorted.front().logit, truncation());
  const NucleusTest nucleus(row, changed_tokens(row, is_masked), params_);
  struct Place {
    double score = -std::numeric_limits<double>::infinity();
    int32_t id = kNotFinite;
    bool survives = false;
  };
  Place best;
  Place second;
  for (size_t i = 0; i < known.sorted.size(); ++i) {
    const Candidate& c = known.sorted[i];
    if (static_cast<double>(c.logit) < floor) break;
    // Without top-p whatever is above the floor survives.
    const Fate fate = params_.top_p >= 1 || i < least ? Fate::kIn : nucleus.fate_of(c);
    if (fate == Fate::kOut) continue;
    const Place place = {
        static_cast<double>(c.logit) / params_.temperature + token_noise(seed_, position, c.id),
        c.id, fate == Fate::kIn};
    if (place.score > best.score) {
      second = best;
      best = place;
    } else if (place.score > second.score) {
      second = place;
    }
  }
  const double size = std::abs(best.score) + std::abs(row.most_score) +
                      std::abs(static_cast<double>(row.top.front().logit)) / params_.temperature;
  const bool leads = best.score - second.score > kScoreSlack * size &&
                     best.score - row.most_score > kNoiseError + kScoreError * size;
  return best.survives && leads ? std::optional(best.id) : std::nullopt;
}

bool Sampler::add_logprobs(const KnownRow& row, TokenChoice& choice) const {
  const auto logprob = [&](float logit) { return logprob_of(logit, row.log_sum); };
  choice.logprob = logprob(*find_logit(row, choice.token));
  for (const int32_t id : params_.logprob_token_ids) {
    const float* const logit = find_logit(row, id);
    // Only a row that is known whole tells that a token is at -inf.
    if (logit == nullptr && !row.complete) return false;
    choice.top.push_back({id, logprob(logit == nullptr ? -kInfinity : *logit)});
  }
  if (!choice.top.empty()) return true;
  const auto count = static_cast<size_t>(params_.num_logprobs);
  if (count > row.top.size() && !row.complete) return false;
  for (const Candidate& c : row.top.first(std::min(count, row.top.size())))
    choice.top.push_back({c.id, logprob(c.logit)});
  return true;
}

bool Sampler::needs_no_row(int64_t num_top, int64_t most_asked) const {
  if (tracks_history_ || !allowed_ids_.empty()) return false;
  if (draws_from_all()) return false;
  std::vector<int32_t> asked;
  add_asked_ids(asked);
  if (static_cast<int64_t>(asked.size()) > most_asked) return false;
  // So many of the first tokens the rules may move.
  const size_t moved = never_ids_.size() + (stops_banned() ? stop_ids_.size() : 0) +
                       params_.banned_sequences.size() + params_.logit_bias.size();
  return static_cast<int64_t>(moved) + (params_.greedy() ? 1 : params_.top_k) <= num_top;
}

void Sampler::add_asked_ids(std::vector<int32_t>& ids) const {
  // Where all may be drawn, the weights of tokens that a rule changes are to be known.
  const bool all = draws_from_all();
  for (const auto& [id, bias] : params_.logit_bias)
    if (bias > 0 || all) ids.push_back(id);
  if (all) ids.insert(ids.end(), never_ids_.begin(), never_ids_.end());
  if (all && stops_banned()) ids.insert(ids.end(), stop_ids_.begin(), stop_ids_.end());
  ids.insert(ids.end(), allowed_ids_.begin(), allowed_ids_.end());
  if (params_.num_logprobs >= 0)
    ids.insert(ids.end(), params_.logprob_token_ids.begin(), params_.logprob_token_ids.end());
  if (!history_raises()) return;
  for (const auto& [id, count] : output_counts_) ids.push_back(id);
}

}  // namespace tandem::sampling
