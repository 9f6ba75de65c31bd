// Plots of layers: what each makes of its inputs, and how its inputs use the range of their scale.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "core/e4m3.h"
#include "quantize/eval_charts.h"
#include "quantize/eval_svg.h"

namespace tandem::quantize {
namespace {

constexpr double kWidth = 360;
constexpr const char* kKinds[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                  "gate_proj", "up_proj", "down_proj"};
// What the shades of a picture mean: its smallest error is lightest, its largest has the full
// colour, on a logarithmic scale that spans a factor of four at least.
struct ErrorScale {
  double least = 0;
  double most = 0;

  explicit ErrorScale(const std::vector<const ModuleScore*>& scores) {
    for (const ModuleScore* score : scores) most = std::max(most, *score->output_error);
    least = most / 4;
    for (const ModuleScore* score : scores)
      if (*score->output_error > 0) least = std::min(least, *score->output_error);
  }
  double at(double share) const { return least * std::pow(most / least, share); }
  double shade(double error) const {
    if (most <= 0 || error <= 0) return 0.06;
    return 0.14 + 0.86 * std::clamp(std::log(error / least) / std::log(most / least), 0.0, 1.0);
  }
};

std::string percent(double share) {
  return share == 0 ? "0" : fmt::format("{:.2f} %", 100 * share);
}

std::vector<const ModuleScore*> with_errors(const EvalResult& result, bool assistant) {
  std::vector<const ModuleScore*> scores;
  for (const ModuleScore& score : result.modules)
    if (score.assistant == assistant && score.output_error) scores.push_back(&score);
  return scores;
}

Table worst_table(std::vector<const ModuleScore*> scores) {
  constexpr size_t kShown = 12;
  std::ranges::stable_sort(scores, [](const ModuleScore* a, const ModuleScore* b) {
    return *a->output_error > *b->output_error;
  });
  if (scores.size() > kShown) scores.resize(kShown);
  Table table{{"largest errors", "output error", "weight error", "format"}, {}};
  for (const ModuleScore* score : scores)
    table.rows.push_back({score->module, percent(*score->output_error),
                          percent(score->weight_error),
                          score->format == io::WeightFormat::kBF16 ? "BF16" : "FP8"});
  return table;
}

void error_legend(Svg& svg, const ErrorScale& scale, double y) {
  constexpr int kSteps = 7;
  constexpr double kCell = 16, kLeft = 128;
  if (scale.most <= 0) return;
  svg.text(kLeft - 8, y + 9, Anchor::kEnd, "tick", "error " + percent(scale.least));
  for (int i = 0; i < kSteps; ++i)
    svg.rect(kLeft + kCell * i, y, kCell - 1, 10, "cand", {},
             scale.shade(scale.at(i / (kSteps - 1.0))));
  svg.text(kLeft + kCell * kSteps + 6, y + 9, Anchor::kStart, "tick", percent(scale.most));
}

// What scales give to inputs, in powers of two below the largest value that the scale covers.
constexpr int kRangeBins = 24;
constexpr int kSubnormalBin = 16;  // 448 / 2^-6 is 2^14.8: smaller values lose bits, then vanish
constexpr int kZeroBin = 20;       // 448 / 2^-10, half of the smallest subnormal, is 2^18.8

struct RangeCounts {
  double bins[kRangeBins] = {};  // bin 0: clipped; bin i: the i-th power of two below full scale
  double total = 0;

  void add(const ModuleScore& score) {
    const int full = static_cast<int>(std::floor(std::log2(core::kE4M3Max * score.input_scale)));
    for (int i = 0; i < 256; ++i) {
      const auto count = static_cast<double>(score.input.counts[static_cast<size_t>(i)]);
      const int below = full - (i - 127);
      bins[std::clamp(below + 1, 0, kRangeBins - 1)] += count;
      total += count;
    }
  }
  double share(int first, int last) const {
    double sum = 0;
    for (int i = first; i < last; ++i) sum += bins[i];
    return total > 0 ? sum / total : 0;
  }
};

// Inputs by the kind of projection that reads them, in the order of a layer.
std::vector<std::pair<std::string, RangeCounts>> range_groups(const EvalResult& result,
                                                              bool assistant) {
  const std::pair<const char*, const char*> names[] = {{"q_proj", "attention input"},
                                                       {"o_proj", "attention output"},
                                                       {"gate_proj", "MLP input"},
                                                       {"down_proj", "MLP inner"}};
  std::vector<std::pair<std::string, RangeCounts>> groups;
  for (const auto& [kind, name] : names) {
    RangeCounts counts;
    for (const ModuleScore& score : result.modules)
      if (score.assistant == assistant && score.static_input && kind_of(score.module) == kind)
        counts.add(score);
    if (counts.total > 0) groups.emplace_back(name, counts);
  }
  return groups;
}

void draw_range(Svg& svg, const std::string& name, const RangeCounts& counts, double top,
                double height) {
  constexpr double kLeft = 8;
  constexpr double kBin = (kWidth - kLeft - 8) / kRangeBins;
  const double bottom = top + height;
  const double largest = *std::max_element(counts.bins, counts.bins + kRangeBins);
  svg.rect(kLeft + kBin * kSubnormalBin, top + 14, kBin * (kRangeBins - kSubnormalBin), height - 14,
           "band");
  svg.text(kLeft, top + 9, Anchor::kStart, "label", name);
  for (int i = 0; i < kRangeBins; ++i) {
    if (counts.bins[i] == 0) continue;
    const double bar = std::max(0.8, (height - 18) * counts.bins[i] / largest);
    svg.rect(kLeft + kBin * i, bottom - bar, kBin - 1, bar, i == 0 ? "bad" : "cand",
             fmt::format("{}: {} of the values {}", name, percent(counts.bins[i] / counts.total),
                         i == 0 ? std::string("were clipped")
                                : fmt::format("lie about 2^{} below full scale", i)));
  }
  svg.line(kLeft, bottom, kWidth - 8, bottom, "axis");
}

}  // namespace

std::string layer_error_chart(const EvalResult& result, bool assistant) {
  const std::vector<const ModuleScore*> scores = with_errors(result, assistant);
  if (scores.empty()) return {};
  const ErrorScale scale(scores);
  int64_t num_layers = 0;
  std::set<std::string> kinds;
  std::string outside;
  for (const ModuleScore* score : scores) {
    num_layers = std::max(num_layers, layer_of(score->module) + 1);
    kinds.insert(kind_of(score->module));
    if (layer_of(score->module) < 0 && *score->output_error > 0)
      outside += fmt::format(" {}: {}.", score->module, percent(*score->output_error));
  }
  if (num_layers == 0) return {};
  constexpr double kLeft = 72, kTop = 4, kRow = 22;
  const double cell = (kWidth - kLeft) / static_cast<double>(num_layers);
  const double gap = cell > 8 ? 2 : 0.5;
  std::map<std::string, double> rows;
  for (const char* kind : kKinds)
    if (kinds.contains(kind)) rows.emplace(kind, kTop + kRow * static_cast<double>(rows.size()));
  const double bottom = kTop + kRow * static_cast<double>(rows.size());
  const std::string model = assistant ? "assistant" : "target";
  Svg svg(kWidth, bottom + 50, "Output error of each projection of the " + model,
          "Rows are kinds of projections, columns are layers, darker is worse");
  for (const auto& [kind, y] : rows) svg.text(kLeft - 6, y + 15, Anchor::kEnd, "tick", kind);
  for (const ModuleScore* score : scores) {
    const auto row = rows.find(kind_of(score->module));
    if (row == rows.end()) continue;
    svg.rect(kLeft + cell * static_cast<double>(layer_of(score->module)), row->second, cell - gap,
             kRow - 2, "cand", fmt::format("{}: {}", score->module, percent(*score->output_error)),
             scale.shade(*score->output_error));
  }
  const int64_t step = num_layers > 16 ? 8 : num_layers > 6 ? 2 : 1;
  for (int64_t layer = 0; layer < num_layers; layer += step)
    svg.text(kLeft + cell * (static_cast<double>(layer) + 0.5), bottom + 12, Anchor::kMiddle,
             "tick", fmt::format("{}", layer));
  svg.text(kLeft - 6, bottom + 12, Anchor::kEnd, "label", "layer");
  error_legend(svg, scale, bottom + 30);
  return figure(assistant ? "Error per layer, assistant" : "Error per layer, target",
                std::move(svg).finish(),
                fmt::format("Relative error of each projection's output on the reference's own "
                            "inputs. No cell: no such projection.{}",
                            outside),
                worst_table(scores));
}

std::string range_chart(const EvalResult& result, bool assistant) {
  const auto groups = range_groups(result, assistant);
  if (groups.empty()) return {};
  constexpr double kHeight = 58, kGap = 10;
  const double bottom = (kHeight + kGap) * static_cast<double>(groups.size());
  const std::string model = assistant ? "assistant" : "target";
  Svg svg(kWidth, bottom + 22, "Inputs of the " + model + " in the range of E4M3",
          "Histograms by powers of two below the largest value a scale covers");
  Table table{{"input", "clipped", "normal", "subnormal", "rounded to zero"}, {}};
  double top = 0;
  for (const auto& [name, counts] : groups) {
    draw_range(svg, name, counts, top, kHeight);
    table.rows.push_back({name, percent(counts.share(0, 1)),
                          percent(counts.share(1, kSubnormalBin)),
                          percent(counts.share(kSubnormalBin, kZeroBin)),
                          percent(counts.share(kZeroBin, kRangeBins))});
    top += kHeight + kGap;
  }
  svg.text(8, bottom + 8, Anchor::kStart, "tick", "full scale");
  svg.text(kWidth - 8, bottom + 8, Anchor::kEnd, "tick", "shaded: bits are lost");
  return figure(assistant ? "Use of the scales, assistant" : "Use of the scales, target",
                std::move(svg).finish(),
                "How large inputs are beside the largest value their scale covers, halving from "
                "left to right. Red values are clipped; in the shade E4M3 keeps fewer bits.",
                table);
}

std::string amax_chart(const EvalResult& result) {
  std::map<int, int64_t> bins;
  Table table{{"input of", "largest value", "scale use"}, {}};
  for (const ModuleScore& score : result.modules) {
    const std::string kind = kind_of(score.module);
    if (score.input.amax <= 0 || kind == "k_proj" || kind == "v_proj" || kind == "up_proj")
      continue;
    ++bins[static_cast<int>(std::floor(std::log2(score.input.amax)))];
    table.rows.push_back({(score.assistant ? "assistant " : "") + score.module,
                          fmt::format("{:.4g}", score.input.amax),
                          score.static_input ? percent(score.scale_use()) : "–"});
  }
  if (bins.empty()) return {};
  const int first = bins.begin()->first;
  const int count = bins.rbegin()->first - first + 1;
  int64_t most = 1;
  for (const auto& [bin, inputs] : bins) most = std::max(most, inputs);
  constexpr double kLeft = 10, kTop = 18, kBottom = 150;
  const double slot = (kWidth - 2 * kLeft) / count;
  Svg svg(kWidth, 184, "Largest value of each input", "Count of inputs by powers of two");
  for (const auto& [bin, inputs] : bins) {
    const double height =
        (kBottom - kTop) * static_cast<double>(inputs) / static_cast<double>(most);
    const double x = kLeft + slot * (bin - first);
    svg.rect(x + 1, kBottom - height, std::max(1.0, slot - 2), height, "cand",
             fmt::format("{} inputs reach {:g} to {:g}", inputs, std::ldexp(1.0, bin),
                         std::ldexp(1.0, bin + 1)));
    svg.text(x + slot / 2, kBottom - height - 5, Anchor::kMiddle, "tick",
             fmt::format("{}", inputs));
  }
  for (int i = 0; i <= count; i += count > 8 ? 2 : 1)
    svg.text(std::min(kLeft + slot * i, kWidth - kLeft), kBottom + 15, Anchor::kMiddle, "tick",
             fmt::format("{:g}", std::ldexp(1.0, first + i)));
  svg.line(kLeft, kBottom, kWidth - kLeft, kBottom, "axis");
  svg.text(kLeft, kBottom + 30, Anchor::kStart, "label", "largest |x| of an input");
  return figure("Largest values (amax)", std::move(svg).finish(),
                "How many inputs of projections have which largest value. A scale is amax / 448.",
                table);
}

}  // namespace tandem::quantize
