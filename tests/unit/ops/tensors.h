// Random tensors with poisoned surroundings, and comparisons that say where two tensors differ.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "core/bf16.h"
#include "core/buffer.h"
#include "core/e4m3.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "ops/cpu/isa.h"
#include "ops/reference/element.h"

namespace tandem::ops::test {

using core::DType;
using core::Shape;
using core::TensorView;
using reference::load;
using reference::store;

// A tensor that owns memory with `gap` elements of 0xFF (NaN in every float type) after each row
// and a guard row at the end: whoever reads them shows it, whoever writes them is caught by
// surroundings_intact().
class Tensor {
 public:
  Tensor(DType dtype, std::vector<int64_t> dims, int64_t gap = 0) : dims_(std::move(dims)) {
    cols_ = 1;
    for (size_t i = 1; i < dims_.size(); ++i) cols_ *= dims_[i];
    memory_ = core::Buffer(dtype, Shape{dims_[0] + 1, cols_ + gap});
    memory_.fill_bytes(0xff);
    view_ = TensorView(memory_.data(), dtype, Shape(std::span<const int64_t>(dims_)));
    view_.row_stride = cols_ + gap;
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT: reads as the tensor itself
  float at(int64_t row, int64_t column) const { return load(view_, row, column); }
  int64_t rows() const { return dims_[0]; }
  int64_t cols() const { return cols_; }

  Tensor& fill_normal(uint32_t seed, float sigma) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0.0F, sigma);
    for (int64_t r = 0; r < rows(); ++r)
      for (int64_t c = 0; c < cols_; ++c) store(view_, r, c, normal(generator));
    return *this;
  }

  bool surroundings_intact() const {
    const auto size = core::dtype_bytes(view_.dtype);
    const auto* bytes = static_cast<const uint8_t*>(memory_.data());
    for (int64_t r = 0; r <= rows(); ++r)
      for (int64_t c = r == rows() ? 0 : cols_; c < view_.row_stride; ++c)
        for (size_t b = 0; b < size; ++b)
          if (bytes[static_cast<size_t>(r * view_.row_stride + c) * size + b] != 0xff) return false;
    return true;
  }

  // The bytes of one row.
  std::string row_bytes(int64_t row) const {
    const auto size = core::dtype_bytes(view_.dtype);
    const auto* bytes = static_cast<const char*>(memory_.data());
    return std::string(bytes + static_cast<size_t>(row * view_.row_stride) * size,
                       static_cast<size_t>(cols_) * size);
  }

 private:
  std::vector<int64_t> dims_;
  int64_t cols_ = 0;
  core::Buffer memory_;
  TensorView view_;
};

// Same bits in row `row_a` of a and row `row_b` of b.
inline ::testing::AssertionResult same_bits(const Tensor& a, int64_t row_a, const Tensor& b,
                                            int64_t row_b) {
  const std::string x = a.row_bytes(row_a);
  const std::string y = b.row_bytes(row_b);
  if (x == y) return ::testing::AssertionSuccess();
  int64_t column = 0;
  while (column < a.cols() &&
         std::memcmp(&x[static_cast<size_t>(column) * x.size() / static_cast<size_t>(a.cols())],
                     &y[static_cast<size_t>(column) * y.size() / static_cast<size_t>(b.cols())],
                     x.size() / static_cast<size_t>(a.cols())) == 0)
    ++column;
  return ::testing::AssertionFailure()
         << "rows " << row_a << " and " << row_b << " differ from column " << column << ": "
         << a.at(row_a, column) << " and " << b.at(row_b, column);
}

inline ::testing::AssertionResult same_bits(const Tensor& a, const Tensor& b) {
  for (int64_t r = 0; r < a.rows(); ++r) {
    const auto result = same_bits(a, r, b, r);
    if (!result) return result;
  }
  return ::testing::AssertionSuccess();
}

// Half a unit in the last place of a value of this dtype, relative: 8 and 24 significant bits.
inline double half_ulp(DType dtype) {
  return dtype == DType::kBF16 ? std::ldexp(1.0, -8) : std::ldexp(1.0, -24);
}

// Every vector instruction set of this machine.
inline std::vector<cpu::Isa> vector_isas() {
  std::vector<cpu::Isa> isas;
  for (const cpu::Isa isa :
       {cpu::Isa::kAvx2, cpu::Isa::kAvx512, cpu::Isa::kAmxEmulated, cpu::Isa::kAmx})
    if (cpu::has_isa(isa)) isas.push_back(isa);
  return isas;
}

// Whether linear runs on tiles: another order of summation, so other last bits.
inline bool on_tiles(cpu::Isa isa) {
  return isa == cpu::Isa::kAmx || isa == cpu::Isa::kAmxEmulated;
}

// Runs body(context) with 1, 2, 3 and 7 threads.
template <typename Body>
void for_all_threads(const Body& body) {
  for (const int threads : {1, 2, 3, 7}) {
    SCOPED_TRACE(::testing::Message() << threads << " threads");
    core::ThreadPool pool(threads);
    body(Context{Backend::kCpu, &pool});
  }
}

// Runs body(context) with every instruction set and with 1, 2, 3 and 7 threads.
template <typename Body>
void for_all_ways(const Body& body) {
  for (const cpu::Isa isa : vector_isas()) {
    const cpu::ScopedIsa scope(isa);
    SCOPED_TRACE(cpu::isa_name(isa));
    for_all_threads(body);
  }
}

inline const Context kReferenceContext{Backend::kReference, nullptr};

}  // namespace tandem::ops::test
