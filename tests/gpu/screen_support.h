// A head, its screen and rows for them, as the tests of what goes through a screen need them.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ops/cuda/head_screen.h"
#include "tests/gpu/row_support.h"

namespace tandem::tests {

struct ScreenCase {
  int vocab;
  int in_features;
  int num_multiprocessors;
  float cap;
  float size;  // of the weights
};

inline std::string name_of(const testing::TestParamInfo<ScreenCase>& info) {
  const ScreenCase& c = info.param;
  return std::to_string(c.vocab) + "_from_" + std::to_string(c.in_features) + "_on_" +
         std::to_string(c.num_multiprocessors) + (c.cap > 0.0F ? "_capped_" : "_") +
         std::to_string(static_cast<int>(c.size * 100));
}

// Sums of which a head makes its rows by itself.
struct NormedInput {
  explicit NormedInput(int hidden)
      : sums(8, hidden, 32, std::max(1, hidden / 128 * 13 / 2)),
        norm(to_device(random_bf16(static_cast<size_t>(hidden), 4))) {
    sums.fill_normal(7, 0.7F, 8);
    rows.hidden = hidden;
    rows.sums = sums.upload();
    rows.scale = 0.83F;
    rows.next_eps = 0.02F;
    rows.weight = norm.as<uint16_t>();
  }
  HostSums sums;
  ops::cuda::DeviceBuffer norm;
  ops::cuda::NormedRows rows;
};

class ScreenTest : public testing::TestWithParam<ScreenCase> {
 protected:
  ScreenTest()
      : head_(packed(ops::cuda::PackedType::kBF16)),
        screen_(packed(ops::cuda::PackedType::kIntegers)),
        scales_(poisoned(columns() * 4)),
        errors_(poisoned(columns() * 4)),
        exchange_(zeros(head_exchange_bytes(screen_))),
        workspace_(zeros(screen_workspace_bytes(screen_))) {}

  static ops::cuda::DeviceBuffer zeros(size_t size_bytes) {
    ops::cuda::DeviceBuffer buffer(size_bytes);
    TANDEM_CUDA_CHECK(cudaMemset(buffer.data(), 0, size_bytes));
    return buffer;
  }
  static int vocab() { return GetParam().vocab; }
  static int in() { return GetParam().in_features; }
  static int multiprocessors() { return GetParam().num_multiprocessors; }
  static int out() { return (vocab() + 15) / 16 * 16; }
  static size_t columns() { return static_cast<size_t>((vocab() + 127) / 128 * 128); }
  static size_t num_weights() { return static_cast<size_t>(out()) * static_cast<size_t>(in()); }
  static ops::cuda::PackedLinear packed(ops::cuda::PackedType type) {
    return ops::cuda::make_packed_linear(type, out(), in(), multiprocessors());
  }
  ops::cuda::HeadScreen screen() const {
    return {&screen_, scales_.as<float>(), errors_.as<float>(), workspace_.data()};
  }

  // Sums of four are near normal; much faster than std::normal_distribution.
  static std::vector<core::BFloat16> random_weights(uint64_t seed) {
    std::vector<core::BFloat16> weights(num_weights());
    for (core::BFloat16& weight : weights) {
      seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
      float sum = 0.0F;
      for (const int shift : {24, 34, 44, 54})
        sum += static_cast<float>(seed >> shift & 1023) - 511.5F;
      weight = core::to_bf16(sum / 600.0F * GetParam().size);
    }
    return weights;
  }
  void set_weights(const std::vector<core::BFloat16>& weights) {
    const auto rows = to_device(weights);
    const auto codes = poisoned(num_weights());
    TANDEM_CUDA_CHECK(cudaMemset(scales_.data(), 0, scales_.size_bytes()));
    TANDEM_CUDA_CHECK(cudaMemset(errors_.data(), 0, errors_.size_bytes()));
    ops::cuda::round_to_integers({}, rows.data(), out(), in(), codes.as<uint8_t>(),
                                 scales_.as<float>(), errors_.as<float>());
    pack_rows({}, head_, rows.data(), 0, out());
    pack_rows({}, screen_, codes.data(), 0, out());
    synchronize();
  }
  static ops::cuda::DeviceBuffer operand_of(const std::vector<core::BFloat16>& x, int num_tiles) {
    ops::cuda::DeviceBuffer operand = poisoned(16 * static_cast<size_t>(in() * num_tiles));
    const auto rows = to_device(x);
    ops::cuda::rows_to_operand({}, rows.as<uint16_t>(), 8 * num_tiles, in(), 0.0F, operand.data(),
                               num_tiles);
    synchronize();
    return operand;
  }
  static std::vector<core::BFloat16> random_rows(uint32_t seed) {
    return random_bf16(8 * static_cast<size_t>(in()), seed);
  }
  // Neighbours of all ids whose logits differ by less than the screen can tell, and many that are
  // equal.
  static std::vector<core::BFloat16> nearly_equal_weights(uint64_t seed) {
    auto weights = random_weights(seed);
    const auto width = static_cast<size_t>(in());
    for (size_t id = 1; id < static_cast<size_t>(out()); ++id) {
      std::copy_n(weights.begin(), width,
                  weights.begin() + static_cast<std::ptrdiff_t>(id * width));
      // One value off by its last bit, or none.
      if (id % 3 != 0) weights[id * width + id % width].bits ^= 1;
    }
    return weights;
  }
  // Each id of another size, down to BF16's limits.
  static std::vector<core::BFloat16> weights_of_any_size(uint64_t seed) {
    auto weights = random_weights(seed);
    for (size_t i = 0; i < weights.size(); ++i) {
      const int exponent = static_cast<int>(i / static_cast<size_t>(in()) % 60) - 50;
      weights[i] = core::to_bf16(std::ldexp(core::to_float(weights[i]), exponent));
    }
    return weights;
  }
  static std::vector<core::BFloat16> random_rows_of_size(uint32_t seed, int exponent) {
    auto x = random_rows(seed);
    for (core::BFloat16& value : x)
      value = core::to_bf16(std::ldexp(core::to_float(value), exponent));
    return x;
  }
  // Row 1 holds NaN and row 3 an infinity.
  static std::vector<core::BFloat16> rows_not_finite(uint32_t seed) {
    auto x = random_rows(seed);
    x[static_cast<size_t>(in()) + 3] = core::BFloat16{0x7fc0};
    x[3 * static_cast<size_t>(in()) + 7] = core::BFloat16{0x7f80};
    return x;
  }
  // Tiles of random rows, of which the second is `x`.
  static std::vector<core::BFloat16> among_others(const std::vector<core::BFloat16>& x,
                                                  int num_tiles) {
    std::vector<core::BFloat16> more;
    for (int tile = 0; tile < num_tiles; ++tile) {
      const auto others = random_rows(static_cast<uint32_t>(100 + tile));
      const auto& rows = tile == 1 ? x : others;
      more.insert(more.end(), rows.begin(), rows.end());
    }
    return more;
  }

  ops::cuda::PackedLinear head_, screen_;
  ops::cuda::DeviceBuffer scales_, errors_, exchange_, workspace_;
};

}  // namespace tandem::tests
