#include "ops/argmax.h"

#include <algorithm>

#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

std::vector<int32_t> run(const Context& context, const Tensor& logits,
                         const std::vector<int32_t>& suppressed) {
  std::vector<int32_t> tokens(static_cast<size_t>(logits.rows()), 12345);
  argmax(context, logits, suppressed, tokens);
  return tokens;
}

// body(choose): choose(logits, suppressed) through the reference and every way of the kernels.
template <typename Body>
void for_all_backends(const Body& body) {
  const auto with = [&](const Context& context) {
    body([&](const Tensor& logits, const std::vector<int32_t>& suppressed) {
      return run(context, logits, suppressed);
    });
  };
  with(kReferenceContext);
  for_all_ways(with);
}

Tensor flat(int64_t rows, int64_t vocab, float value) {
  Tensor logits(DType::kF32, {rows, vocab}, 3);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < vocab; ++i) store(logits, r, i, value);
  return logits;
}

TEST(Argmax, FindsTheLargestAndTheFirstAmongEquals) {
  for (const int64_t vocab : {1, 15, 16, 17, 197, 4099}) {
    const Tensor logits = std::move(
        Tensor(DType::kF32, {7, vocab}, 4).fill_normal(static_cast<uint32_t>(vocab), 3.0F));
    // Doubles of the largest value, before and after its first place.
    for (int64_t r = 0; r < 7; ++r) store(logits, r, (r * 61) % vocab, 20.0F);
    for (int64_t r = 0; r < 7; ++r) store(logits, r, (r * 31 + 5) % vocab, 20.0F);
    for_all_backends([&](const auto& choose) {
      const std::vector<int32_t> tokens = choose(logits, {});
      for (int64_t r = 0; r < 7; ++r)
        EXPECT_EQ(tokens[static_cast<size_t>(r)], std::min((r * 61) % vocab, (r * 31 + 5) % vocab))
            << "vocab " << vocab << ", row " << r;
    });
  }
}

TEST(Argmax, SuppressedIdsAreNeverChosen) {
  const Tensor logits = flat(1, 100, -2.0F);
  store(logits, 0, 99, 9.0F);
  store(logits, 0, 0, 8.0F);
  store(logits, 0, 50, 7.0F);
  store(logits, 0, 51, 7.0F);
  for_all_backends([&](const auto& choose) {
    EXPECT_EQ(choose(logits, {}), std::vector<int32_t>{99});
    EXPECT_EQ(choose(logits, {99}), std::vector<int32_t>{0});
    EXPECT_EQ(choose(logits, {0, 99}), std::vector<int32_t>{50});
    EXPECT_EQ(choose(logits, {99, 50, 0, 50}), std::vector<int32_t>{51});
    EXPECT_EQ(choose(logits, {99, 50, 0, 51, 1, -1, 100, 5000}), std::vector<int32_t>{2});
  });
}

TEST(Argmax, ARowThatIsNotFiniteSaysSo) {
  for (const float bad : {std::nanf(""), INFINITY})
    for (const int64_t place : {0, 16, 36}) {
      const Tensor logits = flat(3, 37, 1.0F);
      store(logits, 1, place, bad);
      for_all_backends([&](const auto& choose) {
        EXPECT_EQ(choose(logits, {}), (std::vector<int32_t>{0, kNotFinite, 0}));
        // A suppressed NaN still means that the model is broken.
        EXPECT_EQ(choose(logits, {static_cast<int32_t>(place)})[1], kNotFinite);
      });
    }
}

TEST(Argmax, MinusInfinityIsNoCandidate) {
  const Tensor logits = flat(2, 20, -INFINITY);
  store(logits, 1, 13, -1e30F);
  for_all_backends([&](const auto& choose) {
    EXPECT_EQ(choose(logits, {}), (std::vector<int32_t>{kNotFinite, 13}));
    EXPECT_EQ(choose(logits, {13}), (std::vector<int32_t>{kNotFinite, kNotFinite}));
  });
}

TEST(Argmax, NegativeZeroEqualsZero) {
  const Tensor logits = flat(1, 40, -1.0F);
  store(logits, 0, 3, -0.0F);
  store(logits, 0, 30, 0.0F);
  for_all_backends([&](const auto& choose) { EXPECT_EQ(choose(logits, {})[0], 3); });
}

}  // namespace
}  // namespace tandem::ops::test
