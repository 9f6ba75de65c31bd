#include "model/draft_head.h"

#include <algorithm>
#include <cmath>

#include "core/bf16.h"
#include "core/e4m3.h"
#include "core/thread_pool.h"

namespace tandem::model {
namespace {

// One token's row; returns its scale. A row of zeros keeps scale 1.
float convert_row(const core::BFloat16* from, int64_t length, uint8_t* to) {
  float largest = 0;
  for (int64_t i = 0; i < length; ++i)
    largest = std::max(largest, std::abs(core::to_float(from[i])));
  const float scale = largest == 0.0F ? 1.0F : largest / core::kE4M3Max;
  for (int64_t i = 0; i < length; ++i) to[i] = core::float_to_e4m3(core::to_float(from[i]) / scale);
  return scale;
}

}  // namespace

int64_t draft_head_bytes(const core::TensorView& stored, DraftHeadFormat format) {
  const bool fp8 = format == DraftHeadFormat::kFp8;
  return stored.shape.num_elements() * (fp8 ? 1 : 2) +
         (fp8 ? stored.shape[0] * static_cast<int64_t>(sizeof(float)) : 0);
}

DraftHead::DraftHead(const core::TensorView& stored, DraftHeadFormat format) {
  TANDEM_CHECK(stored.dtype == core::DType::kBF16);
  weight_.weight = stored;
  if (format == DraftHeadFormat::kCheckpoint) return;
  codes_ = core::Buffer(core::DType::kF8E4M3, stored.shape);
  scales_ = core::Buffer(core::DType::kF32, {stored.shape[0]});
  const int64_t length = stored.cols();
  auto* const codes = static_cast<uint8_t*>(codes_.data());
  auto* const scales = static_cast<float*>(scales_.data());
  core::ThreadPool pool(0);
  pool.parallel_for(stored.rows(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      scales[row] = convert_row(stored.row<core::BFloat16>(row), length, codes + row * length);
  });
  weight_.format = ops::LinearFormat::kFp8Channel;
  weight_.weight = codes_.view();
  weight_.weight_scales = scales_.view();
}

int64_t DraftHead::size_bytes() const {
  return weight_.weight.shape.num_elements() *
             static_cast<int64_t>(core::dtype_bytes(weight_.weight.dtype)) +
         static_cast<int64_t>(scales_.size_bytes());
}

}  // namespace tandem::model
