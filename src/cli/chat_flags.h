// The flags of `tandem chat`.
#pragma once

#include <string>

#include "cli/model_flags.h"
#include "cli/prompt_encoder.h"
#include "cli/sampling_flags.h"

namespace tandem::cli {

struct ChatFlags {
  ModelFlags model;
  SamplingFlags sampling;
  PromptFlags prompt;
  std::string history_file;
  bool show_accepted = false;
};

}  // namespace tandem::cli
