// Linear on matrix tiles against the unit's definition, bit by bit.
#include <cmath>

#include "ops/cpu/tiles.h"
#include "ops/linear.h"
#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

std::vector<cpu::Isa> tile_isas() {
  std::vector<cpu::Isa> isas;
  for (const cpu::Isa isa : vector_isas())
    if (on_tiles(isa)) isas.push_back(isa);
  return isas;
}

// The elements of each product, as ops/cpu/tiles.h says: 32 neighbours, or of 64 those whose number
// has bit 3 clear and then the others.
std::vector<std::vector<int64_t>> products_of(int64_t in, bool fp8) {
  std::vector<std::vector<int64_t>> products(
      static_cast<size_t>(fp8 ? (in + 63) / 64 * 2 : (in + 31) / 32));
  for (int64_t i = 0; i < in; ++i)
    products[static_cast<size_t>(fp8 ? i / 64 * 2 + i / 8 % 2 : i / 32)].push_back(i);
  return products;
}

// TDPBF16PS once more, from Intel's manual (SDM, volume 2), one element at a time. None of the
// values of these tests is a denormal number.
float sum_of_tiles(const Tensor& w, int64_t out, const Tensor& x, int64_t row) {
  float sum = 0.0F;
  for (const auto& product : products_of(x.cols(), w.view().dtype == DType::kF8E4M3)) {
    float even = 0.0F;
    float odd = 0.0F;
    for (const int64_t i : product) {
      float& half = i % 2 == 0 ? even : odd;
      half = std::fma(w.at(out, i), x.at(row, i), half);
    }
    sum += even + odd;
  }
  return sum;
}

TEST(Tiles, SumsHaveTheBitsOfTheUnit) {
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3})
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{96, 32}, {77, 19}, {2200, 50}})
      for (const int64_t n : {1, 5, 16, 17, 40}) {
        SCOPED_TRACE(::testing::Message() << "in " << in << ", out " << out << ", n " << n);
        const Tensor w = std::move(Tensor(dtype, {out, in}, 4).fill_normal(3, 0.5F));
        const Tensor x = std::move(Tensor(DType::kBF16, {n, in}, 2).fill_normal(5, 1.0F));
        LinearWeight weight;
        weight.format = dtype == DType::kBF16 ? LinearFormat::kBF16 : LinearFormat::kFp8Tensor;
        weight.weight = w;
        for (const cpu::Isa isa : tile_isas()) {
          const cpu::ScopedIsa scope(isa);
          const Tensor y(DType::kF32, {n, out}, 1);
          const LinearWeight weights[] = {weight};
          const TensorView outputs[] = {y};
          linear(Context{}, x, weights, outputs);
          for (int64_t r = 0; r < n; ++r)
            for (int64_t o = 0; o < out; ++o)
              ASSERT_EQ(y.at(r, o), sum_of_tiles(w, o, x, r)) << cpu::isa_name(isa);
        }
      }
}

// As the manual says: a BF16 weight below 2^-126 counts as zero.
TEST(Tiles, DenormalBf16WeightsAreZero) {
  const Tensor w(DType::kBF16, {1, 2});
  store(w, 0, 0, std::ldexp(1.0F, -130));
  store(w, 0, 1, std::ldexp(1.0F, -126));
  const Tensor x(DType::kBF16, {1, 2});
  for (int64_t i = 0; i < 2; ++i) store(x, 0, i, std::ldexp(1.0F, 100));
  LinearWeight weight;
  weight.weight = w;
  const LinearWeight weights[] = {weight};
  for (const cpu::Isa isa : tile_isas()) {
    const cpu::ScopedIsa scope(isa);
    const Tensor y(DType::kF32, {1, 1});
    const TensorView outputs[] = {y};
    linear(Context{}, x, weights, outputs);
    EXPECT_EQ(y.at(0, 0), std::ldexp(1.0F, -26)) << cpu::isa_name(isa);
  }
}

// Rows of normal numbers alone, and rows with subnormal ones and zeros.
TEST(Tiles, EveryFp8NumberIsExact) {
  constexpr int64_t kIn = 64;
  constexpr int64_t kOut = 32;
  const Tensor w(DType::kF8E4M3, {kOut, kIn});
  std::vector<uint8_t> normal;
  std::vector<uint8_t> every;
  for (int byte = 0; byte < 256; ++byte) {
    if ((byte & 0x7f) == 0x7f) continue;  // NaN
    every.push_back(static_cast<uint8_t>(byte));
    if ((byte & 0x78) != 0) normal.push_back(static_cast<uint8_t>(byte));
  }
  for (int64_t i = 0; i < kOut * kIn; ++i) {
    const std::vector<uint8_t>& from = i / kIn % 2 == 0 ? normal : every;
    static_cast<uint8_t*>(w.view().data)[i] =
        from[static_cast<size_t>(i / (2 * kIn) * kIn + i % kIn) % from.size()];
  }
  LinearWeight weight;
  weight.format = LinearFormat::kFp8Tensor;
  weight.weight = w;
  const LinearWeight weights[] = {weight};
  for (const cpu::Isa isa : tile_isas())
    for (const int64_t n : {int64_t{16}, kIn})  // without a panel and with one
      for (int64_t first = 0; first < kIn; first += n) {
        const cpu::ScopedIsa scope(isa);
        const Tensor x(DType::kBF16, {n, kIn});
        for (int64_t r = 0; r < n; ++r)
          for (int64_t i = 0; i < kIn; ++i) store(x, r, i, i == first + r ? 1.0F : 0.0F);
        const Tensor y(DType::kF32, {n, kOut}, 1);
        const TensorView outputs[] = {y};
        linear(Context{}, x, weights, outputs);
        for (int64_t r = 0; r < n; ++r)
          for (int64_t o = 0; o < kOut; ++o)
            ASSERT_EQ(y.at(r, o), w.at(o, first + r)) << cpu::isa_name(isa) << ", n " << n;
      }
}

// The unit's own way to widen bytes runs where there is no unit, but for its instructions.
TEST(Tiles, EveryByteIsWidenedExactly) {
  const auto expect_exact = [](void (*widen)(const uint8_t*, uint16_t*)) {
    for (int first = 0; first < 256; ++first) {
      uint8_t bytes[64];
      uint16_t words[64];
      for (int i = 0; i < 64; ++i) bytes[i] = static_cast<uint8_t>(first + 5 * i);
      widen(bytes, words);
      for (int i = 0; i < 64; ++i) {
        if (core::e4m3_is_nan(bytes[i])) continue;  // refused when the file is read
        const uint16_t word = words[i / 8 % 2 * 32 + i / 16 * 8 + i % 8];
        ASSERT_EQ(core::to_float(core::BFloat16{word}) * 256, core::e4m3_to_float(bytes[i]));
        ASSERT_EQ(word >> 15, bytes[i] >> 7);  // the sign of zero too
      }
    }
  };
  if (cpu::has_isa(cpu::Isa::kAmxEmulated)) expect_exact(cpu::avx512::widen_emulated);
  const bool has_both = __builtin_cpu_supports("gfni") && __builtin_cpu_supports("avx512vbmi");
  if (cpu::has_isa(cpu::Isa::kAmxEmulated) && has_both) expect_exact(cpu::avx512::widen_amx);
}

TEST(Isa, NamesAreReadBackAndOthersRefused) {
  for (const cpu::Isa isa : vector_isas()) EXPECT_EQ(cpu::parse_isa(cpu::isa_name(isa)), isa);
  EXPECT_EQ(cpu::parse_isa("auto"), cpu::best_isa());
  for (const char* name : {"", "AVX2", "amx2", "sse"}) {
    const auto isa = cpu::parse_isa(name);
    ASSERT_FALSE(isa) << name;
    EXPECT_NE(isa.error().message.find("auto, reference"), std::string::npos);
  }
}

}  // namespace
}  // namespace tandem::ops::test
