#include "quantize/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "quantize/modules.h"
#include "quantize/variant.h"

namespace tandem::quantize {
namespace {

constexpr int64_t kMaxTextTokens = 256;
constexpr int64_t kMaxRows = 1024;
// The reference's logits are kept: 256 MB at most.
constexpr int64_t kMaxLogits = int64_t{64} << 20;
constexpr size_t kMaxPrompts = 32;
constexpr int64_t kMaxNewTokens = 96;

// The beginnings of texts, and which of their rows are compared.
struct Sample {
  std::vector<std::vector<int32_t>> texts;
  int64_t stride = 1;
  int64_t num_compared = 0;
};

Sample take_sample(const CalibrationRun& calibration, int64_t vocab_size) {
  Sample sample;
  int64_t rows = 0;
  for (const std::vector<int32_t>& text : calibration.texts) {
    const auto length =
        std::min({static_cast<int64_t>(text.size()), kMaxTextTokens, kMaxRows - rows});
    if (length <= 0) break;
    sample.texts.emplace_back(text.begin(), text.begin() + length);
    rows += length;
  }
  const int64_t most = std::max<int64_t>(1, kMaxLogits / vocab_size);
  sample.stride = (rows + most - 1) / most;
  sample.num_compared = (rows + sample.stride - 1) / sample.stride;
  return sample;
}

// Logits to log-probabilities, in place.
void normalize(const core::TensorView& logits) {
  for (int64_t r = 0; r < logits.rows(); ++r) {
    auto* values = logits.row<float>(r);
    const float largest = *std::max_element(values, values + logits.cols());
    double sum = 0;
    for (int64_t v = 0; v < logits.cols(); ++v)
      sum += std::exp(static_cast<double>(values[v] - largest));
    const auto shift = static_cast<float>(static_cast<double>(largest) + std::log(sum));
    for (int64_t v = 0; v < logits.cols(); ++v) values[v] -= shift;
  }
}

// The compared rows' log-probabilities under `target`: [num_compared, vocab] F32.
void log_probabilities(const ops::Context& context, model::TargetModel& target,
                       const Sample& sample, const core::TensorView& out) {
  const io::TextConfig& config = target.config();
  const core::DType dtype = target.options().activation_dtype();
  const core::Buffer compared(dtype, {kMaxTextTokens, config.hidden_size});
  int64_t row = 0;
  int64_t done = 0;
  for (const std::vector<int32_t>& text : sample.texts) {
    const auto n = static_cast<int64_t>(text.size());
    TANDEM_CHECK_LE(n, target.options().max_rows);
    model::SingleSequence sequence(config, n, 0, dtype);
    std::vector<int32_t> positions(text.size());
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<int32_t> sequences(text.size(), 0);
    const core::TensorView hidden = target.forward(
        context, {text, positions, sequences, sequence.ring(), sequence.pages()}, sequence.kv());
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i, ++row) {
      if (row % sample.stride != 0) continue;
      const core::TensorView from = hidden.slice_rows(i, i + 1);
      std::memcpy(compared.rows(count + 1).slice_rows(count, count + 1).data, from.data,
                  static_cast<size_t>(config.hidden_size) * core::dtype_bytes(dtype));
      ++count;
    }
    if (count == 0) continue;
    const core::TensorView logits = out.slice_rows(done, done + count);
    target.logits(context, compared.rows(count), logits);
    normalize(logits);
    done += count;
  }
  TANDEM_CHECK_EQ(done, sample.num_compared);
}

double mean_kl(const core::TensorView& reference, const core::TensorView& candidate) {
  double sum = 0;
  for (int64_t r = 0; r < reference.rows(); ++r) {
    const auto* p = reference.row<float>(r);
    const auto* q = candidate.row<float>(r);
    for (int64_t v = 0; v < reference.cols(); ++v)
      sum += std::exp(static_cast<double>(p[v])) * (static_cast<double>(p[v]) - q[v]);
  }
  return sum / static_cast<double>(std::max<int64_t>(1, reference.rows()));
}

std::vector<GroupCost> groups_of(const ModelPlan& plan, const io::Checkpoint& checkpoint) {
  std::vector<std::string> modules = quantizable_modules(checkpoint);
  std::erase_if(modules, [&](const std::string& m) { return !plan.quantized.contains(m); });
  std::vector<GroupCost> groups;
  for (auto& group : fused_groups(modules)) groups.push_back({std::move(group), 0});
  return groups;
}

std::vector<std::string> modules_of(const std::vector<GroupCost>& groups) {
  std::vector<std::string> modules;
  for (const GroupCost& group : groups)
    modules.insert(modules.end(), group.modules.begin(), group.modules.end());
  return modules;
}

// Costs of single groups, then the choice.
base::Result<AutoExclusion> choose(std::vector<GroupCost> groups, double budget,
                                   const MeasureGroups& measure, std::string_view phase,
                                   const Progress& progress) {
  const auto total = static_cast<int64_t>(groups.size()) + 1;
  for (size_t i = 0; i < groups.size(); ++i) {
    TANDEM_RETURN_IF_ERROR(report_progress(progress, phase, static_cast<int64_t>(i), total));
    TANDEM_ASSIGN_OR_RETURN(groups[i].cost, measure({groups[i]}));
  }
  TANDEM_RETURN_IF_ERROR(report_progress(progress, phase, total - 1, total));
  return exclude_costliest(std::move(groups), budget, measure);
}

double acceptance_length(const ops::Context& context, model::TargetModel& target,
                         model::AssistantModel& assistant, const CalibrationRun& calibration,
                         int num_draft_tokens) {
  const size_t count = std::min(kMaxPrompts, calibration.texts.size());
  const auto longest =
      *std::max_element(calibration.prompt_lens.begin(),
                        calibration.prompt_lens.begin() + static_cast<int64_t>(count));
  speculation::RunnerOptions options;
  options.max_tokens = std::min(longest + kMaxNewTokens, target.config().max_position_embeddings);
  options.num_draft_tokens = num_draft_tokens;
  options.kv_dtype = target.options().activation_dtype();
  speculation::SequenceRunner runner(target, &assistant, options);
  speculation::AcceptanceStats stats;
  for (size_t i = 0; i < count; ++i) {
    speculation::RunRequest request;
    request.prompt =
        std::span(calibration.texts[i]).first(static_cast<size_t>(calibration.prompt_lens[i]));
    request.sampling.temperature = 0;
    request.max_new_tokens = kMaxNewTokens;
    request.eos_ids = end_ids(target.checkpoint());
    request.suppress_tokens = target.checkpoint().suppressed_ids();
    stats.add(runner.run(context, request).stats);
  }
  return stats.mean_acceptance_length();
}

}  // namespace

base::Result<AutoExclusion> auto_exclude_target(const ops::Context& context,
                                                const model::Pair& pair,
                                                const CalibrationRun& calibration,
                                                const ModelPlan& plan, double budget,
                                                const Progress& progress) {
  const io::Checkpoint& source = *pair.target_checkpoint;
  const Sample sample = take_sample(calibration, source.config().text.vocab_size);
  const core::Shape shape{sample.num_compared, source.config().text.vocab_size};
  const core::Buffer reference(core::DType::kF32, shape);
  const core::Buffer candidate(core::DType::kF32, shape);
  log_probabilities(context, *pair.target, sample, reference.view());
  const MeasureGroups measure = [&](const std::vector<GroupCost>& groups) -> base::Result<double> {
    TANDEM_ASSIGN_OR_RETURN(const auto checkpoint,
                            make_variant(source, plan, modules_of(groups), *context.pool));
    model::TargetModel variant(checkpoint, pair.target->options());
    log_probabilities(context, variant, sample, candidate.view());
    return mean_kl(reference.view(), candidate.view());
  };
  return choose(groups_of(plan, source), budget, measure, "measuring the target's layers",
                progress);
}

base::Result<AutoExclusion> auto_exclude_assistant(const ops::Context& context, model::Pair& pair,
                                                   const CalibrationRun& calibration,
                                                   const ModelPlan& plan, int num_draft_tokens,
                                                   double budget, const Progress& progress) {
  const io::Checkpoint& source = *pair.assistant_checkpoint;
  const double reference =
      acceptance_length(context, *pair.target, *pair.assistant, calibration, num_draft_tokens);
  const MeasureGroups measure = [&](const std::vector<GroupCost>& groups) -> base::Result<double> {
    TANDEM_ASSIGN_OR_RETURN(const auto checkpoint,
                            make_variant(source, plan, modules_of(groups), *context.pool));
    model::AssistantModel variant(checkpoint, *pair.target, pair.target->options());
    const double length =
        acceptance_length(context, *pair.target, variant, calibration, num_draft_tokens);
    // Chance can make a quantized assistant the luckier one.
    return std::max(0.0, 1 - length / reference);
  };
  return choose(groups_of(plan, source), budget, measure, "measuring the assistant's layers",
                progress);
}

}  // namespace tandem::quantize
