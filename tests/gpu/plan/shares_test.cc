// How packed weights are shared out among thread blocks.
#include <gtest/gtest.h>

#include <algorithm>

#include "ops/cuda/packed_linear.h"

namespace tandem::ops::cuda {
namespace {

PackedLinear plan(int out_features, int in_features, int num_multiprocessors = 132) {
  return plan_packed_linear(PackedType::kFp8, out_features, in_features, num_multiprocessors);
}

// The 12B's on an H200: whole parts of sets, or whole sets, but for q and k of full layers.
TEST(Shares, AreWholeWhereThatCostsLittle) {
  struct Shape {
    int out_features, in_features, num_shares, max_pieces;
  };
  for (const Shape& shape :
       {Shape{8192, 3840, 128, 2}, Shape{3840, 4096, 120, 4}, Shape{30720, 3840, 120, 1},
        Shape{3840, 15360, 120, 4}, Shape{3840, 8192, 120, 4}, Shape{262144, 3840, 128, 1}}) {
    const PackedLinear weight = plan(shape.out_features, shape.in_features);
    EXPECT_EQ(weight.num_shares, shape.num_shares) << shape.out_features;
    EXPECT_EQ(weight.max_pieces, shape.max_pieces) << shape.out_features;
  }
  EXPECT_EQ(plan(8704, 3840).num_shares, 132);
}

// What a product takes is what the largest share takes.
TEST(Shares, GrowByAnEighthAtMost) {
  for (const int multiprocessors : {1, 7, 48, 132, 148})
    for (int sets = 1; sets <= 700; sets += sets < 40 ? 1 : 37)
      for (const int in_features : {2048, 3840, 5376, 21504}) {
        const PackedLinear weight = plan(sets * kSetColumns, in_features, multiprocessors);
        const Partials plan = weight.partials(nullptr, 8);
        int largest = 0;
        for (int share = 0; share < weight.num_shares; ++share)
          largest = std::max(largest, plan.share_begin(share + 1) - plan.share_begin(share));
        // Few sets are cut into eight pieces each, while these are small.
        const bool few = weight.num_shares == 8 * sets;
        const int64_t shares = few ? weight.num_shares : multiprocessors;
        const int64_t equal = (weight.total_blocks() + shares - 1) / shares;
        EXPECT_LE(int64_t{largest} * 8, equal * 9)
            << sets << " sets of " << in_features << " on " << multiprocessors;
        EXPECT_LE(weight.num_shares, multiprocessors);
      }
}

}  // namespace
}  // namespace tandem::ops::cuda
