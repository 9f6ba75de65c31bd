// On which cards the kernels run.
#pragma once

#include <string>

#include "base/status.h"

namespace tandem::gpu {

struct Card {
  std::string name;
  int major = 0;  // compute capability
  int minor = 0;
  bool has_code = false;  // this program has machine code for it
};

// `built_for`: the architectures of this program, separated by commas.
base::Status check_card(const Card& card, const std::string& built_for);

// Hopper is what the kernels are made for, tested and measured on; of any other card the user is
// told that it is not.
bool is_tested(const Card& card);
std::string untested_warning(const Card& card);

}  // namespace tandem::gpu
