// The history as a person reads it: a list, and two runs side by side.
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/history.h"
#include "bench/table.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

// The figure a list shows of each benchmark: a path of keys, and its unit.
struct Headline {
  const char* benchmark;
  const char* path;
  const char* unit;
};
constexpr std::array<Headline, 5> kHeadlines = {{
    {"serve", "/output_throughput", "tokens/s"},
    {"latency", "/output_tokens_per_second", "tokens/s"},
    {"throughput", "/output_tokens_per_second", "tokens/s"},
    {"step", "/step/rounds/0/tokens_per_s", "tokens/s plain"},
    {"ops", "/ops/0/share_of_read", "of read bandwidth (first)"},
}};

ordered_json parsed(const std::string& text) {
  return ordered_json::parse(text, nullptr, false);
}

std::string headline(const HistoryEntry& entry) {
  const ordered_json report = parsed(entry.result);
  for (const Headline& known : kHeadlines) {
    const ordered_json::json_pointer path(known.path);
    if (entry.benchmark == known.benchmark && report.contains(path) && report[path].is_number())
      return fmt::format("{:.4g} {}", report[path].get<double>(), known.unit);
  }
  return "-";
}

// Names of the parts of a list's entries, so that the same measurement meets its twin.
std::string name_of(const ordered_json& element, size_t index) {
  std::vector<std::string> parts;
  for (const char* key :
       {"name", "rows", "batch", "context", "keys", "cache", "num_draft_tokens"}) {
    if (!element.is_object() || !element.contains(key)) continue;
    parts.push_back(element[key].is_string() ? element[key].get<std::string>()
                                             : fmt::format("{} {}", key, element[key].dump()));
  }
  return parts.empty() ? std::to_string(index) : fmt::format("{}", fmt::join(parts, " "));
}

void flatten(const ordered_json& value, const std::string& path,
             std::vector<std::pair<std::string, double>>& figures) {
  constexpr size_t kLongestList = 256;  // longer ones are raw samples
  if (value.is_number()) {
    figures.emplace_back(path, value.get<double>());
  } else if (value.is_object()) {
    for (const auto& [key, inner] : value.items())
      if (key != "machine") flatten(inner, path.empty() ? key : path + "." + key, figures);
  } else if (value.is_array() && value.size() <= kLongestList) {
    const bool samples = path.find("per_position") == std::string::npos;
    std::map<std::string, int> seen;
    for (size_t i = 0; i < value.size(); ++i) {
      if (!value[i].is_object() && samples) continue;
      std::string name = name_of(value[i], i);
      // As projections of one name and two formats: the second meets the second.
      if (const int twin = ++seen[name]; twin > 1) name += fmt::format(", no. {}", twin);
      flatten(value[i], fmt::format("{}[{}]", path, name), figures);
    }
  }
}

}  // namespace

std::string history_table(const std::vector<HistoryEntry>& entries) {
  Table table({"run", "date", "benchmark", "model", "label", "result", "remark"});
  for (const HistoryEntry& entry : entries)
    table.add({std::to_string(entry.id), entry.date, entry.benchmark, entry.model, entry.label,
               headline(entry), entry.synthetic ? "synthetic" : ""});
  return table.text();
}

std::string compare_reports(const HistoryEntry& before, const HistoryEntry& after) {
  std::vector<std::pair<std::string, double>> old_figures, new_figures;
  flatten(parsed(before.result), "", old_figures);
  flatten(parsed(after.result), "", new_figures);
  const std::map<std::string, double> newer(new_figures.begin(), new_figures.end());
  Table table(
      {"figure", fmt::format("run {}", before.id), fmt::format("run {}", after.id), "ratio"});
  for (const auto& [name, value] : old_figures) {
    const auto found = newer.find(name);
    if (found == newer.end()) continue;
    table.add({name, fmt::format("{:.6g}", value), fmt::format("{:.6g}", found->second),
               value == 0 ? "-" : fmt::format("{:.3f}", found->second / value)});
  }
  std::string text;
  for (const HistoryEntry* entry : {&before, &after})
    text += fmt::format("run {}: {} {} {} {}{}\n", entry->id, entry->date, entry->benchmark,
                        entry->model, entry->device, entry->synthetic ? ", synthetic" : "");
  return text + table.text();
}

}  // namespace tandem::bench
