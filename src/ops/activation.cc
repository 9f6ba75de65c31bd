#include "ops/activation.h"

#include "ops/checks.h"
#include "ops/cpu/cpu.h"
#include "ops/reference/reference.h"

namespace tandem::ops {

void gelu_mul(const Context& context, const core::TensorView& gate, const core::TensorView& up,
              const core::TensorView& out) {
  check_activation("gelu_mul", "gate", gate);
  check_activation("gelu_mul", "up", up);
  check_activation("gelu_mul", "out", out);
  check_shape("gelu_mul", "up", up, gate.shape);
  check_shape("gelu_mul", "out", out, gate.shape);
  if (out.rows() == 0) return;
  if (!cpu::use_reference(context)) return cpu::gelu_mul(context, gate, up, out);
  reference::gelu_mul(gate, up, out);
}

void softcap(const Context& context, float cap, const core::TensorView& logits) {
  check_dtype("softcap", "logits", logits, core::DType::kF32);
  TANDEM_CHECK_GT(cap, 0.0F);
  if (logits.rows() == 0) return;
  if (!cpu::use_reference(context)) return cpu::softcap(context, cap, logits);
  reference::softcap(cap, logits);
}

void gather_rows(const Context& context, const core::TensorView& x,
                 std::span<const int32_t> indices, const core::TensorView& out) {
  check_activation("gather_rows", "x", x);
  check_activation("gather_rows", "out", out);
  if (out.rows() == 0) return;
  TANDEM_CHECK_EQ(x.cols(), out.cols());
  if (indices.empty())
    TANDEM_CHECK_EQ(x.rows(), out.rows());
  else
    TANDEM_CHECK_EQ(static_cast<int64_t>(indices.size()), out.rows());
  for (const int32_t index : indices) {
    TANDEM_CHECK_GE(index, 0);
    TANDEM_CHECK_LT(index, x.rows());
  }
  if (!cpu::use_reference(context)) return cpu::scaled_rows(context, x, indices, 1.0F, out);
  reference::gather_rows(x, indices, out);
}

}  // namespace tandem::ops
