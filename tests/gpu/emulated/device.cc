#include "tests/gpu/emulated/device.h"

#include <gtest/gtest.h>

namespace tandem::emulated {

bool Device::happens(double share) {
  return static_cast<double>(rng() % 1000000) < share * 1e6;
}

Device& device() {
  static Device device;
  return device;
}

void start_device(const DeviceSettings& settings, uint64_t seed) {
  device() = {.settings = settings, .counts = {}, .rng = std::mt19937_64(seed)};
}

void fault(std::string_view what, int64_t expected, int64_t got) {
  constexpr int64_t kMostReported = 20;
  static int64_t num_reported = 0;
  ++device().num_faults;
  if (num_reported++ < kMostReported)
    ADD_FAILURE() << what << ": expected " << expected << ", got " << got;
}

void expect_equal(std::string_view what, int64_t expected, int64_t got) {
  if (expected != got) fault(what, expected, got);
}

}  // namespace tandem::emulated
