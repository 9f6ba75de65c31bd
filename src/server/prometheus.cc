#include "server/prometheus.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::server {

std::string escape_label(const std::string& label) {
  std::string result;
  for (const char c : label) {
    if (c == '\\' || c == '"') result += '\\';
    if (c == '\n')
      result += "\\n";
    else
      result += c;
  }
  return result;
}

void begin_metric(std::string& out, const std::string& name, const std::string& help,
                  const char* type) {
  out += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void write_sample(std::string& out, const std::string& name, const std::string& labels,
                  double value) {
  if (labels.empty())
    out += fmt::format("{} {}\n", name, value);
  else
    out += fmt::format("{}{{{}}} {}\n", name, labels, value);
}

void write_counter(std::string& out, const std::string& name, const std::string& help,
                   const std::string& labels, double value) {
  begin_metric(out, name, help, "counter");
  write_sample(out, name, labels, value);
}

void write_gauge(std::string& out, const std::string& name, const std::string& help,
                 const std::string& labels, double value) {
  begin_metric(out, name, help, "gauge");
  write_sample(out, name, labels, value);
}

Histogram::Histogram(std::span<const double> bounds)
    : bounds_(bounds.begin(), bounds.end()), counts_(bounds.size() + 1) {}

void Histogram::observe(double value, int64_t count) {
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)] += count;
  sum_ += value * static_cast<double>(count);
}

void Histogram::write(std::string& out, const std::string& name, const std::string& help,
                      const std::string& labels) const {
  begin_metric(out, name, help, "histogram");
  const std::string comma = labels.empty() ? "" : ",";
  int64_t total = 0;
  for (size_t i = 0; i < bounds_.size(); ++i) {
    total += counts_[i];
    out += fmt::format("{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma, bounds_[i], total);
  }
  total += counts_.back();
  out += fmt::format("{}_bucket{{{}{}le=\"+Inf\"}} {}\n", name, labels, comma, total);
  write_sample(out, name + "_sum", labels, sum_);
  write_sample(out, name + "_count", labels, static_cast<double>(total));
}

}  // namespace tandem::server
