#include "engine/acceptance_watch.h"

#include <fmt/format.h>

namespace tandem::engine {

std::optional<std::string> AcceptanceWatch::add_round(int num_drafted, int num_accepted) {
  if (num_drafted == 0) return std::nullopt;
  num_first_accepted_ += num_accepted > 0 ? 1 : 0;
  if (++num_drafts_ < kWindowDrafts) return std::nullopt;
  const int first_accepted = num_first_accepted_;
  const double rate = static_cast<double>(first_accepted) / kWindowDrafts;
  num_drafts_ = 0;
  num_first_accepted_ = 0;
  const bool low = rate < kLowRate;
  const bool warn = low && !warned_;
  warned_ = low;
  if (!warn) return std::nullopt;
  return fmt::format(
      "speculation: the target accepted the first drafted token in {} of the last {} drafts "
      "({:.1f} %); expected more than {:.0f} %. The text is right, but drafting only costs time. "
      "Likely causes: the assistant was made for another target (or for its base model), its "
      "quantization scales are missing or wrong, the prompt lacks BOS or the chat template, or "
      "the FP8 KV scales are not those the assistant expects. `tandem inspect` shows the pair; "
      "num_speculative_tokens 0 turns drafting off",
      first_accepted, kWindowDrafts, 100 * rate, 100 * kLowRate);
}

}  // namespace tandem::engine
