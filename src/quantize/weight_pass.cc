#include "quantize/weight_pass.h"

#include <algorithm>
#include <limits>

#include "core/e4m3.h"
#include "quantize/scales.h"

namespace tandem::quantize {
namespace {

using core::BFloat16;

constexpr int64_t kGrain = int64_t{1} << 18;
// Slices of a sum: fixed, so that the order of additions does not depend on the threads.
constexpr int64_t kSlices = 8;

uint16_t largest_magnitude(const BFloat16* values, int64_t count) {
  uint16_t largest = 0;
  for (int64_t i = 0; i < count; ++i)
    largest = std::max(largest, static_cast<uint16_t>(values[i].bits & 0x7fffU));
  return largest;
}

}  // namespace

base::Result<Quotient> parse_quotient(std::string_view name) {
  if (name == "float32") return Quotient::kFloat32;
  if (name == "bfloat16") return Quotient::kBFloat16;
  return base::invalid("--quotient: expected float32 or bfloat16, got {}", name);
}

float weight_amax(const core::TensorView& weight, core::ThreadPool& pool) {
  const auto* values = weight.ptr<BFloat16>();
  const int64_t count = weight.shape.num_elements();
  const int64_t chunks = (count + kGrain - 1) / kGrain;
  std::vector<uint16_t> largest(static_cast<size_t>(chunks), 0);
  pool.parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      largest[static_cast<size_t>(i)] =
          largest_magnitude(values + i * kGrain, std::min(kGrain, count - i * kGrain));
  });
  const auto found = std::ranges::max_element(largest);
  if (found == largest.end()) return 0;
  const float amax = magnitude_at(*found);
  return *found >= 0x7f80U ? std::numeric_limits<float>::infinity() : amax;
}

std::vector<double> weighted_magnitudes(const core::TensorView& weight,
                                        std::span<const double> column_weights,
                                        core::ThreadPool& pool) {
  const int64_t rows = weight.shape[0];
  const int64_t cols = weight.shape[1];
  TANDEM_CHECK_EQ(static_cast<size_t>(cols), column_weights.size());
  std::vector<std::vector<double>> parts(kSlices);
  pool.parallel_for(kSlices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t slice = begin; slice < end; ++slice) {
      std::vector<double>& part = parts[static_cast<size_t>(slice)];
      part.assign(kNumMagnitudes, 0);
      for (int64_t r = rows * slice / kSlices; r < rows * (slice + 1) / kSlices; ++r) {
        const auto* row = weight.row<BFloat16>(r);
        for (int64_t c = 0; c < cols; ++c)
          part[magnitude_index(row[c])] += column_weights[static_cast<size_t>(c)];
      }
    }
  });
  for (size_t slice = 1; slice < parts.size(); ++slice)
    for (size_t i = 0; i < kNumMagnitudes; ++i) parts[0][i] += parts[slice][i];
  return std::move(parts[0]);
}

void add_column_squares(const core::TensorView& weight, std::span<double> sums,
                        core::ThreadPool& pool) {
  const int64_t rows = weight.shape[0];
  TANDEM_CHECK_EQ(static_cast<size_t>(weight.shape[1]), sums.size());
  constexpr int64_t kColumns = 64;
  pool.parallel_for(weight.shape[1], kColumns, [&](int64_t begin, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) {
      const auto* row = weight.row<BFloat16>(r);
      for (int64_t c = begin; c < end; ++c) {
        const double value = core::to_float(row[c]);
        sums[static_cast<size_t>(c)] += value * value;
      }
    }
  });
}

WeightEncoder::WeightEncoder(float scale, Quotient quotient)
    : table_(std::make_unique<std::array<uint8_t, 65536>>()) {
  for (size_t bits = 0; bits < table_->size(); ++bits) {
    float value = core::to_float(BFloat16{static_cast<uint16_t>(bits)}) / scale;
    if (quotient == Quotient::kBFloat16) value = core::round_to_bf16(value);
    (*table_)[bits] = core::float_to_e4m3(value);
  }
}

void WeightEncoder::encode(std::span<const BFloat16> values, uint8_t* bytes,
                           core::ThreadPool& pool) const {
  const uint8_t* table = table_->data();
  pool.parallel_for(static_cast<int64_t>(values.size()), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) bytes[i] = table[values[static_cast<size_t>(i)].bits];
  });
}

}  // namespace tandem::quantize
