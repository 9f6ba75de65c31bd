// Which cards the program runs on, and what it says of the others.
#include "gpu/card.h"

#include <gtest/gtest.h>

namespace tandem::gpu {
namespace {

std::string refusal(const Card& card, const std::string& built_for) {
  const base::Status status = check_card(card, built_for);
  return status ? "" : status.error().message;
}

TEST(Card, RunsWhereItHasCode) {
  const Card hopper{"H200", 9, 0, true};
  EXPECT_EQ(refusal(hopper, "90a"), "");
  EXPECT_TRUE(is_tested(hopper));
  const Card other{"RTX 5090", 12, 0, true};
  EXPECT_EQ(refusal(other, "90a,120a"), "");
  EXPECT_FALSE(is_tested(other));
  EXPECT_TRUE(untested_warning(other).starts_with(
      "RTX 5090: nobody has tested cards with compute capability 12.0"));
}

TEST(Card, RefusalsSayWhichBuildWouldRun) {
  EXPECT_EQ(
      refusal({"GB10", 12, 1, false}, "90a,120a"),
      "--device cuda: expected a card that this program was built for (90a,120a), got compute "
      "capability 12.1 (GB10); build it with -DTANDEM_CUDA_ARCHITECTURES=\"90a;120a;121a\", "
      "or use --device cpu");
  // No build has code for it.
  EXPECT_EQ(refusal({"L40S", 8, 9, false}, "90a"),
            "--device cuda: expected compute capability 9.0 or newer, got 8.9 (L40S); use --device "
            "cpu");
}

}  // namespace
}  // namespace tandem::gpu
