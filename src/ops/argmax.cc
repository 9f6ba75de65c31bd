#include "ops/argmax.h"

#include "ops/checks.h"
#include "ops/cpu/cpu.h"
#include "ops/reference/reference.h"

namespace tandem::ops {

void argmax(const Context& context, const core::TensorView& logits,
            std::span<const int32_t> suppressed, std::span<int32_t> tokens) {
  check_dtype("argmax", "logits", logits, core::DType::kF32);
  TANDEM_CHECK_EQ(logits.shape.rank(), size_t{2});
  TANDEM_CHECK_EQ(static_cast<int64_t>(tokens.size()), logits.rows());
  if (!cpu::use_reference(context)) return cpu::argmax(context, logits, suppressed, tokens);
  reference::argmax(logits, suppressed, tokens);
}

}  // namespace tandem::ops
