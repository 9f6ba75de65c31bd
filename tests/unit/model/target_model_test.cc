// Rows are alike: chunks, company and recycled KV places change no bit.
#include "model/target_model.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "model/pair.h"
#include "model/single_sequence.h"
#include "tests/support/temp_folder.h"

namespace tandem::model {
namespace {

class Target : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    PairOptions options;
    options.target = std::filesystem::path(TANDEM_TEST_DATA) / "golden" / GetParam();
    auto pair = load_pair(options);
    ASSERT_TRUE(pair.has_value()) << pair.error().message;
    pair_ = std::move(*pair);
    for (int i = 0; i < kTokens; ++i) ids_.push_back((13 * i + 5) % 160);
  }

  // Hidden states of all tokens, run in chunks of `chunk` rows over a poisoned store.
  std::vector<char> hidden_in_chunks(int64_t chunk, core::ThreadPool* pool) {
    const ops::Context context{ops::Backend::kCpu, pool};
    SingleSequence sequence(pair_.target->config(), kTokens, 8, core::DType::kBF16);
    sequence.kv().poison();
    std::vector<char> bytes;
    for (int64_t begin = 0; begin < kTokens; begin += chunk) {
      const int64_t end = std::min<int64_t>(kTokens, begin + chunk);
      std::vector<int32_t> positions, sequences;
      for (int64_t i = begin; i < end; ++i) {
        positions.push_back(static_cast<int32_t>(i));
        sequences.push_back(0);
      }
      const ForwardBatch batch{
          std::span(ids_).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
          positions, sequences, sequence.ring(), sequence.pages()};
      const core::TensorView hidden = pair_.target->forward(context, batch, sequence.kv());
      const auto* data = static_cast<const char*>(hidden.data);
      bytes.insert(bytes.end(), data, data + hidden.shape.num_elements() * 2);
    }
    return bytes;
  }

  // Past twice the ring of 80 (window 16 and 64 rows of slack), so that it wraps.
  static constexpr int kTokens = 230;
  Pair pair_;
  std::vector<int32_t> ids_;
};

TEST_P(Target, ChunksAndThreadsChangeNoBit) {
  const std::vector<char> one_by_one = hidden_in_chunks(1, nullptr);
  core::ThreadPool two(2);
  core::ThreadPool three(3);
  for (const int64_t chunk : {2, 7, 64, 65, 66, 230}) {
    EXPECT_EQ(hidden_in_chunks(chunk, nullptr), one_by_one) << "chunk " << chunk;
    EXPECT_EQ(hidden_in_chunks(chunk, &two), one_by_one) << "chunk " << chunk << ", 2 threads";
  }
  EXPECT_EQ(hidden_in_chunks(230, &three), one_by_one);
}

INSTANTIATE_TEST_SUITE_P(Goldens, Target,
                         ::testing::Values("unified/target", "unified/target-fp8",
                                           "classic/target"));

TEST(RingLength, HoldsTheWindowAndWhatMayBeRejected) {
  for (int64_t window : {1, 16, 1000, 1024})
    for (int64_t drafts : {0, 8}) {
      const int64_t length = ring_len_for(window, drafts, 16);
      EXPECT_GE(length, window + drafts);
      EXPECT_EQ(length % 16, 0);
    }
}

TEST(BlockBytes, AreThoseOfThe12B) {
  const test_support::TempFolder folder;
  std::filesystem::copy_file(
      std::filesystem::path(TANDEM_TEST_DATA) / "data/configs/gemma-4-12B-it.config.json",
      folder / "config.json");
  const auto config = io::read_model_config(folder.path());
  ASSERT_TRUE(config.has_value()) << config.error().message;
  const KvBlockBytes bytes = kv_block_bytes(config->text, 1, core::DType::kBF16);
  EXPECT_EQ(bytes.ring_block_bytes, 327680);
  EXPECT_EQ(bytes.page_block_bytes, 16384);
}

}  // namespace
}  // namespace tandem::model
