// The tokens of few rows: in the head's own kernel, or through its screen.
#pragma once

#include <optional>

#include "gpu/weights.h"
#include "ops/cuda/head_screen.h"

namespace tandem::gpu {

// `rows`: their operand, or NormedRows. Fills in the head's part of `argmax`; returns whether these
// kernels take the head and the rows, and has launched nothing if not.
template <typename Rows>
bool choose_in_head(const ops::cuda::Stream& stream, const Projection& head,
                    const std::optional<Screen>& screen, const ops::cuda::DeviceBuffer& exchange,
                    const ops::cuda::SideProduct& side, const Rows& rows,
                    ops::cuda::HeadArgmax& argmax) {
  argmax.logits.scale = head.scales[0];
  argmax.logits.scales = head.feature_scales.as<float>();
  argmax.exchange = exchange.data();
  if (screen && takes_screened_head(head.weight, screen->weight, side, argmax.logits)) {
    screened_head(stream, head.weight, screen->view(), side, rows, argmax);
    return true;
  }
  if (!takes_head_product(head.weight, side, argmax.logits)) return false;
  head_product(stream, head.weight, side, rows, argmax);
  return true;
}

}  // namespace tandem::gpu
