// Operands of many rows as the host sees them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/e4m3.h"
#include "ops/cuda/wide_operand.cuh"
#include "ops/cuda/wide_product.h"
#include "tests/gpu/support.h"

namespace tandem::tests {

// The kernels for prompts, which cards without wgmma do not run.
template <typename Base>
class OfPrompts : public Base {
 protected:
  void SetUp() override {
    if (!ops::cuda::has_warpgroup_products()) GTEST_SKIP() << "this card has no wgmma";
  }
};

// An operand on the device with a guard behind it; what nobody wrote is NaN.
class WideTestOperand {
 public:
  WideTestOperand(int num_rows, int columns, float input_scale)
      : capacity_(static_cast<int>(ops::cuda::whole_wide_tiles(num_rows))),
        size_(static_cast<size_t>(ops::cuda::wide_operand_bytes(columns, capacity_))),
        scale_(input_scale),
        device_(poisoned(size_ + kGuard)) {}
  // Of rows [num_rows, columns].
  WideTestOperand(const std::vector<core::BFloat16>& rows, int num_rows, int columns,
                  float input_scale)
      : WideTestOperand(num_rows, columns, input_scale) {
    const auto device = to_device(rows);
    ops::cuda::rows_to_wide_operand({}, device.as<uint16_t>(), num_rows, columns, view());
    synchronize();
  }

  ops::cuda::WideOperand view() const { return {device_.as<uint8_t>(), capacity_, scale_}; }
  void read() {
    synchronize();
    bytes_ = to_host<uint8_t>(device_, size_ + kGuard);
  }
  bool guard_intact() const {
    return std::all_of(bytes_.end() - kGuard, bytes_.end(), [](uint8_t x) { return x == 0xff; });
  }
  // wide_operand.cuh, said the other way round.
  uint8_t byte(int row, int column) const {
    constexpr int kColumns[4] = {0, 1, 8, 9};
    const int chunk = column % 128 / 16;
    for (int t = 0; t < 4; ++t)
      for (int i = 0; i < 4; ++i)
        if (2 * t + kColumns[i] == column % 16)
          return bytes_[(static_cast<size_t>(column / 128) * static_cast<size_t>(capacity_) +
                         static_cast<size_t>(row)) *
                            128 +
                        static_cast<size_t>((chunk ^ (row % 8)) * 16 + 4 * t + i)];
    return 0;
  }
  float value(int row, int column) const { return core::e4m3_to_float(byte(row, column)); }
  float scale() const { return scale_; }

 private:
  static constexpr int kGuard = 256;
  int capacity_;
  size_t size_;
  float scale_;
  ops::cuda::DeviceBuffer device_;
  std::vector<uint8_t> bytes_;
};

}  // namespace tandem::tests
