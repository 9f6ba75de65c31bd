#include <gtest/gtest.h>

#include "gpu/prefill.h"

namespace tandem::gpu {
namespace {

io::TextConfig target(int64_t num_heads, int64_t num_full_kv_heads) {
  io::TextConfig config;
  config.hidden_size = 3840;
  config.intermediate_size = 15360;
  config.num_attention_heads = num_heads;
  io::LayerConfig sliding;
  sliding.head_dim = 256;
  sliding.num_key_value_heads = 8;
  io::LayerConfig full;
  full.type = io::LayerType::kFull;
  full.head_dim = 512;
  full.num_key_value_heads = num_full_kv_heads;
  config.layers = {sliding, full};
  return config;
}

TEST(WideSizes, KeysOfE4m3AreWidenedInFullLayers) {
  const WideSizes sizes = wide_sizes(target(16, 1), core::DType::kF8E4M3, 131000);
  EXPECT_EQ(sizes.widened, 512);
  EXPECT_EQ(sizes.widened_rows, 131008);
  const WideSizes bf16 = wide_sizes(target(16, 1), core::DType::kBF16, 131000);
  EXPECT_EQ(bf16.widened_rows, 0);
  EXPECT_EQ(sizes.most_bytes(2048) - bf16.most_bytes(2048), int64_t{131008} * 512 * 2 * 2);
}

// Memory is divided before it is known how long sequences can be.
TEST(WideSizes, BytesOfTheLongestAreEnoughForShorterOnes) {
  for (const int64_t kv_heads : {1, 2, 4}) {
    const io::TextConfig config = target(32, kv_heads);
    const int64_t most = wide_sizes(config, core::DType::kF8E4M3, 1 << 20).most_bytes(2048);
    for (int64_t length = 64; length <= 1 << 20; length *= 2)
      EXPECT_LE(wide_sizes(config, core::DType::kF8E4M3, length).most_bytes(2048), most) << length;
  }
}

}  // namespace
}  // namespace tandem::gpu
