#include "gpu/card.h"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::gpu {
namespace {

constexpr int kOldestMajor = 9;  // Hopper: bulk copies, launches that overlap

}  // namespace

base::Status check_card(const Card& card, const std::string& built_for) {
  if (card.major < kOldestMajor)
    return base::unsupported(
        "--device cuda: expected compute capability {}.0 or newer, got {}.{} ({}); use --device "
        "cpu",
        kOldestMajor, card.major, card.minor, card.name);
  if (!card.has_code) {
    std::string wanted = fmt::format("{},{}{}a", built_for, card.major, card.minor);
    std::ranges::replace(wanted, ',', ';');
    return base::unsupported(
        "--device cuda: expected a card that this program was built for ({}), got compute "
        "capability {}.{} ({}); build it with -DTANDEM_CUDA_ARCHITECTURES=\"{}\", or use --device "
        "cpu",
        built_for, card.major, card.minor, card.name, wanted);
  }
  return {};
}

bool is_tested(const Card& card) {
  return card.major == kOldestMajor;
}

std::string untested_warning(const Card& card) {
  return fmt::format(
      "{}: nobody has tested cards with compute capability {}.{}; their kernels were tested on "
      "Hopper (9.0), their speed nowhere",
      card.name, card.major, card.minor);
}

}  // namespace tandem::gpu
