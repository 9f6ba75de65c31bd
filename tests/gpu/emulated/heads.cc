// The kernels behind a head: logits, what the host wants to know of them, draws.
#include "tests/gpu/emulated/heads.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "ops/argmax.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/draw.h"
#include "ops/cuda/row_facts.h"
#include "sampling/candidates.h"
#include "sampling/rng.h"
#include "tests/gpu/emulated/device.h"
#include "tests/gpu/emulated/places.h"
#include "tests/gpu/emulated/text.h"

namespace tandem::emulated {

int32_t greedy_token(std::span<const float> logits, std::span<const int32_t> suppressed) {
  if (!sampling::row_max(logits).finite) return ops::kNotFinite;
  int32_t best = ops::kNotFinite;
  for (int32_t id = 0; id < kVocab; ++id)
    if (std::ranges::find(suppressed, id) == suppressed.end() &&
        (best < 0 || logits[static_cast<size_t>(id)] > logits[static_cast<size_t>(best)]))
      best = id;
  return best;
}

void find_likeliest(std::span<const float> logits, int most, ops::cuda::Likeliest& out) {
  out.count = 0;
  out.status = sampling::row_max(logits).finite ? 1 : 0;
  if (out.status == 0) return;
  std::vector<sampling::Candidate> top;
  sampling::select_top(logits, most, top);
  for (const sampling::Candidate& candidate : top) {
    out.logits[out.count] = candidate.logit;
    out.ids[out.count++] = candidate.id;
  }
}

}  // namespace tandem::emulated

namespace tandem::ops::cuda {
namespace {

using emulated::device;
using emulated::fault;
using emulated::kVocab;
using emulated::submit;
using sampling::Candidate;

void find_target(const float* row, int32_t target, RowFacts& facts) {
  facts.target_logit = row[target];
  facts.target_rank = 0;
  for (int32_t id = 0; id < kVocab; ++id)
    if (sampling::comes_before({row[id], id}, {row[target], target})) ++facts.target_rank;
}

// Scores as the device has them, in FP32.
void find_contenders(const float* row, const Draw& draw, int32_t position, RowFacts& facts) {
  std::vector<Candidate> scores, ranks;
  for (int32_t id = 0; id < kVocab; ++id) {
    const auto noise = static_cast<float>(sampling::token_noise(draw.seed, position + 1, id));
    scores.push_back({row[id] * draw.inverse_temperature + noise, id});
    ranks.push_back({row[id], id});
  }
  std::ranges::sort(scores, sampling::comes_before);
  std::ranges::sort(ranks, sampling::comes_before);
  std::vector<float> before(kVocab);
  double weight = 0.0;
  for (const Candidate& candidate : ranks) {
    before[static_cast<size_t>(candidate.id)] = static_cast<float>(weight);
    weight += std::exp((double{candidate.logit} - double{ranks[0].logit}) *
                       double{draw.inverse_temperature});
  }
  facts.num_contenders = kContenders;
  facts.last_score = scores[kContenders - 1].logit;
  facts.weight = static_cast<float>(weight);
  for (size_t i = 0; i < kContenders; ++i) {
    facts.contender_ids[i] = scores[i].id;
    facts.contender_logits[i] = row[scores[i].id];
    facts.weight_before[i] = before[static_cast<size_t>(scores[i].id)];
  }
}

void find_facts(const RowFactsJob& job, int r, RowFacts& facts) {
  const float* const row = job.logits + int64_t{r} * kVocab;
  emulated::find_likeliest({row, kVocab}, kLikeliest, facts.likeliest);
  facts.num_contenders = 0;
  if (facts.likeliest.status == 0) return;
  double sum = 0.0;
  for (int id = 0; id < kVocab; ++id)
    sum += std::exp(double{row[id]} - double{facts.likeliest.logits[0]});
  facts.sum = static_cast<float>(sum);
  if (job.targets != nullptr && job.targets[r] >= 0) find_target(row, job.targets[r], facts);
  const int sequence = job.sequences == nullptr ? -1 : job.sequences[r];
  for (int i = 0; i < kMaxAsked; ++i) {
    const int32_t id =
        job.asked == nullptr || sequence < 0 ? -1 : job.asked[sequence * kMaxAsked + i];
    facts.asked[i] = id < 0 ? std::numeric_limits<float>::quiet_NaN() : row[id];
  }
  if (job.draws != nullptr && sequence >= 0 && job.draws[sequence].inverse_temperature > 0.0F)
    find_contenders(row, job.draws[sequence], job.positions[r], facts);
}

// Of what top-k and the suppressed ids leave.
int32_t draw_from(std::span<const Candidate> kept, const DrawRules& rules, int32_t position) {
  const auto depth = [&](const Candidate& candidate) {
    return double{candidate.logit} - double{kept[0].logit};
  };
  double total = 0.0;
  for (const Candidate& candidate : kept) total += std::exp(depth(candidate) / rules.temperature);
  double before = 0.0;
  double best = -std::numeric_limits<double>::infinity();
  int32_t token = -1;
  for (const Candidate& candidate : kept) {
    const bool in_share = rules.top_p >= 1.0 || before < rules.top_p * total;
    before += std::exp(depth(candidate) / rules.temperature);
    if (!in_share || depth(candidate) < rules.min_p_depth) continue;
    const double score = depth(candidate) / rules.temperature +
                         sampling::token_noise(rules.seed, position + 1, candidate.id);
    if (score <= best) continue;
    best = score;
    token = candidate.id;
  }
  return token;
}

int32_t draw_token(const DrawTokens& op, int r) {
  if (op.sequences[r] < 0) return -1;
  const auto& row = *reinterpret_cast<const Likeliest*>(static_cast<const char*>(op.likeliest) +
                                                        static_cast<size_t>(r) * op.stride);
  const DrawRules& rules = op.rules[op.sequences[r]];
  if (row.status == 0) return -1;
  if (row.status < 0 ||
      (rules.temperature > 0.0 && device().happens(device().settings.undecided_share))) {
    ++device().counts.undecided;
    return kUndecided;
  }
  const std::span suppressed(op.suppressed, static_cast<size_t>(op.num_suppressed));
  std::vector<Candidate> kept;
  for (int i = 0; i < row.count; ++i)
    if (std::ranges::find(suppressed, row.ids[i]) == suppressed.end())
      kept.push_back({row.logits[i], row.ids[i]});
  if (kept.empty()) return -1;
  if (rules.temperature <= 0.0) return kept[0].id;
  if (rules.top_k < 1 || static_cast<int>(kept.size()) < rules.top_k)
    fault("top_k of a draw, 1 to as many tokens as are known", static_cast<int64_t>(kept.size()),
          rules.top_k);
  kept.resize(std::min(kept.size(), static_cast<size_t>(std::max(rules.top_k, 1))));
  return draw_from(kept, rules, op.positions[r]);
}

}  // namespace

// Their sizes alone are asked for.
size_t argmax_scratch_bytes(int num_rows) {
  return static_cast<size_t>(num_rows);
}
size_t attention_list_bytes() {
  return 64;
}
size_t row_facts_scratch_bytes(int, int) {
  return 64;
}

void full_logits(const Stream& stream, const HeadLogits& head, const int32_t* rows, int num_out,
                 float* out) {
  if (rows != nullptr) fault("chosen rows of a head", 0, 1);
  const auto* const words = reinterpret_cast<const emulated::Word*>(head.sums.data);
  submit(stream, [=] {
    for (int row = 0; row < num_out; ++row)
      std::ranges::copy(emulated::logits_of(words[row].hash), out + int64_t{row} * kVocab);
  });
}

void row_facts(const Stream& stream, const RowFactsJob& job, void*, RowFacts* out) {
  submit(stream, [=] {
    ++device().counts.fact_passes;
    for (int row = 0; row < job.num_rows; ++row) find_facts(job, row, out[row]);
  });
}

void gather_logits(const Stream& stream, const float* row, const int32_t* ids, int count,
                   float* out) {
  submit(stream, [=] {
    for (int i = 0; i < count; ++i) out[i] = row[ids[i]];
  });
}

void draw_tokens(const Stream& stream, const DrawTokens& op) {
  submit(stream, [op] {
    for (int row = 0; row < op.num_rows; ++row) op.tokens[row] = draw_token(op, row);
  });
}

}  // namespace tandem::ops::cuda
