// Partial sums and operands as the host sees them, and comparisons that say where rows differ.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/bf16.h"
#include "core/e4m3.h"
#include "core/tensor_view.h"
#include "ops/cuda/operand.cuh"
#include "ops/cuda/partials.cuh"
#include "ops/rms_norm.h"
#include "tests/gpu/operand_layout.h"
#include "tests/gpu/support.h"

namespace tandem::tests {

using core::BFloat16;
using Bf16Rows = std::vector<BFloat16>;  // [num_rows, columns]

// What a product left, made up. Everything that is not a sum is NaN: columns beyond the last one,
// slots beyond a set's pieces, rows that were not filled.
class HostSums {
 public:
  HostSums(int num_rows, int columns, int set_blocks, int num_shares) : columns_(columns) {
    const int num_sets = (columns + ops::cuda::kSetColumns - 1) / ops::cuda::kSetColumns;
    layout_.num_rows = num_rows;
    layout_.set_blocks = set_blocks;
    layout_.total_blocks = num_sets * set_blocks;
    layout_.num_shares = std::min(num_shares, num_sets * set_blocks);
    for (int set = 0; set < num_sets; ++set)
      layout_.max_pieces = std::max(layout_.max_pieces, layout_.num_pieces(set));
    data_.assign(static_cast<size_t>(num_sets * layout_.max_pieces) *
                     static_cast<size_t>(num_rows * ops::cuda::kSetColumns),
                 std::numeric_limits<float>::quiet_NaN());
  }

  int pieces(int column) const { return layout_.num_pieces(column / ops::cuda::kSetColumns); }
  int max_pieces() const { return layout_.max_pieces; }
  float& piece(int row, int column, int i) {
    const int64_t set = column / ops::cuda::kSetColumns;
    const int64_t line = (set * layout_.max_pieces + i) * layout_.num_rows + row;
    return data_[static_cast<size_t>(line * ops::cuda::kSetColumns +
                                     column % ops::cuda::kSetColumns)];
  }
  // The sum is exactly `value`.
  void set(int row, int column, float value) {
    const int n = pieces(column);
    for (int i = 0; i < n; ++i) piece(row, column, i) = n == 1 ? value : (i < 2 ? value / 2 : 0.0F);
  }
  void set_row(int row, float value) {
    for (int column = 0; column < columns_; ++column) set(row, column, value);
  }
  void fill_normal(uint32_t seed, float sigma, int num_rows) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, sigma);
    for (int row = 0; row < num_rows; ++row)
      for (int column = 0; column < columns_; ++column)
        for (int i = 0; i < pieces(column); ++i) piece(row, column, i) = normal(random);
  }
  // FP32, pieces in order; with several groups, sums of runs of pieces in order.
  float at(int row, int column, int groups = 1) {
    const int count = pieces(column);
    float sum = 0.0F;
    for (int group = 0; group < groups; ++group) {
      const int begin = count * group / groups;
      const int end = count * (group + 1) / groups;
      float run = begin < end ? piece(row, column, begin) : 0.0F;
      for (int i = begin + 1; i < end; ++i) run += piece(row, column, i);
      sum = group == 0 ? run : sum + run;
    }
    return sum;
  }
  // Of sums with the same columns and cuts.
  void copy_row(HostSums& from, int from_row, int row) {
    for (int column = 0; column < columns_; ++column)
      for (int i = 0; i < pieces(column); ++i)
        piece(row, column, i) = from.piece(from_row, column, i);
  }
  // Valid until the next call.
  ops::cuda::Partials upload() {
    device_ = to_device(data_);
    layout_.data = device_.as<float>();
    return layout_;
  }
  Bf16Rows bf16(int num_rows, int begin, int end, float scale, int groups = 1) {
    Bf16Rows rows;
    for (int row = 0; row < num_rows; ++row)
      for (int column = begin; column < end; ++column)
        rows.push_back(core::to_bf16(at(row, column, groups) * scale));
    return rows;
  }

 private:
  int columns_;
  ops::cuda::Partials layout_;
  std::vector<float> data_;
  ops::cuda::DeviceBuffer device_;
};

inline core::TensorView matrix(Bf16Rows& rows, int64_t columns) {
  return core::TensorView(rows.data(), core::DType::kBF16,
                          {static_cast<int64_t>(rows.size()) / columns, columns});
}

// An operand on the device with a guard behind it, and its values by row and column.
class TestOperand {
 public:
  TestOperand(int num_rows, int columns, float input_scale)
      : tiles_((num_rows + 7) / 8),
        size_(static_cast<size_t>(columns) * static_cast<size_t>(tiles_) *
              (input_scale > 0 ? 8 : 16)),
        scale_(input_scale),
        device_(poisoned(size_ + kGuard)) {}

  ops::cuda::Operand view() const { return {device_.data(), tiles_, scale_}; }
  void read() { bytes_ = to_host<uint8_t>(device_, size_ + kGuard); }
  bool guard_intact() const {
    return std::all_of(bytes_.end() - kGuard, bytes_.end(), [](uint8_t x) { return x == 0xff; });
  }
  uint16_t bits(int row, int column) const {
    return operand_bits(bytes_, scale_ > 0, tiles_, row, column);
  }
  float value(int row, int column) const {
    const uint16_t x = bits(row, column);
    return scale_ > 0 ? core::e4m3_to_float(static_cast<uint8_t>(x)) : core::to_float(BFloat16{x});
  }
  float quantized(float x) const {
    return scale_ > 0 ? core::e4m3_to_float(core::float_to_e4m3(x / scale_)) : x;
  }
  // Exactly these values, quantized as the operand is.
  void expect(const char* what, const Bf16Rows& rows, int num_rows, int columns) {
    int failures = 0;
    for (int r = 0; r < num_rows; ++r)
      for (int c = 0; c < columns; ++c) {
        const float x = core::to_float(rows[static_cast<size_t>(r * columns + c)]);
        if (value(r, c) == quantized(x)) continue;
        if (++failures <= 5)
          ADD_FAILURE() << what << ": row " << r << " column " << c << ": expected " << quantized(x)
                        << " (of " << x << "), got " << value(r, c);
      }
    EXPECT_EQ(failures, 0) << what;
    EXPECT_TRUE(guard_intact()) << what << ": written beyond the end";
  }

 private:
  static constexpr int kGuard = 256;
  int tiles_;
  size_t size_;  // bytes
  float scale_;
  ops::cuda::DeviceBuffer device_;
  std::vector<uint8_t> bytes_;
};

// rms(x) * weight by the reference.
inline Bf16Rows norm_of(Bf16Rows x, Bf16Rows weight, float eps) {
  const core::Shape shape{static_cast<int64_t>(weight.size())};
  const core::TensorView rows = matrix(x, shape[0]);
  ops::rms_norm({ops::Backend::kReference, nullptr}, rows,
                core::TensorView(weight.data(), core::DType::kBF16, shape), eps, rows);
  return x;
}

// The distance of neighbouring BF16 values at x.
inline float bf16_step(float x) {
  return std::ldexp(1.0F, std::max(x == 0.0F ? -126 : std::ilogb(x), -126) - 7);
}

// Within tolerance(i) of the expected value everywhere, and equal but for one value in a hundred:
// FP32 sums in another order differ by 1e-6 and cross a rounding border of BF16 less often than
// that; a rounding too many or too few would show in a tenth of all values.
template <typename Tolerance>
void expect_rows(const char* what, const Bf16Rows& expected, const Bf16Rows& got, int columns,
                 const Tolerance& tolerance) {
  ASSERT_EQ(expected.size(), got.size()) << what;
  int failures = 0;
  size_t different = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const float want = core::to_float(expected[i]);
    const float have = core::to_float(got[i]);
    different += want == have ? 0 : 1;
    if (std::fabs(want - have) <= tolerance(i) || ++failures > 5) continue;
    ADD_FAILURE() << what << ": row " << i / static_cast<size_t>(columns) << " column "
                  << i % static_cast<size_t>(columns) << ": expected " << want << ", got " << have;
  }
  EXPECT_EQ(failures, 0) << what;
  EXPECT_LE(different, expected.size() / 100 + 1) << what << ": values that differ";
}

}  // namespace tandem::tests
