#include "ops/embed.h"

#include "ops/checks.h"
#include "ops/cpu/cpu.h"
#include "ops/reference/reference.h"

namespace tandem::ops {

void embed(const Context& context, std::span<const int32_t> ids, const core::TensorView& table,
           float scale, const core::TensorView& out) {
  check_activation("embed", "table", table);
  check_activation("embed", "out", out);
  check_shape("embed", "out", out, core::Shape{static_cast<int64_t>(ids.size()), table.shape[1]});
  for (const int32_t id : ids) {
    TANDEM_CHECK_GE(id, 0);
    TANDEM_CHECK_LT(id, table.rows());
  }
  if (ids.empty()) return;
  if (!cpu::use_reference(context)) return cpu::scaled_rows(context, table, ids, scale, out);
  reference::embed(ids, table, scale, out);
}

}  // namespace tandem::ops
