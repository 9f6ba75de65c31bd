// A device that is not there: what is launched on it runs late, on the host, in functions that
// stand for the kernels. Rows are not computed: a row's state is a hash of the tokens that its keys
// belong to (text.h), so whatever stands in a wrong place is seen at once.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string_view>

#include "ops/cuda/device.h"

namespace tandem::emulated {

struct DeviceSettings {
  int64_t window = 16;  // keys that a row of the sliding layer sees
  bool runs_wide = false;
  bool has_screen = true;
  double undecided_share = 0.0;  // of draws that the device leaves to the host
  double unknown_share = 0.0;    // of rows of which a screen does not find the likeliest tokens
};

// What has run, so that a test can tell that it tests anything.
struct DeviceCounts {
  int64_t passes = 0;
  int64_t wide_passes = 0;
  int64_t graph_launches = 0;
  int64_t fact_passes = 0;  // whose tokens the host chooses
  int64_t undecided = 0;
  int64_t right_drafts = 0;
};

struct Device {
  DeviceSettings settings;
  DeviceCounts counts;
  std::mt19937_64 rng;  // of draws, guesses and how late things run
  uint64_t clock = 1;   // nanoseconds
  int64_t num_faults = 0;

  bool happens(double share);
  uint64_t tick() { return clock += 2000; }
};

// The device that all calls mean.
Device& device();
// A new one; the old one's streams are gone.
void start_device(const DeviceSettings& settings, uint64_t seed);

// A fault of the host's code. The first ones are reported, all are counted.
void fault(std::string_view what, int64_t expected, int64_t got);
void expect_equal(std::string_view what, int64_t expected, int64_t got);

// Launches a kernel: into the graph that the stream captures, or to its end.
void submit(const ops::cuda::Stream& stream, std::function<void()> kernel);
bool is_capturing(const ops::cuda::Stream& stream);

}  // namespace tandem::emulated
