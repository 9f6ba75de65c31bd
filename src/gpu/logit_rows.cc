#include "gpu/logit_rows.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace tandem::gpu {
namespace {

using ops::cuda::kLikeliest;
using ops::cuda::RowFacts;
using sampling::Candidate;

// Of which it is quicker to fetch each than the row.
constexpr int kFewTokens = 2048;

double log_sum_of(const RowFacts& facts) {
  return facts.likeliest.count == 0 ? 0.0
                                    : static_cast<double>(facts.likeliest.logits[0]) +
                                          std::log(static_cast<double>(facts.sum));
}

// Writes the ids that the mask allows; none where there are more than `most`.
std::optional<int> list_allowed(sampling::TokenMask allowed, int64_t vocab_size, int most,
                                int32_t* ids) {
  int count = 0;
  for (size_t i = 0; i < allowed.size(); ++i)
    for (uint32_t word = allowed[i]; word != 0; word &= word - 1) {
      const auto id = static_cast<int32_t>(i) * 32 + std::countr_zero(word);
      if (id >= vocab_size) continue;
      if (count == most) return std::nullopt;
      ids[count++] = id;
    }
  return count;
}

}  // namespace

LogitRows::LogitRows(int max_passes, int max_sequences, int64_t vocab_size, bool whole_rows)
    : vocab_size_(vocab_size),
      whole_rows_(whole_rows),
      questions_(max_passes, max_sequences),
      logits_(static_cast<size_t>(kSlots * kPassRows * vocab_size) * sizeof(float)),
      scratch_(ops::cuda::row_facts_scratch_bytes(kPassRows, static_cast<int>(vocab_size))),
      facts_(static_cast<size_t>(max_passes) * kPassRows * sizeof(RowFacts)),
      host_facts_(facts_.size_bytes()),
      host_row_(static_cast<size_t>(vocab_size) * sizeof(float)),
      few_ids_(kFewTokens * sizeof(int32_t)),
      few_logits_(kFewTokens * sizeof(float)) {
  TANDEM_CUDA_CHECK(cudaStreamCreateWithFlags(&fetching_.handle, cudaStreamNonBlocking));
  for (cudaEvent_t& end : ends_)
    TANDEM_CUDA_CHECK(cudaEventCreateWithFlags(&end, cudaEventDisableTiming));
}

LogitRows::~LogitRows() {
  for (const cudaEvent_t end : ends_) (void)cudaEventDestroy(end);
  (void)cudaStreamDestroy(fetching_.handle);
}

void LogitRows::mark_end(const ops::cuda::Stream& stream, int slot) const {
  TANDEM_CUDA_CHECK(cudaEventRecord(ends_[static_cast<size_t>(slot)], stream.handle));
}

void LogitRows::wait_for_end(int slot) const {
  TANDEM_CUDA_CHECK(cudaEventSynchronize(ends_[static_cast<size_t>(slot)]));
}

const RowFacts& LogitRows::facts_at(const Place& place) const {
  return host_facts_.as<RowFacts>()[place.pass * kPassRows + static_cast<size_t>(place.row)];
}

float* LogitRows::logits_at(const Place& place) const {
  return logits_.as<float>() + (place.slot * kPassRows + place.row) * vocab_size_;
}

const RowFacts* LogitRows::find(const ops::cuda::Stream& stream, size_t pass, int slot,
                                const ops::cuda::HeadLogits& head,
                                const ops::cuda::RowFactsJob& asked) {
  float* const logits = logits_at({pass, slot, 0});
  RowFacts* const facts = facts_.as<RowFacts>() + pass * kPassRows;
  ops::cuda::full_logits(stream, head, nullptr, head.num_rows, logits);
  ops::cuda::RowFactsJob job = asked;
  job.num_rows = head.num_rows;
  job.vocab_size = head.vocab_size;
  job.logits = logits;
  ops::cuda::row_facts(stream, job, scratch_.data(), facts);
  return facts;
}

void LogitRows::record(const ops::cuda::Stream& stream, size_t pass, int slot,
                       const ops::cuda::HeadLogits& head, const int32_t* sequences,
                       const int32_t* positions) {
  const RowFacts* const facts = find(stream, pass, slot, head,
                                     {.targets = questions_.targets(pass),
                                      .sequences = sequences,
                                      .asked = questions_.asked(),
                                      .draws = questions_.draws(),
                                      .positions = positions});
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_facts_.as<RowFacts>() + pass * kPassRows, facts,
                                    static_cast<size_t>(head.num_rows) * sizeof(RowFacts),
                                    cudaMemcpyDeviceToHost, stream.handle));
}

sampling::TokenChoice LogitRows::choose(const sampling::Sampler& sampler, const Place& place,
                                        size_t sequence, int64_t position,
                                        sampling::TokenMask allowed) {
  if (whole_rows_) return choose_from_logits(sampler, place, {}, position, allowed);
  const RowFacts& facts = facts_at(place);
  std::array<Candidate, kLikeliest> top;
  for (size_t i = 0; i < static_cast<size_t>(facts.likeliest.count); ++i)
    top[i] = {facts.likeliest.logits[i], facts.likeliest.ids[i]};
  std::array<Candidate, ops::cuda::kMaxAsked + ops::cuda::kContenders> others;
  size_t num_asked = 0;
  for (const int32_t id : questions_.asked_of(sequence)) {
    if (id < 0) break;
    others[num_asked] = {facts.asked[num_asked], id};
    ++num_asked;
  }
  const auto num_contenders = static_cast<size_t>(facts.num_contenders);
  for (size_t i = 0; i < num_contenders; ++i)
    others[num_asked + i] = {facts.contender_logits[i], facts.contender_ids[i]};
  sampling::KnownRow row{.finite = facts.likeliest.status != 0,
                         .top = std::span(top).first(static_cast<size_t>(facts.likeliest.count)),
                         .complete = facts.likeliest.count < kLikeliest,
                         .others = std::span(others).first(num_asked + num_contenders),
                         .log_sum = log_sum_of(facts)};
  std::array<sampling::Contender, ops::cuda::kContenders> contenders;
  for (size_t i = 0; i < num_contenders; ++i)
    contenders[i] = {facts.contender_ids[i], facts.weight_before[i]};
  if (num_contenders > 0) {
    row.most_score = static_cast<double>(facts.last_score);
    row.contenders = std::span(contenders).first(num_contenders);
    row.weight = static_cast<double>(facts.weight);
  }
  if (const auto choice = sampler.choose_known(row, position, allowed)) return *choice;
  return choose_from_logits(sampler, place, row, position, allowed);
}

sampling::TokenChoice LogitRows::choose_from_logits(const sampling::Sampler& sampler,
                                                    const Place& place,
                                                    const sampling::KnownRow& known,
                                                    int64_t position, sampling::TokenMask allowed) {
  const std::lock_guard lock(fetches_);
  const bool is_named = !sampler.params().logprob_token_ids.empty();
  if (!whole_rows_ && !allowed.empty() && !is_named)
    if (const auto few = few_allowed(place, allowed)) {
      sampling::KnownRow row = known;
      row.others = *few;
      row.holds_allowed = true;
      if (const auto choice = sampler.choose_known(row, position, allowed)) return *choice;
    }
  return sampler.choose(whole_row(place), position, allowed);
}

std::optional<std::span<const Candidate>> LogitRows::few_allowed(const Place& place,
                                                                 sampling::TokenMask allowed) {
  int32_t* const ids = few_ids_.as<int32_t>();
  const std::optional<int> count = list_allowed(allowed, vocab_size_, kFewTokens, ids);
  if (!count) return std::nullopt;
  few_.clear();
  if (*count == 0) return few_;
  ops::cuda::gather_logits(fetching_, logits_at(place), ids, *count, few_logits_.as<float>());
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(fetching_.handle));
  for (int i = 0; i < *count; ++i) few_.push_back({few_logits_.as<float>()[i], ids[i]});
  return few_;
}

std::span<const float> LogitRows::whole_row(const Place& place) {
  TANDEM_CUDA_CHECK(cudaMemcpyAsync(host_row_.as<void>(), logits_at(place), host_row_.size_bytes(),
                                    cudaMemcpyDeviceToHost, fetching_.handle));
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(fetching_.handle));
  return {host_row_.as<float>(), static_cast<size_t>(vocab_size_)};
}

sampling::TokenScore LogitRows::score(const Place& place, int32_t token, int32_t num_top) const {
  const RowFacts& facts = facts_at(place);
  sampling::TokenScore score;
  if (facts.likeliest.status == 0 || facts.likeliest.count == 0) return score;
  const double log_sum = log_sum_of(facts);
  const auto logprob = [&](float logit) { return sampling::logprob_of(logit, log_sum); };
  score.token = token;
  score.logprob = logprob(facts.target_logit);
  score.rank = int64_t{facts.target_rank} + 1;
  for (int i = 0; i < std::min(num_top, facts.likeliest.count); ++i)
    score.top.push_back({facts.likeliest.ids[i], logprob(facts.likeliest.logits[i])});
  return score;
}

}  // namespace tandem::gpu
