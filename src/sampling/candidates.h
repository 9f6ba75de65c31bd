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

// exp((logit - max) / temperature): the weight of a token, 1 for the likeliest.
double token_weight(float logit, float max_logit, double temperature);

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

// The tokens of a row behind its first ones, as far as they are known.
struct Tail {
  bool empty = false;       // all at -inf
  float largest = 0.0F;     // none has a larger logit
  double least_weight = 0;  // of all together, exp((logit - largest of the row) / temperature)
  double most_weight = 0;   // likewise; may be infinite
};

// By how much less than the largest logit a logit may be for min-p to leave it: at most 0; -inf
// without min-p.
double min_p_depth(const Truncation& truncation);
// In logits: what min-p leaves is at least that.
double min_p_floor(float max_logit, const Truncation& truncation);

// What truncate() leaves of a row that begins with `first`, in candidate order and not empty.
struct Kept {
  size_t least = 0;     // the first so many of them stay
  bool is_all = false;  // and nothing else
};
Kept truncate_first(std::span<const Candidate> first, const Tail& tail,
                    const Truncation& truncation);

}  // namespace tandem::sampling
