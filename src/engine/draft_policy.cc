#include "engine/draft_policy.h"

#include <algorithm>

#include "gpu/step_plan.h"

namespace tandem::engine {
namespace {

constexpr int kMostDrafts = speculation::kMaxDraftTokens;
// Row counts above this share measurements: their times hardly differ.
constexpr int64_t kExactRows = 32;

constexpr double kSequenceDecay = 0.9;
constexpr double kSequencePrior = 4;  // rounds that the chances of all sequences count as
constexpr double kAllDecay = 0.998;
constexpr double kAllPrior = 10;
constexpr double kUnknownChance = 0.7;  // of a pair that belongs together, on mixed text
constexpr int kUnknownTimeDrafts = 4;

// Measurements of other numbers of sequences: a difference of an eighth at least teaches, the
// newest counts a quarter, and no time becomes less than half of itself.
constexpr int64_t kLeastShare = 8;
constexpr double kNewestWeight = 0.25;
constexpr double kLeastMoved = 0.5;

// The first steps try different K in turn, later every 64th does (what plain decoding costs is
// asked most), and each sequence looks one place further in every 32nd round.
constexpr std::array<int, 10> kTries = {4, 0, kMostDrafts, 0, 2, 0, 3, 0, 1, 0};
constexpr int64_t kStepsPerTry = 64;
constexpr int64_t kRoundsPerProbe = 32;

std::vector<int> same_for_all(std::span<const DraftCandidate> candidates, int count) {
  std::vector<int> counts;
  for (const DraftCandidate& candidate : candidates)
    counts.push_back(std::min(count, candidate.max_draft_tokens));
  return counts;
}

// One more drafted token of a candidate, and the tokens that can be expected of it.
struct Increment {
  double gain = 0;
  size_t candidate = 0;
  int place = 0;
};

// Best first. Within a candidate gains fall from place to place, so every beginning of the list
// is a valid choice.
std::vector<Increment> increments(std::span<const double> prior,
                                  std::span<const DraftCandidate> candidates) {
  std::vector<Increment> list;
  list.reserve(candidates.size() * static_cast<size_t>(kMostDrafts));
  for (size_t i = 0; i < candidates.size(); ++i) {
    double gain = 1;
    for (int place = 0; place < candidates[i].max_draft_tokens; ++place) {
      gain *= candidates[i].acceptance->conditional(place, prior[static_cast<size_t>(place)],
                                                    kSequencePrior);
      list.push_back({gain, i, place});
    }
  }
  std::ranges::stable_sort(list, [](const Increment& a, const Increment& b) {
    return a.gain != b.gain ? a.gain > b.gain : a.place < b.place;
  });
  return list;
}

}  // namespace

int64_t rows_paid(int64_t num_rows, int64_t pass_rows) {
  if (pass_rows <= 0) return num_rows;
  const int64_t rest = num_rows % pass_rows;
  if (rest == 0) return num_rows;
  return num_rows - rest + std::min<int64_t>(gpu::padded_rows(rest), pass_rows);
}

int64_t StepTimes::bucket_of(int64_t num_rows) const {
  if (pass_rows_ > 0) return rows_paid(num_rows, pass_rows_);
  if (num_rows <= kExactRows) return num_rows;
  int64_t step = 1;
  while (num_rows / step > kExactRows) step *= 2;
  return num_rows / step * step;
}

void StepTimes::add(speculation::StepTime time, int64_t num_sequences) {
  if (time.num_rows <= 0 || !(time.seconds > 0)) return;
  Samples& samples = by_rows_[bucket_of(time.num_rows)];
  if (samples.settled && !time.settled) return;
  if (!samples.settled && time.settled) samples = {};
  samples.settled = time.settled;
  move(samples, time.seconds, num_sequences);
  samples.seconds[samples.num_added++ % kKept] = time.seconds;
  const size_t count = std::min(samples.num_added, kKept);
  std::array<double, kKept> sorted = samples.seconds;
  std::sort(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(count));
  samples.typical = sorted[(count - 1) / 4];
}

void StepTimes::move(Samples& samples, double newest, int64_t num_sequences) {
  const int64_t more = num_sequences - samples.num_sequences;
  if (samples.num_added > 0 && samples.num_sequences > 0 && num_sequences > 0 && more != 0) {
    // Of a few sequences more or less the difference is noise.
    if (std::abs(more) * kLeastShare >= num_sequences) {
      const double found = std::clamp((newest - samples.typical) / static_cast<double>(more), 0.0,
                                      newest / static_cast<double>(num_sequences));
      per_sequence_ += (per_sequence_ == 0 ? 1.0 : kNewestWeight) * (found - per_sequence_);
    }
    const double moved = seconds_of(samples, num_sequences) - samples.typical;
    for (double& seconds : samples.seconds)
      seconds = std::max(seconds + moved, kLeastMoved * seconds);
  }
  samples.num_sequences = num_sequences;
}

double StepTimes::seconds_of(const Samples& samples, int64_t num_sequences) const {
  if (samples.num_sequences == 0 || num_sequences == 0) return samples.typical;
  const auto more = static_cast<double>(num_sequences - samples.num_sequences);
  return std::max(samples.typical + more * per_sequence_, kLeastMoved * samples.typical);
}

std::optional<double> StepTimes::at(int64_t num_rows, int64_t num_sequences) const {
  if (by_rows_.empty()) return std::nullopt;
  if (pass_rows_ > 0) num_rows = bucket_of(num_rows);
  const auto seconds = [&](auto entry) { return seconds_of(entry->second, num_sequences); };
  const auto above = by_rows_.lower_bound(num_rows);
  if (above != by_rows_.end() && (above->first == num_rows || above == by_rows_.begin()))
    return seconds(above);
  const auto below = std::prev(above);
  const double base = seconds(below);
  const auto extra = static_cast<double>(num_rows - below->first);
  if (above != by_rows_.end())
    return base +
           (seconds(above) - base) * extra / static_cast<double>(above->first - below->first);
  // Beyond all that was measured: as steep as the measured ones are on the whole.
  const auto first = by_rows_.begin();
  const double rows = static_cast<double>(below->first - first->first);
  const double slope =
      rows > 0 ? (base - seconds(first)) / rows : base / static_cast<double>(below->first);
  return base + std::max(slope, 0.0) * extra;
}

std::vector<double> StepTimes::from(size_t first, size_t count, int64_t num_sequences) const {
  std::vector<double> seconds;
  seconds.reserve(count);
  int64_t last_bucket = -1;
  for (size_t i = first; i < first + count; ++i) {
    const auto num_rows = static_cast<int64_t>(i);
    const int64_t bucket = pass_rows_ > 0 ? bucket_of(num_rows) : num_rows;
    seconds.push_back(bucket == last_bucket ? seconds.back()
                                            : at(num_rows, num_sequences).value_or(0));
    last_bucket = bucket;
  }
  return seconds;
}

void AcceptanceEstimate::add_round(int num_drafted, int num_accepted, double decay) {
  ++num_rounds;
  const int num_tried = std::min(num_drafted, num_accepted + 1);
  for (int i = 0; i < num_tried; ++i) {
    const auto place = static_cast<size_t>(i);
    tried[place] = tried[place] * decay + 1;
    held[place] = held[place] * decay + (i < num_accepted ? 1 : 0);
  }
}

double AcceptanceEstimate::conditional(int place, double prior, double weight) const {
  const auto i = static_cast<size_t>(place);
  return (held[i] + weight * prior) / (tried[i] + weight);
}

std::vector<int> best_draft_counts(const StepTimes& verify, const StepTimes& draft,
                                   DraftSteps steps, std::span<const double> prior,
                                   std::span<const DraftCandidate> candidates) {
  const size_t num_rows = candidates.size();
  const auto num_sequences = static_cast<int64_t>(num_rows);
  if (!verify.at(num_sequences)) return same_for_all(candidates, kUnknownTimeDrafts);
  const std::vector<Increment> list = increments(prior, candidates);
  // Looked up once: this stands between two steps of the device.
  const std::vector<double> verify_seconds = verify.from(num_rows, list.size() + 1, num_sequences);
  const std::vector<double> draft_seconds = draft.from(1, num_rows);
  double best_rate = static_cast<double>(num_rows) / verify_seconds.front();
  size_t best_length = 0;  // of the list, of which places below best_depth count
  int best_depth = 0;
  const int most =
      std::ranges::max(candidates, {}, &DraftCandidate::max_draft_tokens).max_draft_tokens;
  // A draft step costs the same for one more row or nearly so: hence each depth on its own.
  for (int depth = 1; depth <= most; ++depth) {
    std::array<size_t, kMostDrafts> at_place{};  // candidates that draft so far
    std::array<double, kMostDrafts> drafting{};  // seconds
    double all_drafting = 0;
    int deepest = 0;
    auto num_tokens = static_cast<double>(num_rows);
    size_t num_added = 0;
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].place >= depth) continue;
      num_tokens += list[i].gain;
      const auto place = static_cast<size_t>(list[i].place);
      const double longer = draft_seconds[at_place[place]++];
      all_drafting += longer - drafting[place];
      drafting[place] = longer;
      deepest = std::max(deepest, list[i].place + 1);
      if (steps == DraftSteps::kOfAll) all_drafting = deepest * drafting[0];
      const double rate = num_tokens / (verify_seconds[++num_added] + all_drafting);
      if (rate <= best_rate) continue;
      best_rate = rate;
      best_length = i + 1;
      best_depth = depth;
    }
  }
  std::vector<int> counts(candidates.size(), 0);
  for (size_t i = 0; i < best_length; ++i)
    if (list[i].place < best_depth) ++counts[list[i].candidate];
  return counts;
}

std::vector<int> DraftPolicy::choose(std::span<const DraftCandidate> candidates) {
  if (candidates.empty()) return {};
  const int64_t turn = num_choices_++;
  constexpr auto kNumTries = static_cast<int64_t>(kTries.size());
  const auto tried = [&](int64_t number) {
    return same_for_all(candidates, kTries[static_cast<size_t>(number % kNumTries)]);
  };
  if (turn < 2 * kNumTries) return tried(turn);
  if (turn % kStepsPerTry == 0) return tried(turn / kStepsPerTry);
  std::array<double, kMostDrafts> prior{};
  for (int place = 0; place < kMostDrafts; ++place)
    prior[static_cast<size_t>(place)] = all_.conditional(place, kUnknownChance, kAllPrior);
  std::vector<int> counts = best_draft_counts(
      verify_, draft_, pass_rows_ > 0 ? DraftSteps::kOfAll : DraftSteps::kOfThoseLeft, prior,
      candidates);
  add_probes(candidates, counts);
  return counts;
}

void DraftPolicy::add_probes(std::span<const DraftCandidate> candidates,
                             std::vector<int>& counts) const {
  auto num_rows = static_cast<int64_t>(counts.size());
  for (const int count : counts) num_rows += count;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (candidates[i].acceptance->num_rounds % kRoundsPerProbe != kRoundsPerProbe - 1) continue;
    if (counts[i] >= candidates[i].max_draft_tokens) continue;
    if (pass_rows_ > 0 && rows_paid(num_rows + 1, pass_rows_) > rows_paid(num_rows, pass_rows_))
      return;
    ++counts[i];
    ++num_rows;
  }
}

void DraftPolicy::add_step(const speculation::SpecResult& result, bool decodes_only) {
  for (const speculation::StepTime& time : result.draft_times) draft_.add(time);
  if (decodes_only) verify_.add(result.verify_time, static_cast<int64_t>(result.sequences.size()));
}

void DraftPolicy::add_round(AcceptanceEstimate& sequence, int num_drafted, int num_accepted) {
  sequence.add_round(num_drafted, num_accepted, kSequenceDecay);
  all_.add_round(num_drafted, num_accepted, kAllDecay);
}

}  // namespace tandem::engine
