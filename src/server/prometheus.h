// The text that Prometheus reads, and histograms in it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tandem::server {

// `labels` are without braces, such as model_name="x"; values go through escape_label.
std::string escape_label(const std::string& label);
// HELP and TYPE of a metric whose samples follow.
void begin_metric(std::string& out, const std::string& name, const std::string& help,
                  const char* type);
void write_sample(std::string& out, const std::string& name, const std::string& labels,
                  double value);
// A metric of one sample. A counter's name ends in _total.
void write_counter(std::string& out, const std::string& name, const std::string& help,
                   const std::string& labels, double value);
void write_gauge(std::string& out, const std::string& name, const std::string& help,
                 const std::string& labels, double value);

class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds);
  void observe(double value, int64_t count = 1);
  void write(std::string& out, const std::string& name, const std::string& help,
             const std::string& labels) const;

 private:
  std::vector<double> bounds_;
  std::vector<int64_t> counts_;  // [bounds + 1]
  double sum_ = 0;
};

}  // namespace tandem::server
