// How a load runs: what a user may set, and what the device can do.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>

#include "engine/engine.h"
#include "gpu/device_step.h"
#include "tests/gpu/emulated/device.h"

namespace tandem::emulated {

// A seed's own numbers.
class Dice {
 public:
  explicit Dice(uint64_t seed) : rng_(seed) {}

  int64_t from(int64_t least, int64_t most) {
    return least + static_cast<int64_t>(rng_() % static_cast<uint64_t>(most - least + 1));
  }
  int64_t one_of(std::initializer_list<int64_t> values) {
    return values.begin()[rng_() % values.size()];
  }
  bool one_in(uint64_t count) { return rng_() % count == 0; }
  uint64_t any() { return rng_(); }

 private:
  std::mt19937_64 rng_;
};

struct Settings {
  int num_drafts = 4;
  bool auto_drafts = false;
  int64_t max_sequences = 8;
  int64_t max_batched_tokens = 512;
  int64_t max_chunk_tokens = 512;
  int64_t block_size = 16;
  int64_t num_page_blocks = 400;
  int64_t num_snapshot_blocks = 40;
  int64_t max_model_len = 700;
  bool prefix_caching = true;
  bool priorities = false;
  bool cancels = false;
  bool whole_rows = false;
  bool graphs = true;
  int64_t max_shapes = 256;
  DeviceSettings device;

  engine::EngineOptions engine_options() const;
  gpu::DeviceStepOptions step_options() const;
  std::string describe() const;
};

Settings any_settings(Dice& dice);
// Few sequences, whose steps have thousands of rows.
Settings long_settings(Dice& dice);
// Steps of several passes.
Settings many_settings(Dice& dice);

}  // namespace tandem::emulated
