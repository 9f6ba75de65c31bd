// How far a long piece of work is: a bar on a terminal, a line now and then otherwise.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace tandem::cli {

// Shows nothing for work that is done within a second. One thread at a time.
class Progress {
 public:
  // `label` says what is being done ("loading demo/target").
  explicit Progress(std::string label);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` stands behind the bar: "12 of 200 answers, 148 tokens/s".
  void update(int64_t done, int64_t total, std::string_view note = {});

 private:
  void draw(double share, double seconds_left, std::string_view note) const;

  std::string label_;
  bool terminal_;
  bool drawn_ = false;
  base::Stopwatch age_;
  double next_seconds_;  // when to show again
};

// "4 s", "3 min 20 s", "2 h 5 min".
std::string describe_seconds(double seconds);
// "25.1 MB", "23.9 GB": powers of 1,000.
std::string describe_bytes(double bytes);

}  // namespace tandem::cli
