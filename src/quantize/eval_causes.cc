// What went wrong with a candidate, recognised by what each mistake leaves behind.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "core/e4m3.h"
#include "quantize/eval_gate.h"

namespace tandem::quantize {
namespace {

// FP8 rounding keeps the factor within 0.1 % of 1 and the correlation above 0.999.
constexpr double kFactorTolerance = 0.03;
constexpr double kSameWeights = 0.95;
// Input ranges move with the text: only scales that cannot come from calibration are reported.
constexpr double kMostClipped = 2.0;
constexpr double kLeastUsed = 1.0 / 16;
// Between two positions of draft queries: the demo pair loses 5 % at the wrong one.
constexpr double kBetterOffset = 1.02;
// Working pairs accept half of their first drafts and more; a small vocabulary gives strangers a
// few percent by chance.
constexpr double kLowFirstRate = 0.10;

std::string model_name(bool assistant) {
  return assistant ? "assistant" : "target";
}

std::string modules_text(const std::vector<std::string>& names) {
  return fmt::format("{} module{} ({})", names.size(), names.size() == 1 ? "" : "s",
                     list_names(names));
}

// Names of the modules that `test` picks, for each model of the pair that has one.
void for_each_model(const EvalResult& result, const std::function<bool(const ModuleScore&)>& test,
                    const std::function<void(bool, const std::vector<std::string>&)>& report) {
  for (const bool assistant : {false, true}) {
    std::vector<std::string> names;
    for (const ModuleScore& score : result.modules)
      if (score.assistant == assistant && test(score)) names.push_back(score.module);
    if (!names.empty()) report(assistant, names);
  }
}

bool has_reference(const EvalResult& result, bool assistant) {
  return !(assistant ? result.names.reference_assistant : result.names.reference_target).empty();
}

bool wrong_factor(const ModuleScore& score) {
  return score.correlation >= kSameWeights && std::abs(score.factor - 1) > kFactorTolerance;
}

// A scale of exactly 1 comes from a loader or an exporter that had none.
bool lost_weight_scale(const ModuleScore& score) {
  return score.format == io::WeightFormat::kFp8PerTensor && score.weight_scale == 1.0F &&
         wrong_factor(score);
}

bool lost_input_scale(const ModuleScore& score) {
  return score.static_input && score.input_scale == 1.0F && score.input.amax > 0 &&
         (score.scale_use() > kMostClipped || score.scale_use() < kLeastUsed);
}

void find_lost_scales(const EvalResult& result, std::vector<Cause>& causes) {
  for_each_model(result, lost_weight_scale, [&](bool assistant, const auto& names) {
    causes.push_back({"scales_lost",
                      fmt::format("{}: the export lost its scales: weight_scale is 1 in {}, whose "
                                  "weights are far from the reference's",
                                  model_name(assistant), modules_text(names))});
  });
  for_each_model(result, lost_input_scale, [&](bool assistant, const auto& names) {
    causes.push_back({"input_scales_lost",
                      fmt::format("{}: the export lost its scales: input_scale is 1 in {}, whose "
                                  "inputs need another one",
                                  model_name(assistant), modules_text(names))});
  });
}

// Modules with the same wrong factor are one mistake.
void find_factors(const EvalResult& result, std::vector<Cause>& causes) {
  std::map<std::pair<bool, std::string>, std::vector<std::string>> groups;
  for (const ModuleScore& score : result.modules)
    if (wrong_factor(score) && !lost_weight_scale(score))
      groups[{score.assistant, fmt::format("{:.2f}", score.factor)}].push_back(score.module);
  for (const auto& [key, names] : groups)
    causes.push_back(
        {"weights_factor",
         fmt::format("{}: the weights of {} are {} times the reference's: weight_scale is wrong by "
                     "that factor",
                     model_name(key.first), modules_text(names), key.second)});
}

void find_input_scales(const EvalResult& result, std::vector<Cause>& causes) {
  const auto report = [&](const char* what) {
    return [&causes, what](bool assistant, const std::vector<std::string>& names) {
      causes.push_back(
          {"input_scale", fmt::format("{}: input_scale of {} {}", model_name(assistant),
                                      modules_text(names), what)});
    };
  };
  for_each_model(
      result,
      [](const ModuleScore& score) {
        return score.scale_use() > kMostClipped && !lost_input_scale(score);
      },
      report("is too small: inputs reach more than twice what it covers and are clipped"));
  for_each_model(
      result,
      [](const ModuleScore& score) {
        return score.scale_use() > 0 && score.scale_use() < kLeastUsed && !lost_input_scale(score);
      },
      report("is too large: inputs stay below a sixteenth of what it covers"));
}

void find_other_weights(const EvalResult& result, std::vector<Cause>& causes) {
  const auto swapped = [](const ModuleScore& score) {
    return score.swapped_correlation >= kSameWeights && score.correlation < kSameWeights;
  };
  for_each_model(result, swapped, [&](bool assistant, const auto& names) {
    causes.push_back({"swapped_halves",
                      fmt::format("{}: {} has its two halves exchanged: the embedding comes first, "
                                  "the hidden state second",
                                  model_name(assistant), list_names(names))});
  });
  for_each_model(
      result,
      [&](const ModuleScore& score) {
        return has_reference(result, score.assistant) && score.correlation < kSameWeights &&
               !swapped(score);
      },
      [&](bool assistant, const auto& names) {
        double lowest = 1;
        for (const ModuleScore& score : result.modules)
          if (score.assistant == assistant) lowest = std::min(lowest, score.correlation);
        causes.push_back(
            {"other_weights",
             fmt::format("{0}: the weights of {1} are not the reference's (correlation down to "
                         "{2:.2f}): wrong pair, this {0} was not made from that one",
                         model_name(assistant), modules_text(names), lowest)});
      });
}

void find_kv_scales(const EvalResult& result, std::vector<Cause>& causes) {
  if (!result.kv_fp8) return;
  std::vector<std::string> clipped, unused;
  float amax = 0;
  bool calibrated = false;
  for (const KvScore& score : result.kv) {
    const double k_use = score.k_amax / (core::kE4M3Max * score.k_scale);
    const double v_use = score.v_amax / (core::kE4M3Max * score.v_scale);
    const bool ones = score.k_scale == 1.0F || score.v_scale == 1.0F;
    if (std::max(k_use, v_use) > kMostClipped)
      clipped.push_back(fmt::format("layers.{}", score.layer));
    else if (ones && std::min(k_use, v_use) < kLeastUsed)
      unused.push_back(fmt::format("layers.{}", score.layer));
    else
      continue;
    amax = std::max(amax, score.k_amax);
    calibrated = calibrated || score.calibrated;
  }
  if (!clipped.empty())
    causes.push_back(
        {"kv_scales", fmt::format("target: KV scales too small in {}: keys or values reach more "
                                  "than twice what they cover and are clipped",
                                  list_names(clipped))});
  if (!unused.empty())
    causes.push_back(
        {"kv_scales",
         fmt::format("target: KV scales were not inherited: k_scale or v_scale is 1 in {}, where "
                     "keys reach {:.3g} and calibration would give {:.3g}",
                     list_names(unused), amax, amax / core::kE4M3Max),
         calibrated});
}

void find_offset(const EvalResult& result, std::vector<Cause>& causes) {
  if (!result.offset) return;
  const OffsetProbe& probe = *result.offset;
  // Broken weights accept a little by chance, here or there: then the usual position is not at
  // fault.
  if (probe.offset == 0 && !causes.empty()) return;
  if (probe.other_length < probe.length * kBetterOffset) return;
  causes.push_back(
      {"position_offset",
       fmt::format("position offset: with draft_position_offset {} the mean acceptance length is "
                   "{:.2f}, with {} it is {:.2f}: the draft queries stand at the wrong position",
                   probe.offset, probe.length, 1 - probe.offset, probe.other_length)});
}

// Only when nothing above explains why hardly any draft is accepted.
void find_wrong_pair(const EvalResult& result, std::vector<Cause>& causes) {
  if (!causes.empty() || !result.candidate) return;
  const speculation::AcceptanceStats& stats = result.candidate->all.stats;
  if (stats.num_drafts == 0 || stats.rate_at(0) >= kLowFirstRate) return;
  const bool checked = std::ranges::any_of(result.modules, [&](const ModuleScore& m) {
    return m.assistant && has_reference(result, true);
  });
  causes.push_back(
      {"wrong_pair",
       fmt::format("wrong pair: only {:.1f} % of first drafts are accepted{}: this assistant was "
                   "made for another target (or for its base model)",
                   100 * stats.rate_at(0),
                   checked ? " although the weights equal the reference's" : "")});
}

}  // namespace

std::vector<Cause> find_causes(const EvalResult& result) {
  std::vector<Cause> causes;
  find_lost_scales(result, causes);
  find_factors(result, causes);
  find_other_weights(result, causes);
  find_input_scales(result, causes);
  find_kv_scales(result, causes);
  find_offset(result, causes);
  find_wrong_pair(result, causes);
  std::ranges::stable_sort(causes, std::greater<>(), &Cause::defect);
  return causes;
}

}  // namespace tandem::quantize
