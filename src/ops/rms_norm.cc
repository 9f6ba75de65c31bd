#include "ops/rms_norm.h"

#include "ops/checks.h"
#include "ops/cpu/cpu.h"
#include "ops/reference/reference.h"

namespace tandem::ops {
namespace {

void check_norm(const core::TensorView& x, const core::TensorView& weight,
                const core::TensorView& out) {
  TANDEM_CHECK_EQ(x.shape.rank(), size_t{2});
  check_activation("rms_norm", "x", x);
  check_dtype("rms_norm", "out", out, x.dtype);
  check_shape("rms_norm", "out", out, x.shape);
  if (weight.data == nullptr) return;
  check_activation("rms_norm", "weight", weight);
  TANDEM_CHECK_EQ(weight.shape.num_elements(), x.cols());
}

}  // namespace

void rms_norm(const Context& context, const core::TensorView& x, const core::TensorView& weight,
              float eps, const core::TensorView& out) {
  check_norm(x, weight, out);
  if (x.rows() == 0) return;
  if (!cpu::use_reference(context)) return cpu::rms_norm(context, x, weight, eps, out);
  reference::rms_norm(x, weight, eps, out);
}

void add_rms_norm(const Context& context, const core::TensorView& branch,
                  const core::TensorView& weight, float eps, float scale,
                  const core::TensorView& residual) {
  check_norm(branch, weight, residual);
  if (branch.rows() == 0) return;
  if (!cpu::use_reference(context))
    return cpu::add_rms_norm(context, branch, weight, eps, scale, residual);
  reference::add_rms_norm(branch, weight, eps, scale, residual);
}

}  // namespace tandem::ops
