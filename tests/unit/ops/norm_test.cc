#include "ops/rms_norm.h"

#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

constexpr float kEps = 1e-6F;

struct Case {
  DType dtype;
  int64_t dim;
  DType weight_dtype;
  bool with_weight;
};

const Case kCases[] = {
    {DType::kF32, 72, DType::kF32, true},     {DType::kBF16, 136, DType::kBF16, true},
    {DType::kF32, 24, DType::kBF16, false},   {DType::kBF16, 7, DType::kF32, true},
    {DType::kBF16, 256, DType::kF32, false},  {DType::kF32, 3840, DType::kBF16, true},
    {DType::kBF16, 3840, DType::kBF16, true},
};

TensorView weight_view(const Case& c, const Tensor& weight) {
  return c.with_weight ? TensorView(weight.view().data, c.weight_dtype, Shape{c.dim})
                       : TensorView();
}

// The norm in double, and its FP32 error: the mean of squares (all positive) is off by at most
// dim * 2^-24 relative, its root by half of that; the root, the reciprocal and two products round.
struct Exact {
  double value;
  double relative;
};
double inverse_rms(const Tensor& x, int64_t row) {
  double squares = 0.0;
  for (int64_t k = 0; k < x.cols(); ++k) {
    const auto value = static_cast<double>(x.at(row, k));
    squares += value * value;
  }
  return 1.0 / std::sqrt(squares / static_cast<double>(x.cols()) + 1e-6);
}
Exact exact_norm(const Case& c, const Tensor& x, int64_t row, const Tensor& weight, int64_t i,
                 double inverse) {
  const double w = c.with_weight ? static_cast<double>(weight.at(0, i)) : 1.0;
  return {static_cast<double>(x.at(row, i)) * inverse * w,
          (0.5 * static_cast<double>(c.dim) + 6.0) * std::ldexp(1.0, -24)};
}

Tensor random_weight(const Case& c) {
  return std::move(Tensor(c.weight_dtype, {1, c.dim}, 4).fill_normal(77, 1.0F));
}

void expect_norm(const Case& c, const Tensor& x, const Tensor& weight, const Tensor& out) {
  for (int64_t r = 0; r < x.rows(); ++r) {
    const double inverse = inverse_rms(x, r);
    for (int64_t i = 0; i < c.dim; ++i) {
      const Exact truth = exact_norm(c, x, r, weight, i, inverse);
      ASSERT_NEAR(static_cast<double>(out.at(r, i)), truth.value,
                  std::fabs(truth.value) * (truth.relative + half_ulp(c.dtype)))
          << "row " << r << ", element " << i;
    }
  }
}

TEST(RmsNorm, EveryBackendIsNearTheExactNorm) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.dim);
    const Tensor x = std::move(Tensor(c.dtype, {5, c.dim}, 3).fill_normal(1, 2.5F));
    const Tensor weight = random_weight(c);
    const Tensor slow(c.dtype, {5, c.dim}, 3);
    rms_norm(kReferenceContext, x, weight_view(c, weight), kEps, slow);
    expect_norm(c, x, weight, slow);
    for_all_ways([&](const Context& context) {
      const Tensor fast(c.dtype, {5, c.dim}, 3);
      rms_norm(context, x, weight_view(c, weight), kEps, fast);
      expect_norm(c, x, weight, fast);
      EXPECT_TRUE(fast.surroundings_intact());
    });
  }
}

TEST(RmsNorm, ARowHasTheSameBitsAloneInPlaceAndAmongMany) {
  for (const Case& c : kCases) {
    const Tensor x = std::move(Tensor(c.dtype, {64, c.dim}).fill_normal(2, 1.0F));
    const Tensor weight = random_weight(c);
    const Tensor expected(c.dtype, {64, c.dim});
    rms_norm(Context{}, x, weight_view(c, weight), kEps, expected);
    for_all_ways([&](const Context& context) {
      for (const int64_t n : {1, 5, 64}) {
        const Tensor part(c.dtype, {n, c.dim}, 9);
        for (int64_t r = 0; r < n; ++r)
          for (int64_t i = 0; i < c.dim; ++i) store(part, r, i, x.at(64 - n + r, i));
        rms_norm(context, part, weight_view(c, weight), kEps, part);
        for (int64_t r = 0; r < n; ++r) ASSERT_TRUE(same_bits(part, r, expected, 64 - n + r));
      }
    });
  }
}

TEST(RmsNorm, AZeroRowStaysZero) {
  const Tensor x(DType::kF32, {1, 40});
  for (int64_t i = 0; i < 40; ++i) store(x, 0, i, 0.0F);
  for (const Context& context : {kReferenceContext, Context{}}) {
    rms_norm(context, x, TensorView(), kEps, x);
    for (int64_t i = 0; i < 40; ++i) EXPECT_EQ(x.at(0, i), 0.0F);
  }
}

// The header's formula once more, with its three roundings.
TEST(AddRmsNorm, EveryBackendIsNearTheExactSum) {
  constexpr float kScale = 0.4375F;
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.dim);
    const Tensor branch = std::move(Tensor(c.dtype, {5, c.dim}, 2).fill_normal(3, 1.0F));
    const Tensor before = std::move(Tensor(c.dtype, {5, c.dim}, 2).fill_normal(4, 3.0F));
    const Tensor weight = random_weight(c);
    const auto expect_sum = [&](const Tensor& after) {
      for (int64_t r = 0; r < 5; ++r) {
        const double inverse = inverse_rms(branch, r);
        for (int64_t i = 0; i < c.dim; ++i) {
          const Exact norm = exact_norm(c, branch, r, weight, i, inverse);
          const double sum = norm.value + static_cast<double>(before.at(r, i));
          const double half = half_ulp(c.dtype);
          const double tolerance = std::fabs(norm.value) * (norm.relative + half) +
                                   2.0 * half * (std::fabs(sum) + std::fabs(norm.value) * half);
          ASSERT_NEAR(static_cast<double>(after.at(r, i)), sum * static_cast<double>(kScale),
                      tolerance * static_cast<double>(kScale))
              << "row " << r << ", element " << i;
        }
      }
    };
    const auto run = [&](const Context& context) {
      Tensor residual(c.dtype, {5, c.dim}, 2);
      for (int64_t r = 0; r < 5; ++r)
        for (int64_t i = 0; i < c.dim; ++i) store(residual, r, i, before.at(r, i));
      add_rms_norm(context, branch, weight_view(c, weight), kEps, kScale, residual);
      EXPECT_TRUE(residual.surroundings_intact());
      return residual;
    };
    expect_sum(run(kReferenceContext));
    const Tensor expected = run(Context{});
    for_all_ways([&](const Context& context) {
      const Tensor after = run(context);
      expect_sum(after);
      EXPECT_TRUE(same_bits(after, expected));
    });
  }
}

// BF16 rounds after the norm, after the sum and after the product; skipping one gives other bits.
TEST(AddRmsNorm, RoundsThreeTimesInBf16) {
  constexpr int64_t kRows = 3000;
  const auto bf16 = [](float value) { return core::round_to_bf16(value); };
  const Tensor branch = std::move(Tensor(DType::kBF16, {kRows, 1}).fill_normal(1, 1.0F));
  const Tensor before = std::move(Tensor(DType::kBF16, {kRows, 1}).fill_normal(2, 1.0F));
  const Tensor weight(DType::kBF16, {1, 1});
  store(weight, 0, 0, 1.3671875F);
  for (const Context& context : {kReferenceContext, Context{}}) {
    const Tensor residual = std::move(Tensor(DType::kBF16, {kRows, 1}).fill_normal(2, 1.0F));
    add_rms_norm(context, branch, TensorView(weight.view().data, DType::kBF16, Shape{1}), 0.5F,
                 0.328125F, residual);
    int64_t norm_matters = 0;
    int64_t sum_matters = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      const float b = branch.at(r, 0);
      const float x = before.at(r, 0);
      const float norm = b * (1.0F / std::sqrt(b * b + 0.5F)) * 1.3671875F;
      const float expected = bf16(bf16(x + bf16(norm)) * 0.328125F);
      norm_matters += expected != bf16(bf16(x + norm) * 0.328125F) ? 1 : 0;
      sum_matters += expected != bf16((x + bf16(norm)) * 0.328125F) ? 1 : 0;
      ASSERT_EQ(residual.at(r, 0), expected) << "row " << r;
    }
    EXPECT_GT(norm_matters, 100);
    EXPECT_GT(sum_matters, 100);
  }
}

}  // namespace
}  // namespace tandem::ops::test
