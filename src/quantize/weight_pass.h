// What is read from, and made of, one BF16 weight. Same results for any number of threads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/bf16.h"
#include "core/tensor_view.h"
#include "core/thread_pool.h"

namespace tandem::quantize {

// In which precision weight / scale is computed before it is rounded to E4M3.
enum class Quotient {
  kFloat32,   // rounded once
  kBFloat16,  // rounded to BF16 first: what ModelOpt's export gets from torch
};

// "float32", "bfloat16".
base::Result<Quotient> parse_quotient(std::string_view name);

// Largest magnitude; infinity when a value is NaN or infinite. weight BF16, any shape.
float weight_amax(const core::TensorView& weight, core::ThreadPool& pool);

// How often each magnitude occurs, every element counted with the weight of its column.
// weight [out, in] BF16; column_weights [in]; result [kNumMagnitudes].
std::vector<double> weighted_magnitudes(const core::TensorView& weight,
                                        std::span<const double> column_weights,
                                        core::ThreadPool& pool);

// Adds the squares of each column of weight [out, in] to sums [in].
void add_column_squares(const core::TensorView& weight, std::span<double> sums,
                        core::ThreadPool& pool);

// E4M3 bytes of BF16 values for one scale: a table of all 65,536, clamped to +-448.
class WeightEncoder {
 public:
  WeightEncoder(float scale, Quotient quotient);

  uint8_t encode(core::BFloat16 value) const { return (*table_)[value.bits]; }
  void encode(std::span<const core::BFloat16> values, uint8_t* bytes, core::ThreadPool& pool) const;

 private:
  std::unique_ptr<std::array<uint8_t, 65536>> table_;
};

}  // namespace tandem::quantize
