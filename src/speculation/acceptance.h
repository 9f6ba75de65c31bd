// How accepted drafts are counted, and synthetic acceptance for benchmarks. Pure arithmetic.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/status.h"

namespace tandem::speculation {

inline constexpr int kMaxDraftTokens = 8;

// Counters of a run or of one request (speculation.md 9).
struct AcceptanceStats {
  int64_t num_drafts = 0;           // rounds with at least one proposed token
  int64_t num_draft_tokens = 0;     // proposed
  int64_t num_accepted_tokens = 0;  // the bonus token is not counted
  std::array<int64_t, kMaxDraftTokens> proposed_per_pos{};
  std::array<int64_t, kMaxDraftTokens> accepted_per_pos{};

  void add_round(int num_drafted, int num_accepted);
  void add(const AcceptanceStats& other);
  // What came behind `before`, an earlier state of these counters.
  AcceptanceStats since(const AcceptanceStats& before) const;
  // accepted / proposed; 0 before the first draft.
  double acceptance_rate() const;
  // 1 + accepted / drafts, the bonus included; 1 before the first draft.
  double mean_acceptance_length() const;
  // Share of drafts that accepted position i (0-based): unconditional, not increasing.
  double rate_at(int position) const;
};

// Accepts position i whatever the tokens are, with probability rates[i] / rates[i - 1]. Every
// report made with it says "synthetic".
struct SyntheticAcceptance {
  std::vector<double> rates;  // unconditional, not increasing, in [0, 1]

  // vLLM: 1 for the first floor(length - 1) positions, the fraction for the next, 0 after.
  static base::Result<SyntheticAcceptance> from_length(double length, int num_draft_tokens);
  // llama.cpp: a constant conditional rate c with c + c^2 + ... + c^K = length - 1.
  static base::Result<SyntheticAcceptance> from_constant_rate(double length, int num_draft_tokens);
  static base::Result<SyntheticAcceptance> from_rates(std::vector<double> rates);

  // Chance of accepting position i (0-based) when i - 1 was accepted.
  double conditional(int position) const;
};

}  // namespace tandem::speculation
