// A step's wide passes, and the rows of them whose logits are wanted.
#include "gpu/pair_step.h"
#include "gpu/prefill.h"

namespace tandem::gpu {

void PairStep::record_wide(const StepLayout& layout, size_t end) {
  const ControlView& c = control_.device();
  for (; next_wide_ < end; ++next_wide_) {
    const PlannedWidePass& planned = layout.wide[next_wide_];
    const auto row = static_cast<int64_t>(next_wide_) * wide_->capacity;
    const auto tile = static_cast<int64_t>(next_wide_) * control_.sizes().wide_tiles;
    const WidePass pass{.rows = {.num_rows = static_cast<int>(planned.rows.size()),
                                 .tokens = c.wide_tokens + row,
                                 .positions = c.wide_positions + row,
                                 .last_keys = c.wide_positions + row,
                                 .sequences = c.wide_sequences + row},
                        .tiles = {.num_tiles = static_cast<int>(planned.tiles.size()),
                                  .first_rows = c.wide_tile_first_rows + tile,
                                  .num_rows = c.wide_tile_num_rows + tile,
                                  .chunk_begins = c.wide_tile_begins + tile,
                                  .chunk_ends = c.wide_tile_ends + tile,
                                  .widened_rows = c.wide_tile_widened_rows + tile},
                        .ring = ring_table(),
                        .pages = page_table(),
                        .groups = planned.groups};
    target_.forward_wide(stream_, pass, kv_, *wide_);
  }
}

void PairStep::record_gather(const PlannedPass& planned, int64_t offset) {
  const int n = planned.num_padded_rows();
  ops::cuda::gather_rows(stream_, wide_->hidden.as<uint16_t>(), control_.device().sources + offset,
                         n, static_cast<int>(target_.config().hidden_size),
                         hidden_.as<uint16_t>() + offset * target_.config().hidden_size,
                         workspace_.operand_for(n, 0.0F));
}

}  // namespace tandem::gpu
