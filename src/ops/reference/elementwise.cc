#include <cmath>

#include "ops/reference/element.h"
#include "ops/reference/reference.h"

namespace tandem::ops::reference {
namespace {

float gelu_tanh(float x) {
  constexpr float kSqrtTwoOverPi = 0.7978845608028654F;
  const float inner = kSqrtTwoOverPi * (x + 0.044715F * (x * x * x));
  return 0.5F * x * (1.0F + std::tanh(inner));
}

}  // namespace

void gelu_mul(const core::TensorView& gate, const core::TensorView& up,
              const core::TensorView& out) {
  for (int64_t r = 0; r < out.rows(); ++r)
    for (int64_t i = 0; i < out.cols(); ++i)
      store(out, r, i, rounded(out.dtype, gelu_tanh(load(gate, r, i))) * load(up, r, i));
}

void softcap(float cap, const core::TensorView& logits) {
  for (int64_t r = 0; r < logits.rows(); ++r)
    for (int64_t i = 0; i < logits.cols(); ++i)
      store(logits, r, i, cap * std::tanh(load(logits, r, i) / cap));
}

void gather_rows(const core::TensorView& x, std::span<const int32_t> indices,
                 const core::TensorView& out) {
  for (int64_t r = 0; r < out.rows(); ++r) {
    const int64_t from = indices.empty() ? r : indices[static_cast<size_t>(r)];
    for (int64_t i = 0; i < out.cols(); ++i) store(out, r, i, load(x, from, i));
  }
}

void embed(std::span<const int32_t> ids, const core::TensorView& table, float scale,
           const core::TensorView& out) {
  for (int64_t r = 0; r < out.rows(); ++r)
    for (int64_t i = 0; i < out.cols(); ++i)
      store(out, r, i, load(table, ids[static_cast<size_t>(r)], i) * scale);
}

void rope(const core::TensorView& cos, const core::TensorView& sin, const core::TensorView& x) {
  const int64_t num_heads = x.shape[1];
  const int64_t dim = x.shape[2];
  const int64_t half = dim / 2;
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t head = 0; head < num_heads; ++head)
      for (int64_t i = 0; i < half; ++i) {
        const float low = load(x, r, head * dim + i);
        const float high = load(x, r, head * dim + i + half);
        const float c = load(cos, r, i);
        const float s = load(sin, r, i);
        store(x, r, head * dim + i, low * c - high * s);
        store(x, r, head * dim + i + half, high * c + low * s);
      }
}

}  // namespace tandem::ops::reference
