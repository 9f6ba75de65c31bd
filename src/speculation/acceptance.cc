#include "speculation/acceptance.h"

#include <algorithm>
#include <cmath>

namespace tandem::speculation {

void AcceptanceStats::add_round(int num_drafted, int num_accepted) {
  if (num_drafted == 0) return;
  ++num_drafts;
  num_draft_tokens += num_drafted;
  num_accepted_tokens += num_accepted;
  for (int i = 0; i < num_drafted; ++i) ++proposed_per_pos[static_cast<size_t>(i)];
  for (int i = 0; i < num_accepted; ++i) ++accepted_per_pos[static_cast<size_t>(i)];
}

void AcceptanceStats::add(const AcceptanceStats& other) {
  num_drafts += other.num_drafts;
  num_draft_tokens += other.num_draft_tokens;
  num_accepted_tokens += other.num_accepted_tokens;
  for (size_t i = 0; i < proposed_per_pos.size(); ++i) {
    proposed_per_pos[i] += other.proposed_per_pos[i];
    accepted_per_pos[i] += other.accepted_per_pos[i];
  }
}

AcceptanceStats AcceptanceStats::since(const AcceptanceStats& before) const {
  AcceptanceStats later = *this;
  later.num_drafts -= before.num_drafts;
  later.num_draft_tokens -= before.num_draft_tokens;
  later.num_accepted_tokens -= before.num_accepted_tokens;
  for (size_t i = 0; i < proposed_per_pos.size(); ++i) {
    later.proposed_per_pos[i] -= before.proposed_per_pos[i];
    later.accepted_per_pos[i] -= before.accepted_per_pos[i];
  }
  return later;
}

double AcceptanceStats::acceptance_rate() const {
  return num_draft_tokens == 0
             ? 0.0
             : static_cast<double>(num_accepted_tokens) / static_cast<double>(num_draft_tokens);
}

double AcceptanceStats::mean_acceptance_length() const {
  return num_drafts == 0
             ? 1.0
             : 1.0 + static_cast<double>(num_accepted_tokens) / static_cast<double>(num_drafts);
}

double AcceptanceStats::rate_at(int position) const {
  return num_drafts == 0 ? 0.0
                         : static_cast<double>(accepted_per_pos[static_cast<size_t>(position)]) /
                               static_cast<double>(num_drafts);
}

base::Result<SyntheticAcceptance> SyntheticAcceptance::from_length(double length,
                                                                   int num_draft_tokens) {
  if (!(length >= 1.0 && length <= num_draft_tokens + 1.0))
    return base::invalid("synthetic_acceptance_length: expected 1 to {}, got {}",
                         num_draft_tokens + 1, length);
  SyntheticAcceptance acceptance;
  for (int i = 0; i < num_draft_tokens; ++i)
    acceptance.rates.push_back(std::clamp(length - 1.0 - i, 0.0, 1.0));
  return acceptance;
}

base::Result<SyntheticAcceptance> SyntheticAcceptance::from_constant_rate(double length,
                                                                          int num_draft_tokens) {
  auto checked = from_length(length, num_draft_tokens);
  if (!checked) return checked;
  // The sum grows with c, so halving the interval finds it.
  double low = 0.0;
  double high = 1.0;
  for (int step = 0; step < 60; ++step) {
    const double rate = (low + high) / 2;
    double sum = 0.0;
    for (int i = 1; i <= num_draft_tokens; ++i) sum += std::pow(rate, i);
    (sum < length - 1.0 ? low : high) = rate;
  }
  for (int i = 0; i < num_draft_tokens; ++i)
    checked->rates[static_cast<size_t>(i)] = std::pow(high, i + 1);
  return checked;
}

base::Result<SyntheticAcceptance> SyntheticAcceptance::from_rates(std::vector<double> rates) {
  double previous = 1.0;
  for (size_t i = 0; i < rates.size(); ++i) {
    if (!(rates[i] >= 0.0 && rates[i] <= previous))
      return base::invalid("synthetic_acceptance_rates: position {}: expected 0 to {}, got {}", i,
                           previous, rates[i]);
    previous = rates[i];
  }
  return SyntheticAcceptance{std::move(rates)};
}

double SyntheticAcceptance::conditional(int position) const {
  const auto i = static_cast<size_t>(position);
  if (i >= rates.size()) return 0.0;
  const double before = i == 0 ? 1.0 : rates[i - 1];
  return before == 0.0 ? 0.0 : rates[i] / before;
}

}  // namespace tandem::speculation
