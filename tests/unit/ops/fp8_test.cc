// The kernels' E4M3 against the codec of core/e4m3.h, value by value.
#include <bit>

#include "ops/attention.h"
#include "ops/linear.h"
#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

// All values of x as the kernels encode them, through a KV store with one wide head.
std::vector<uint8_t> encode(const Context& context, const Tensor& x) {
  const int64_t cols = x.cols();
  std::vector<uint8_t> k(static_cast<size_t>(cols));
  std::vector<uint8_t> v(static_cast<size_t>(cols));
  const Shape shape{1, 1, cols};
  const KvView kv{TensorView(k.data(), DType::kF8E4M3, shape),
                  TensorView(v.data(), DType::kF8E4M3, shape), 1.0F, 1.0F};
  const std::vector<int32_t> zero = {0};
  const KvPlaces places{zero, 1, 1, 0};
  const TensorView row(x.view().data, x.view().dtype, shape);
  kv_write(context, row, row, zero, zero, places, kv);
  return k;
}

void expect_codec(const Tensor& x) {
  for_all_ways([&](const Context& context) {
    const std::vector<uint8_t> bytes = encode(context, x);
    for (int64_t i = 0; i < x.cols(); ++i)
      ASSERT_EQ(bytes[static_cast<size_t>(i)], core::float_to_e4m3(x.at(0, i))) << x.at(0, i);
  });
}

TEST(Fp8, EveryBf16ValueIsEncodedAsTheCodecDoes) {
  const Tensor x(DType::kBF16, {1, 65536});
  for (int64_t i = 0; i < 65536; ++i)
    x.view().ptr<core::BFloat16>()[i] = core::BFloat16{static_cast<uint16_t>(i)};
  expect_codec(x);
}

TEST(Fp8, RandomAndTiedFloatsAreEncodedAsTheCodecDoes) {
  const Tensor x(DType::kF32, {1, 300000});
  std::mt19937 generator(5);
  for (int64_t i = 0; i < 300000; ++i) {
    auto bits = static_cast<uint32_t>(generator());
    // A third each: anything; the range of E4M3; exact ties between two neighbours.
    if (i % 3 != 0) bits = (bits & 0x80ffffffU) | ((0x39U + bits % 11U) << 24);
    if (i % 3 == 2) bits = (bits & 0xfff00000U) | 0x00080000U;
    x.view().ptr<float>()[i] = std::bit_cast<float>(bits);
  }
  expect_codec(x);
}

// x = 1 picks one weight: the product shows the decoded byte exactly.
TEST(Fp8, EveryWeightByteIsDecodedExactly) {
  const Tensor weight(DType::kF8E4M3, {256, 19}, 1);
  for (int64_t byte = 0; byte < 256; ++byte)
    for (int64_t i = 0; i < 19; ++i) {
      const bool chosen = i == byte % 19 && !core::e4m3_is_nan(static_cast<uint8_t>(byte));
      static_cast<uint8_t*>(weight.view().data)[byte * 20 + i] =
          chosen ? static_cast<uint8_t>(byte) : uint8_t{0};
    }
  LinearWeight w;
  w.format = LinearFormat::kFp8Tensor;
  w.weight = weight;
  const LinearWeight weights[] = {w};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {  // tiles take BF16 only
    for (const int64_t n : {1, 33}) {
      const Tensor x(dtype, {n, 19});
      for (int64_t r = 0; r < n; ++r)
        for (int64_t i = 0; i < 19; ++i) store(x, r, i, 1.0F);
      const auto check = [&](const Context& context) {
        const Tensor y(DType::kF32, {n, 256});
        const TensorView outputs[] = {y};
        linear(context, x, weights, outputs);
        for (int64_t byte = 0; byte < 256; ++byte) {
          const float truth = core::e4m3_is_nan(static_cast<uint8_t>(byte))
                                  ? 0.0F
                                  : core::e4m3_to_float(static_cast<uint8_t>(byte));
          ASSERT_EQ(y.at(n - 1, byte), truth) << byte;
        }
      };
      check(kReferenceContext);
      for_all_ways(check);
    }
  }
}

// One key: its value comes out with weight one. NaN bytes come out as NaN.
TEST(Fp8, EveryKvByteIsDecodedExactly) {
  Tensor k(DType::kF8E4M3, {1, 1, 256});
  Tensor v(DType::kF8E4M3, {1, 1, 256});
  for (int64_t i = 0; i < 256; ++i) {
    static_cast<uint8_t*>(k.view().data)[i] = 0;
    static_cast<uint8_t*>(v.view().data)[i] = static_cast<uint8_t>(i);
  }
  const KvView kv{k, v, 1.0F, 1.0F};
  const std::vector<int32_t> zero = {0};
  const KvPlaces places{zero, 1, 1, 0};
  const Tensor q = std::move(Tensor(DType::kF32, {1, 1, 256}).fill_normal(1, 1.0F));
  const auto check = [&](const Context& context) {
    const Tensor out(DType::kF32, {1, 1, 256});
    attention(context, q, zero, zero, 0, places, kv, out);
    for (int64_t i = 0; i < 256; ++i) {
      if (core::e4m3_is_nan(static_cast<uint8_t>(i)))
        ASSERT_TRUE(std::isnan(out.at(0, i))) << i;
      else
        ASSERT_EQ(out.at(0, i), core::e4m3_to_float(static_cast<uint8_t>(i))) << i;
    }
  };
  check(kReferenceContext);
  for_all_ways(check);
}

}  // namespace
}  // namespace tandem::ops::test
