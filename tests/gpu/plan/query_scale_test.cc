// The scale of queries over a cache of E4M3.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "ops/cuda/attention.h"

namespace tandem::ops::cuda {
namespace {

TEST(QueryScale, NoQueryOfANormedHeadSaturates) {
  for (const int head_dim : {32, 64, 128, 256, 512})
    for (float weight = 0x1p-20F; weight < 0x1p20F; weight *= 1.37F) {
      const float scale = attention_query_scale(head_dim, weight);
      EXPECT_EQ(std::exp2(std::rint(std::log2(scale))), scale) << "a power of two";
      // All of a head in one column, which the rotation leaves there; BF16 may have rounded it up.
      const float largest = std::sqrt(static_cast<float>(head_dim)) * weight * (1.0F + 0x1p-7F);
      EXPECT_LE(largest * scale, 448.0F) << head_dim << ' ' << weight;
      EXPECT_GT(largest * scale, 448.0F / 2 / 1.03F) << head_dim << ' ' << weight;
    }
}

TEST(QueryScale, IsFiniteWhateverTheWeights) {
  for (const float weight :
       {0.0F, std::numeric_limits<float>::denorm_min(), 3e38F,
        std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
    const float scale = attention_query_scale(256, weight);
    EXPECT_TRUE(std::isfinite(scale) && scale > 0) << weight;
    EXPECT_GT(1.0F / scale, 0.0F) << weight;
  }
}

}  // namespace
}  // namespace tandem::ops::cuda
