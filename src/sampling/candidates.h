// Truncation of a distribution: which tokens may be drawn. Pure functions of the logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tandem::sampling {

struct Candidate {
  float logit = 0.0F;
  int32_t id = 0;
};

// The one order of candidates: likeliest first, the lower id first among equals.
constexpr bool comes_before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

struct Truncation {
  double temperature = 1.0;  // > 0
  int64_t top_k = 0;         // <= 0: off
  double top_p = 1.0;
  double min_p = 0.0;
};

// The largest logit and the lowest id that has it; id -1 when every logit is -inf. `finite` is
// false when the row holds NaN or +inf anywhere.
struct RowMax {
  float logit = 0.0F;
  int32_t id = -1;
  bool finite = true;
};
RowMax row_max(std::span<const float> logits);

// The first `count` tokens in candidate order, sorted; tokens at -inf are no candidates.
// One pass, no sort of the whole row. `out` is overwritten.
void select_top(std::span<const float> logits, int64_t count, std::vector<Candidate>& out);

// The tokens that survive temperature, then top-k (exactly k: ties go to the lower id), then top-p
// (the shortest prefix in candidate order whose share of the top-k mass reaches top_p), then min-p
// (at least min_p times the largest probability). Never empty unless the row has no candidate.
// In no particular order. `max_logit` is row_max().logit.
void truncate(std::span<const float> logits, float max_logit, const Truncation& truncation,
              std::vector<Candidate>& out);

// The same where top_k is on, from the first top_k tokens of the row, or all of them if there are
// fewer, in candidate order.
void truncate_top(std::span<const Candidate> top, const Truncation& truncation,
                  std::vector<Candidate>& out);

}  // namespace tandem::sampling
