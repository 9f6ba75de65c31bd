#include "quantize/eval_text.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/buffer.h"
#include "model/single_sequence.h"

namespace tandem::quantize {
namespace {

constexpr std::string_view kPhase = "scoring text";
constexpr int64_t kLogitRows = 16;  // 16 MB per model at 262,144 entries

// log(sum(exp(logits))).
double log_sum(std::span<const float> logits) {
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float value : logits) sum += std::exp(static_cast<double>(value) - largest);
  return largest + std::log(sum);
}

// One model reading a text, chunk after chunk.
class Reader {
 public:
  Reader(const EvalPair& eval, int64_t num_tokens)
      : target_(*eval.pair->target), sequence_(make_sequence(eval, num_tokens)) {
    logits_ = core::Buffer(core::DType::kF32, {kLogitRows, target_.config().vocab_size});
  }

  void forward(const ops::Context& context, std::span<const int32_t> ids,
               std::span<const int32_t> positions, std::span<const int32_t> sequences) {
    hidden_ = target_.forward(
        context, {ids, positions, sequences, sequence_.ring(), sequence_.pages()}, sequence_.kv());
  }

  // Rows [begin, end) of the last chunk, at most kLogitRows.
  void compute_logits(const ops::Context& context, int64_t begin, int64_t end) {
    target_.logits(context, hidden_.slice_rows(begin, end), logits_.rows(end - begin));
  }
  std::span<const float> logits(int64_t row) const {
    return {logits_.view().row<float>(row), static_cast<size_t>(target_.config().vocab_size)};
  }

 private:
  static model::SingleSequence make_sequence(const EvalPair& eval, int64_t num_tokens) {
    model::KvScaleLists scales = kv_scale_lists(*eval.pair->target_checkpoint, eval.kv_fp8);
    const core::DType dtype =
        eval.kv_fp8 ? core::DType::kF8E4M3 : eval.pair->target->options().activation_dtype();
    return model::SingleSequence(eval.pair->target->config(), num_tokens, 0, dtype,
                                 std::move(scales.k), std::move(scales.v));
  }

  model::TargetModel& target_;
  model::SingleSequence sequence_;
  core::Buffer logits_;  // [kLogitRows, vocab] F32
  core::TensorView hidden_;
};

struct Sums {
  double nll = 0;
  double reference_nll = 0;
  int64_t num_same = 0;
  std::vector<double> kl;  // per token
  int64_t num_tokens = 0;
  bool finite = true;
  bool reference_finite = true;

  void add(const RowScore& row, bool with_reference) {
    nll += row.nll;
    reference_nll += row.reference_nll;
    num_same += row.same_choice ? 1 : 0;
    ++num_tokens;
    if (with_reference) kl.push_back(row.kl);
    finite = finite && row.finite;
    reference_finite = reference_finite && row.reference_finite;
  }
};

void score_text(const ops::Context& context, const EvalPair& candidate, const EvalPair& reference,
                const EvalText& text, Sums& sums) {
  const auto n = static_cast<int64_t>(text.ids.size()) - 1;  // the last token predicts nothing
  const bool with_reference = reference.pair != nullptr;
  Reader reader(candidate, n);
  std::optional<Reader> other;
  if (with_reference) other.emplace(reference, n);
  int64_t chunk = candidate.pair->target->options().max_rows;
  if (with_reference) chunk = std::min(chunk, reference.pair->target->options().max_rows);
  std::vector<int32_t> positions(static_cast<size_t>(n));
  std::iota(positions.begin(), positions.end(), 0);
  const std::vector<int32_t> sequences(static_cast<size_t>(n), 0);
  for (int64_t begin = 0; begin < n; begin += chunk) {
    const int64_t end = std::min(n, begin + chunk);
    const auto part = [&](std::span<const int32_t> all) {
      return all.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    };
    reader.forward(context, part(text.ids), part(positions), part(sequences));
    if (other) other->forward(context, part(text.ids), part(positions), part(sequences));
    for (int64_t row = std::max(begin, text.first_scored - 1); row < end; row += kLogitRows) {
      const int64_t stop = std::min(end, row + kLogitRows);
      reader.compute_logits(context, row - begin, stop - begin);
      if (other) other->compute_logits(context, row - begin, stop - begin);
      for (int64_t i = row; i < stop; ++i)
        sums.add(score_row(reader.logits(i - row),
                           other ? other->logits(i - row) : std::span<const float>(),
                           text.ids[static_cast<size_t>(i + 1)]),
                 with_reference);
    }
  }
}

}  // namespace

RowScore score_row(std::span<const float> logits, std::span<const float> reference_logits,
                   int32_t next) {
  const auto index = static_cast<size_t>(next);
  RowScore score;
  const double sum = log_sum(logits);
  score.nll = sum - static_cast<double>(logits[index]);
  score.finite = std::isfinite(score.nll);
  if (reference_logits.empty()) return score;
  const double reference_sum = log_sum(reference_logits);
  score.reference_nll = reference_sum - static_cast<double>(reference_logits[index]);
  score.reference_finite = std::isfinite(score.reference_nll);
  double kl = 0;
  for (size_t v = 0; v < logits.size(); ++v) {
    const double log_p = static_cast<double>(reference_logits[v]) - reference_sum;
    const double log_q = static_cast<double>(logits[v]) - sum;
    kl += std::exp(log_p) * (log_p - log_q);
  }
  score.kl = std::max(0.0, kl);
  score.same_choice = std::ranges::max_element(logits) - logits.begin() ==
                      std::ranges::max_element(reference_logits) - reference_logits.begin();
  return score;
}

double quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(values.size()));
  const auto index = static_cast<int64_t>(std::max(1.0, rank)) - 1;
  std::ranges::nth_element(values, values.begin() + index);
  return values[static_cast<size_t>(index)];
}

base::Result<TextScore> score_texts(const ops::Context& context, const EvalPair& candidate,
                                    const EvalPair& reference, const std::vector<EvalText>& texts,
                                    const Progress& progress) {
  Sums sums;
  TextScore score;
  const auto total = static_cast<int64_t>(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(report_progress(progress, kPhase, static_cast<int64_t>(i), total));
    if (static_cast<int64_t>(texts[i].ids.size()) <= texts[i].first_scored) continue;
    score_text(context, candidate, reference, texts[i], sums);
    // Neither a mean nor a gate may pass over them.
    if (!sums.finite || !sums.reference_finite)
      return base::invalid(
          "{}: text {}: expected finite logits, got NaN or infinity",
          (sums.finite ? reference : candidate).pair->target_checkpoint->dir().string(), i + 1);
    ++score.num_texts;
  }
  TANDEM_RETURN_IF_ERROR(report_progress(progress, kPhase, total, total));
  if (sums.num_tokens == 0)
    return base::invalid("evaluation: expected text of at least two tokens, got none");
  const auto count = static_cast<double>(sums.num_tokens);
  score.num_tokens = sums.num_tokens;
  score.perplexity = std::exp(sums.nll / count);
  if (reference.pair == nullptr) return score;
  TextScore::Comparison comparison;
  comparison.perplexity = std::exp(sums.reference_nll / count);
  comparison.kl_mean = std::accumulate(sums.kl.begin(), sums.kl.end(), 0.0) / count;
  comparison.kl_max = *std::ranges::max_element(sums.kl);
  comparison.kl_p99 = quantile(std::move(sums.kl), 0.99);
  comparison.same_choice = static_cast<double>(sums.num_same) / count;
  score.comparison = comparison;
  return score;
}

}  // namespace tandem::quantize
