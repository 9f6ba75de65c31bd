#include "ops/linear.h"

#include <algorithm>
#include <bit>

#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

struct Format {
  const char* name;
  LinearFormat format;
  ActivationQuantization activation;
};

constexpr Format kFormats[] = {
    {"f32", LinearFormat::kF32, ActivationQuantization::kNone},
    {"bf16", LinearFormat::kBF16, ActivationQuantization::kNone},
    {"fp8_tensor_weight_only", LinearFormat::kFp8Tensor, ActivationQuantization::kNone},
    {"fp8_tensor_static", LinearFormat::kFp8Tensor, ActivationQuantization::kStatic},
    {"fp8_tensor_per_token", LinearFormat::kFp8Tensor, ActivationQuantization::kPerToken},
    {"fp8_channel_per_token", LinearFormat::kFp8Channel, ActivationQuantization::kPerToken},
    {"fp8_channel_static", LinearFormat::kFp8Channel, ActivationQuantization::kStatic},
    {"fp8_block_weight_only", LinearFormat::kFp8Block, ActivationQuantization::kNone},
    {"fp8_block_per_token", LinearFormat::kFp8Block, ActivationQuantization::kPerToken},
};

// A weight with everything it points at.
struct Weight {
  Weight(const Format& format, int64_t out, int64_t in, uint32_t seed)
      : values(dtype(format.format), {out, in}, 8),
        scales(DType::kF32, format.format == LinearFormat::kFp8Block
                                ? std::vector<int64_t>{(out + 127) / 128, (in + 127) / 128}
                                : std::vector<int64_t>{1, out}) {
    const bool fp8 = values.view().dtype == DType::kF8E4M3;
    // E4M3 around 2^-6 holds normals and subnormals; around 40 it comes near 448.
    values.fill_normal(seed, fp8 ? (seed % 2 == 0 ? 0.02F : 40.0F) : 0.05F);
    scales.fill_normal(seed + 1, 0.001F);
    for (int64_t r = 0; r < scales.rows(); ++r)
      for (int64_t c = 0; c < scales.cols(); ++c)
        store(scales, r, c, 0.0005F + std::fabs(scales.at(r, c)));
    weight.format = format.format;
    weight.activation = format.activation;
    weight.weight = values;
    weight.weight_scale = 0.0017F;
    weight.input_scale = 0.011F;
    if (format.format == LinearFormat::kFp8Channel) {
      weight.weight_scales = TensorView(scales.view().data, DType::kF32, Shape{out});
    } else if (format.format == LinearFormat::kFp8Block) {
      weight.weight_scales = scales;
    }
  }

  static DType dtype(LinearFormat format) {
    if (format == LinearFormat::kF32) return DType::kF32;
    return format == LinearFormat::kBF16 ? DType::kBF16 : DType::kF8E4M3;
  }

  double scale(int64_t out, int64_t in) const {
    if (weight.format == LinearFormat::kFp8Tensor) return static_cast<double>(weight.weight_scale);
    if (weight.format == LinearFormat::kFp8Channel) return static_cast<double>(scales.at(0, out));
    if (weight.format == LinearFormat::kFp8Block)
      return static_cast<double>(scales.at(out / 128, in / 128));
    return 1.0;
  }

  Tensor values;
  Tensor scales;
  LinearWeight weight;
};

struct Truth {
  double value;    // in double
  double abs_sum;  // sum of |products|
};

// Written from the header's words once more, in double: FP32 rounds the quotient x / scale only.
Truth truth_of(const Tensor& x, int64_t row, const Weight& w, int64_t out) {
  float input_scale = 1.0F;
  if (w.weight.activation == ActivationQuantization::kStatic) input_scale = w.weight.input_scale;
  if (w.weight.activation == ActivationQuantization::kPerToken) {
    float largest = 0.0F;
    for (int64_t i = 0; i < x.cols(); ++i) largest = std::max(largest, std::fabs(x.at(row, i)));
    input_scale = largest / 448.0F;
  }
  Truth truth{0.0, 0.0};
  for (int64_t i = 0; i < x.cols(); ++i) {
    float value = x.at(row, i);
    if (w.weight.activation != ActivationQuantization::kNone)
      value = core::e4m3_to_float(core::float_to_e4m3(value / input_scale));
    const double product = static_cast<double>(value) * static_cast<double>(w.values.at(out, i)) *
                           w.scale(out, i) * static_cast<double>(input_scale);
    truth.value += product;
    truth.abs_sum += std::fabs(product);
  }
  return truth;
}

// A sum of `in` products in any order is off by at most in * 2^-24 * sum of |products| (each
// product and each partial sum is rounded once; a fused one rounds less), the scales add three
// roundings; storing adds half a unit in the last place.
double tolerance(const Truth& truth, int64_t in, DType stored) {
  const double sum_error = static_cast<double>(in + 4) * std::ldexp(1.0, -24) * truth.abs_sum;
  return sum_error + half_ulp(stored) * (std::fabs(truth.value) + sum_error);
}

void expect_near_truth(const Tensor& x, const Weight& w, const Tensor& y) {
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t o = 0; o < y.cols(); ++o) {
      const Truth truth = truth_of(x, r, w, o);
      ASSERT_NEAR(static_cast<double>(y.at(r, o)), truth.value,
                  tolerance(truth, x.cols(), y.view().dtype))
          << "row " << r << ", output " << o;
    }
}

void run(const Context& context, const Tensor& x, const Weight& w, const Tensor& y) {
  const LinearWeight weights[] = {w.weight};
  const TensorView outputs[] = {y};
  linear(context, x, weights, outputs);
}

class LinearTest : public ::testing::TestWithParam<Format> {};

TEST_P(LinearTest, EveryBackendIsNearTheExactSum) {
  uint32_t seed = 0;
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{72, 197},
                                {136, 5},
                                {24, 1},
                                {7, 64},
                                {300, 133},
                                {1024, 24},
                                {2100, 37}}) {
    for (const int64_t n : {1, 2, 5, 16, 17, 40}) {
      SCOPED_TRACE(::testing::Message() << "in " << in << ", out " << out << ", n " << n);
      const DType dtype = ++seed % 2 == 0 ? DType::kF32 : DType::kBF16;
      const Weight w(GetParam(), out, in, seed);
      const Tensor x = std::move(Tensor(dtype, {n, in}, 3).fill_normal(seed + 7, 1.5F));
      const Tensor y(seed % 3 == 0 ? DType::kBF16 : DType::kF32, {n, out}, 5);
      run(kReferenceContext, x, w, y);
      expect_near_truth(x, w, y);
      for (const cpu::Isa isa : vector_isas()) {
        const cpu::ScopedIsa scope(isa);
        const Tensor fast(y.view().dtype, {n, out}, 5);
        run(Context{}, x, w, fast);
        expect_near_truth(x, w, fast);
        EXPECT_TRUE(fast.surroundings_intact());
      }
    }
  }
}

// Rows [first, first + n) of x alone, against the same rows of `expected`.
void expect_same_rows(const Context& context, const Tensor& x, const Weight& w,
                      const Tensor& expected, int64_t first, int64_t n) {
  const Tensor part(x.view().dtype, {n, x.cols()}, 9);
  for (int64_t r = 0; r < n; ++r)
    for (int64_t i = 0; i < x.cols(); ++i) store(part, r, i, x.at(first + r, i));
  const Tensor y(DType::kF32, {n, expected.cols()}, 2);
  run(context, part, w, y);
  for (int64_t r = 0; r < n; ++r) ASSERT_TRUE(same_bits(y, r, expected, first + r)) << n;
}

constexpr std::pair<int64_t, int64_t> kInOut[] = {{72, 197}, {136, 72}, {24, 33},
                                                  {520, 40}, {512, 96}, {2100, 35}};

// The promise of ops/context.h, held bit by bit: speculation rests on it.
TEST_P(LinearTest, ARowHasTheSameBitsHoweverManyRideAlong) {
  for (const DType dtype : {DType::kF32, DType::kBF16})
    for (const auto& [in, out] : kInOut) {
      SCOPED_TRACE(::testing::Message() << "in " << in << ", out " << out);
      const Weight w(GetParam(), out, in, 4);
      const Tensor x = std::move(Tensor(dtype, {64, in}).fill_normal(11, 2.0F));
      for (const cpu::Isa isa : vector_isas()) {
        const cpu::ScopedIsa scope(isa);
        SCOPED_TRACE(cpu::isa_name(isa));
        const Tensor expected(DType::kF32, {64, out});
        run(Context{}, x, w, expected);
        for_all_threads([&](const Context& context) {
          for (const int64_t n : {1, 2, 3, 5, 6, 7, 8, 11, 16, 17, 33, 64})
            expect_same_rows(context, x, w, expected, n == 64 ? 0 : 29 - n / 2, n);
        });
      }
    }
}

TEST_P(LinearTest, EveryNumberOfRowsUpTo32) {
  const int64_t in = 169;
  const Weight w(GetParam(), 41, in, 6);
  const Tensor x = std::move(Tensor(DType::kBF16, {32, in}).fill_normal(12, 2.0F));
  for (const cpu::Isa isa : vector_isas()) {
    const cpu::ScopedIsa scope(isa);
    SCOPED_TRACE(cpu::isa_name(isa));
    const Tensor expected(DType::kF32, {32, 41});
    run(Context{}, x, w, expected);
    for (int64_t n = 1; n <= 32; ++n) expect_same_rows(Context{}, x, w, expected, 32 - n, n);
  }
}

TEST_P(LinearTest, InstructionSetsAgreeWhereTheySay) {
  for (const auto& [in, out] : kInOut) {
    const Weight w(GetParam(), out, in, 4);
    const Tensor x = std::move(Tensor(DType::kBF16, {5, in}).fill_normal(11, 2.0F));
    std::vector<Tensor> lanes;
    std::vector<Tensor> tiles;
    for (const cpu::Isa isa : vector_isas()) {
      const cpu::ScopedIsa scope(isa);
      std::vector<Tensor>& family = on_tiles(isa) ? tiles : lanes;
      run(Context{}, x, w, family.emplace_back(DType::kF32, std::vector<int64_t>{5, out}));
      EXPECT_TRUE(same_bits(family.front(), family.back())) << cpu::isa_name(isa);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, LinearTest, ::testing::ValuesIn(kFormats),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Linear, SeveralProjectionsInOneCallAreTheSameAsEachAlone) {
  const int64_t in = 72;
  Weight q(kFormats[3], 37, in, 1);
  Weight k(kFormats[1], 9, in, 2);
  Weight v(kFormats[3], 24, in, 3);
  v.weight.input_scale = 0.02F;  // its own scale, not q's
  const Tensor x = std::move(Tensor(DType::kBF16, {5, in}).fill_normal(5, 1.0F));
  for_all_ways([&](const Context& context) {
    const Tensor together[] = {Tensor(DType::kF32, {5, 37}), Tensor(DType::kBF16, {5, 9}),
                               Tensor(DType::kF32, {5, 24})};
    const LinearWeight weights[] = {q.weight, k.weight, v.weight};
    const TensorView outputs[] = {together[0], together[1], together[2]};
    linear(context, x, weights, outputs);
    const Weight* const all[] = {&q, &k, &v};
    for (size_t i = 0; i < 3; ++i) {
      const Tensor alone(outputs[i].dtype, {5, all[i]->values.rows()});
      run(context, x, *all[i], alone);
      EXPECT_TRUE(same_bits(together[i], alone)) << "projection " << i;
    }
  });
}

// x = 1 picks one FP32 weight: the store rounds it as the codec does, ties and NaN included.
TEST(Linear, StoresBf16RoundedToNearestEven) {
  constexpr int64_t kOut = 4097;
  const Tensor weight(DType::kF32, {kOut, 1});
  for (int64_t o = 0; o < kOut; ++o) {
    const uint32_t low[] = {0x8000, 0x7fff, 0x8001, 0};
    weight.view().ptr<float>()[o] =
        std::bit_cast<float>(0x3f000000U + (static_cast<uint32_t>(o) << 13) + low[o % 4]);
  }
  store(weight, 17, 0, std::nanf(""));
  const Tensor x(DType::kF32, {20, 1});
  for (int64_t r = 0; r < 20; ++r) store(x, r, 0, r % 2 == 0 ? 1.0F : -1.0F);
  LinearWeight w;
  w.format = LinearFormat::kF32;
  w.weight = weight;
  for_all_ways([&](const Context& context) {
    for (const int64_t n : {1, 5, 20}) {
      const Tensor y(DType::kBF16, {n, kOut}, 3);
      const LinearWeight weights[] = {w};
      const TensorView outputs[] = {y};
      linear(context, x.view().slice_rows(0, n), weights, outputs);
      for (int64_t r = 0; r < n; ++r)
        for (int64_t o = 0; o < kOut; ++o) {
          const float truth = weight.at(o, 0) * x.at(r, 0);
          const bool same =
              std::isnan(truth) ? std::isnan(y.at(r, o)) : y.at(r, o) == core::round_to_bf16(truth);
          ASSERT_TRUE(same) << truth << " became " << y.at(r, o);
        }
    }
  });
}

TEST(Linear, ActivationsBeyondTheCalibratedRangeSaturate) {
  const Weight w(kFormats[3], 3, 8, 1);
  const Tensor x(DType::kF32, {1, 8});
  for (int64_t i = 0; i < 8; ++i) store(x, 0, i, i % 2 == 0 ? 1e6F : -1e6F);
  for (const Context& context : {kReferenceContext, Context{}}) {
    const Tensor y(DType::kF32, {1, 3});
    run(context, x, w, y);
    expect_near_truth(x, w, y);
    double largest = 0.0;
    for (int64_t i = 0; i < 8; ++i)
      largest += 448.0 * 0.011 * 0.0017 * std::fabs(static_cast<double>(w.values.at(0, i)));
    EXPECT_LE(std::fabs(static_cast<double>(y.at(0, 0))), largest);
  }
}

TEST(Linear, ARowOfZerosGivesZerosPerToken) {
  const Weight w(kFormats[4], 5, 20, 1);
  const Tensor x(DType::kF32, {2, 20});
  for (int64_t i = 0; i < 20; ++i) {
    store(x, 0, i, 0.0F);
    store(x, 1, i, 1.0F);
  }
  for (const Context& context : {kReferenceContext, Context{}}) {
    const Tensor y(DType::kF32, {2, 5});
    run(context, x, w, y);
    for (int64_t o = 0; o < 5; ++o) EXPECT_EQ(y.at(0, o), 0.0F);
  }
}

TEST(Linear, ANaNStaysInItsRow) {
  for (const Format& format : kFormats) {
    SCOPED_TRACE(format.name);
    const Weight w(format, 19, 40, 3);
    const Tensor x = std::move(Tensor(DType::kBF16, {3, 40}).fill_normal(1, 1.0F));
    store(x, 1, 17, std::nanf(""));
    const auto check = [&](const Context& context) {
      const Tensor y(DType::kF32, {3, 19});
      run(context, x, w, y);
      for (int64_t o = 0; o < 19; ++o) {
        EXPECT_TRUE(std::isfinite(y.at(0, o)));
        EXPECT_TRUE(std::isnan(y.at(1, o)));
        EXPECT_TRUE(std::isfinite(y.at(2, o)));
      }
    };
    check(kReferenceContext);
    for_all_ways(check);
  }
}

}  // namespace
}  // namespace tandem::ops::test
