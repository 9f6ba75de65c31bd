// How many tokens each sequence drafts ("num_speculative_tokens": "auto"): arithmetic on measured
// step times and on what was accepted. The text never depends on it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "speculation/acceptance.h"
#include "speculation/spec_batch.h"

namespace tandem::engine {

// What `num_rows` rows of a step cost as many as: a device that takes passes of `pass_rows` rows
// pads each to what kernels take (gpu::padded_rows()). pass_rows 0: every row has its price.
int64_t rows_paid(int64_t num_rows, int64_t pass_rows);

// Seconds of a step by its number of rows; each a low one of the last few measurements, as what
// disturbs a step only makes it longer. Settled measurements take the place of others. What a
// sequence more costs at the same number of rows, its keys above all, is learned where a number of
// rows comes with another number of sequences, and what was measured with fewer is moved by it.
class StepTimes {
 public:
  explicit StepTimes(int64_t pass_rows = 0) : pass_rows_(pass_rows) {}
  // num_sequences 0: it makes no difference.
  void add(speculation::StepTime time, int64_t num_sequences = 0);
  // On the line between the measured row counts around it. Nothing before the first measurement.
  std::optional<double> at(int64_t num_rows, int64_t num_sequences = 0) const;
  // Of first .. first + count - 1 rows; 0: nothing is known.
  std::vector<double> from(size_t first, size_t count, int64_t num_sequences = 0) const;

 private:
  static constexpr size_t kKept = 8;
  struct Samples {
    std::array<double, kKept> seconds{};
    size_t num_added = 0;
    double typical = 0;
    bool settled = false;
    int64_t num_sequences = 0;
  };
  int64_t bucket_of(int64_t num_rows) const;
  // Takes samples of other numbers of sequences to this one.
  void move(Samples& samples, double newest, int64_t num_sequences);
  double seconds_of(const Samples& samples, int64_t num_sequences) const;

  int64_t pass_rows_;
  std::map<int64_t, Samples> by_rows_;
  double per_sequence_ = 0;
};

// Running acceptance by place in the draft. A place is tried when all before it held.
struct AcceptanceEstimate {
  std::array<double, speculation::kMaxDraftTokens> tried{};
  std::array<double, speculation::kMaxDraftTokens> held{};
  int64_t num_rounds = 0;

  // What was before counts `decay` times as much as this round.
  void add_round(int num_drafted, int num_accepted, double decay);
  // The chance that a place holds when those before it do; `prior` counts as much as `weight`
  // rounds.
  double conditional(int place, double prior, double weight) const;
};

// A sequence that decodes in the next step.
struct DraftCandidate {
  const AcceptanceEstimate* acceptance = nullptr;
  int max_draft_tokens = 0;  // 0 to kMaxDraftTokens
};

// Who takes part in a step of the assistant: those that draft so far, or all that draft at all.
enum class DraftSteps { kOfThoseLeft, kOfAll };

// For each candidate the K with which all of them together get the most tokens per second. `prior`:
// the chances of a sequence of which nothing is known.
std::vector<int> best_draft_counts(const StepTimes& verify, const StepTimes& draft,
                                   DraftSteps steps, std::span<const double> prior,
                                   std::span<const DraftCandidate> candidates);

// pass_rows > 0: of a GPU, where draft steps are of all.
class DraftPolicy {
 public:
  explicit DraftPolicy(int64_t pass_rows = 0)
      : pass_rows_(pass_rows), verify_(pass_rows), draft_(pass_rows) {}

  // K of each candidate. Now and then another one than the best, so that times and chances that
  // have become better are noticed.
  std::vector<int> choose(std::span<const DraftCandidate> candidates);
  // After the step. `decodes_only`: no prefill chunk took part, so its time is that of its rows.
  void add_step(const speculation::SpecResult& result, bool decodes_only);
  void add_round(AcceptanceEstimate& sequence, int num_drafted, int num_accepted);

 private:
  // Lets sequences look one place further where that costs no padded rows.
  void add_probes(std::span<const DraftCandidate> candidates, std::vector<int>& counts) const;

  int64_t pass_rows_;
  StepTimes verify_;
  StepTimes draft_;
  AcceptanceEstimate all_;
  int64_t num_choices_ = 0;
};

}  // namespace tandem::engine
