// The kernels between the products of prompts against ops/reference, and against those of few rows.
#include "ops/cuda/wide_rows.h"

#include <algorithm>

#include "ops/cuda/packed_linear.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "tests/gpu/row_support.h"
#include "tests/gpu/wide_support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using tests::bf16_step;
using tests::Bf16Rows;
using tests::random_bf16;
using tests::WideTestOperand;

const ops::Context kReference{ops::Backend::kReference, nullptr};
constexpr float kPostEps = 0.02F;
constexpr float kNextEps = 0.07F;

Bf16Rows norm_of(Bf16Rows x, Bf16Rows weight, float eps) {
  const auto hidden = static_cast<int64_t>(weight.size());
  const core::TensorView rows = tests::matrix(x, hidden);
  const core::TensorView weights(weight.data(), core::DType::kBF16, core::Shape{hidden});
  ops::rms_norm(kReference, rows, weights, eps, rows);
  return x;
}

void expect_operand(WideTestOperand& operand, const Bf16Rows& rows, int num_rows, int columns) {
  operand.read();
  int failures = 0;
  for (int r = 0; r < num_rows; ++r)
    for (int c = 0; c < columns && failures < 5; ++c) {
      const float x = core::to_float(rows[static_cast<size_t>(r * columns + c)]);
      const uint8_t expected = core::float_to_e4m3(x / operand.scale());
      // Two zeros are one value.
      if (operand.value(r, c) == core::e4m3_to_float(expected)) continue;
      ++failures;
      ADD_FAILURE() << "row " << r << " column " << c << ": expected E4M3 of " << x << " / "
                    << operand.scale() << ", got " << operand.value(r, c);
    }
  EXPECT_TRUE(operand.guard_intact());
}

// Every BF16 value there is, over scales that divide exactly and ones that do not.
TEST(WideOperandTest, QuotientsAreRoundedOnce) {
  constexpr int kColumns = 8192;
  for (const float scale : {1.0F, 0.5F, 3.0F, 0.037F, 1.0F / 448, 0.0123F, 7.3e-5F}) {
    SCOPED_TRACE(scale);
    Bf16Rows rows;
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const BFloat16 value{static_cast<uint16_t>(bits)};
      const bool finite = (bits & 0x7f80) != 0x7f80;
      rows.push_back(finite ? value : BFloat16{});
    }
    WideTestOperand operand(rows, 8, kColumns, scale);
    expect_operand(operand, rows, 8, kColumns);
  }
}

struct Case {
  int hidden;
  int num_rows;
  float layer_scalar;
};
class WideRows : public testing::TestWithParam<Case> {};
std::string name_of(const testing::TestParamInfo<Case>& info) {
  return std::to_string(info.param.hidden) + "_rows_" + std::to_string(info.param.num_rows);
}
INSTANTIATE_TEST_SUITE_P(Shapes, WideRows,
                         testing::Values(Case{32, 3, 1.0F}, Case{256, 41, 0.7F},
                                         Case{1536, 5, 0.31F}, Case{3840, 70, 0.07F},
                                         Case{5376, 9, 1.0F}, Case{8192, 2, 0.5F}),
                         name_of);

struct Next {
  Next(int num_rows, int hidden)
      : weight(random_bf16(static_cast<size_t>(hidden), 31)),
        weight_device(tests::to_device(weight)),
        normed(tests::poisoned(static_cast<size_t>(num_rows * hidden) * 2)),
        operand(num_rows, hidden, 0.013F) {}
  ops::cuda::WideNorm view() const {
    return {weight_device.as<uint16_t>(), kNextEps, operand.view(), normed.as<uint16_t>()};
  }
  // Of x as the device has it.
  void expect_norm_of(const Bf16Rows& x, int num_rows, int hidden) {
    const Bf16Rows want = norm_of(x, weight, kNextEps);
    const auto got = tests::to_host<BFloat16>(
        normed, static_cast<size_t>(num_rows) * static_cast<size_t>(hidden));
    tests::expect_rows("norm", want, got, hidden,
                       [&](size_t i) { return 1.01F * bf16_step(core::to_float(want[i])); });
    expect_operand(operand, got, num_rows, hidden);
  }
  Bf16Rows weight;
  DeviceBuffer weight_device, normed;
  WideTestOperand operand;
};

TEST_P(WideRows, ResidualThenNorm) {
  const auto [hidden, num_rows, scalar] = GetParam();
  const auto count = static_cast<size_t>(hidden) * static_cast<size_t>(num_rows);
  const Bf16Rows y = random_bf16(count, 1, 3.0F);
  const Bf16Rows before = random_bf16(count, 2);
  const Bf16Rows post = random_bf16(static_cast<size_t>(hidden), 3);
  const auto y_device = tests::to_device(y);
  const auto x_device = tests::to_device(before);
  const auto post_device = tests::to_device(post);
  Next next(num_rows, hidden);
  ops::cuda::wide_residual({}, {.num_rows = num_rows,
                                .hidden = hidden,
                                .y = y_device.as<uint16_t>(),
                                .post_weight = post_device.as<uint16_t>(),
                                .eps = kPostEps,
                                .layer_scalar = scalar,
                                .x = x_device.as<uint16_t>(),
                                .next = next.view()});
  tests::synchronize();
  const auto x = tests::to_host<BFloat16>(x_device, count);
  const Bf16Rows branch = norm_of(y, post, kPostEps);
  Bf16Rows want;
  for (size_t i = 0; i < count; ++i) {
    const float sum = core::round_to_bf16(core::to_float(before[i]) + core::to_float(branch[i]));
    want.push_back(core::to_bf16(sum * scalar));
  }
  // A step of the norm, carried through two roundings.
  tests::expect_rows("residual", want, x, hidden, [&](size_t i) {
    return scalar * 1.01F * bf16_step(core::to_float(branch[i])) +
           scalar * bf16_step(core::to_float(want[i]) / scalar) +
           bf16_step(core::to_float(want[i]));
  });
  next.expect_norm_of(x, num_rows, hidden);
}

TEST_P(WideRows, EmbeddingThenNorm) {
  const auto [hidden, num_rows, scalar] = GetParam();
  constexpr int kVocab = 160;
  constexpr float kScale = 15.5F;
  const Bf16Rows table = random_bf16(static_cast<size_t>(kVocab * hidden), 7);
  const auto packed =
      ops::cuda::make_packed_linear(ops::cuda::PackedType::kBF16, kVocab, hidden, 8);
  const auto rows_device = tests::to_device(table);
  pack_rows({}, packed, rows_device.data(), 0, kVocab);
  std::vector<int32_t> tokens;
  for (int r = 0; r < num_rows; ++r) tokens.push_back(r * 77 % kVocab);
  const auto tokens_device = tests::to_device(tokens);
  const auto count = static_cast<size_t>(hidden) * static_cast<size_t>(num_rows);
  const DeviceBuffer x_device = tests::poisoned(count * 2);
  Next next(num_rows, hidden);
  ops::cuda::wide_embed({}, {.num_rows = num_rows,
                             .hidden = hidden,
                             .tokens = tokens_device.as<int32_t>(),
                             .table = {packed.data.as<uint8_t>(), packed.set_blocks, kScale},
                             .x = x_device.as<uint16_t>(),
                             .next = next.view()});
  tests::synchronize();
  const auto x = tests::to_host<BFloat16>(x_device, count);
  for (size_t i = 0; i < count; ++i) {
    const auto row = static_cast<size_t>(tokens[i / static_cast<size_t>(hidden)]);
    const float value =
        core::to_float(table[row * static_cast<size_t>(hidden) + i % static_cast<size_t>(hidden)]);
    ASSERT_EQ(x[i].bits, core::to_bf16(value * kScale).bits) << "element " << i;
  }
  next.expect_norm_of(x, num_rows, hidden);
}

struct HeadCase {
  int num_heads;
  int num_kv_heads;
  int head_dim;
  bool k_eq_v;
};

constexpr int kBlock = 16;
constexpr int kRing = 48;
constexpr int kPages = 64;  // of a sequence

// A pass of two sequences: which rows, and where their keys go.
struct HeadRows {
  HeadRows() {
    for (size_t s = 0; s < chunks.size(); ++s)
      for (int p = chunks[s].first; p < chunks[s].second; ++p) {
        if ((p - chunks[s].first) % ops::cuda::kWideTileRows == 0) {
          first_rows.push_back(count());
          tile_rows.push_back(0);
          begins.push_back(chunks[s].first);
          ends.push_back(chunks[s].second);
        }
        ++tile_rows.back();
        positions.push_back(p);
        sequences.push_back(static_cast<int32_t>(s));
      }
    // Pages backwards; three blocks of a ring each, shuffled.
    for (int s = 0; s < 2; ++s) {
      for (int b = 0; b < kPages; ++b) pages.push_back(2 * kPages - 1 - (s * kPages + b));
      for (int b = 0; b < 3; ++b) ring.push_back((s * 3 + b) * 5 % 6);
    }
    for (const auto* list :
         {&positions, &sequences, &first_rows, &tile_rows, &begins, &ends, &pages, &ring})
      arrays.push_back(tests::to_device(*list));
  }
  int count() const { return static_cast<int>(positions.size()); }
  const int32_t* array(size_t i) const { return arrays[i].as<int32_t>(); }
  ops::cuda::Rows rows() const {
    ops::cuda::Rows made;
    made.num_rows = count();
    made.positions = array(0);
    made.sequences = array(1);
    return made;
  }
  ops::cuda::WideTiles tiles() const {
    return {static_cast<int>(first_rows.size()), array(2), array(3), array(4), array(5)};
  }
  ops::cuda::KvTable page_table() const { return {array(6), kPages, kBlock, 0}; }
  ops::cuda::KvTable ring_table() const { return {array(7), 3, kBlock, kRing}; }

  std::vector<std::pair<int, int>> chunks = {{5, 75}, {1000, 1003}};  // positions
  std::vector<int32_t> positions, sequences, first_rows, tile_rows, begins, ends, pages, ring;
  std::vector<DeviceBuffer> arrays;
};

// Keys and values somewhere on the device.
struct Store {
  explicit Store(size_t elements)
      : k(tests::poisoned(elements * 2)), v(tests::poisoned(elements * 2)) {}
  ops::cuda::KvLayer layer() const { return {k.as<uint16_t>(), v.as<uint16_t>()}; }
  DeviceBuffer k, v;
};

class WideHeadsTest : public testing::TestWithParam<HeadCase> {
 protected:
  const HeadCase& c() const { return GetParam(); }
  int units() const { return c().num_heads + (c().k_eq_v ? 1 : 2) * c().num_kv_heads; }
  size_t kv_row() const { return static_cast<size_t>(c().num_kv_heads * c().head_dim); }

  // Columns of `heads` heads from `first` on.
  Bf16Rows part(const Bf16Rows& product, int first, int heads) const {
    Bf16Rows values;
    for (int r = 0; r < pass.count(); ++r)
      for (int column = 0; column < heads * c().head_dim; ++column)
        values.push_back(
            product[static_cast<size_t>((r * units() + first) * c().head_dim + column)]);
    return values;
  }
  // Normed and rotated by the reference.
  Bf16Rows rotated(Bf16Rows values, const Bf16Rows& weight, int heads) const {
    values = norm_of(std::move(values), weight, kNextEps);
    const int half = c().head_dim / 2;
    std::vector<float> cosines(static_cast<size_t>(pass.count() * half));
    std::vector<float> sines = cosines;
    const core::TensorView cos(cosines.data(), core::DType::kF32, {pass.count(), half});
    const core::TensorView sin(sines.data(), core::DType::kF32, {pass.count(), half});
    ops::rope_angles(kReference, pass.positions, inv_freq, true, cos, sin);
    ops::rope(
        kReference, cos, sin,
        core::TensorView(values.data(), core::DType::kBF16, {pass.count(), heads, c().head_dim}));
    return values;
  }
  // A step of the norm times a cosine and a sine, and the last rounding.
  void expect_heads(const char* what, const Bf16Rows& want, const Bf16Rows& got) const {
    tests::expect_rows(
        what, want, got, static_cast<int>(want.size()) / pass.count(),
        [&want](size_t i) { return 0.02F + 4 * bf16_step(core::to_float(want[i])); });
  }
  // Exactly the keys and values of `chunk` that `table` has places for, and nothing else written.
  void expect_places(const Store& store, const Bf16Rows& k, const Bf16Rows& v,
                     const std::vector<int32_t>& table, int ring_len, int blocks) const {
    const size_t elements = store.k.size_bytes() / 2;
    const auto keys = tests::to_host<uint16_t>(store.k, elements);
    const auto values = tests::to_host<uint16_t>(store.v, elements);
    int64_t written = 0;
    for (int r = 0; r < pass.count(); ++r) {
      const int s = pass.sequences[static_cast<size_t>(r)];
      const int position = pass.positions[static_cast<size_t>(r)];
      if (ring_len > 0 && position < pass.chunks[static_cast<size_t>(s)].second - ring_len)
        continue;
      const int place = ring_len > 0 ? position % ring_len : position;
      const int block = table[static_cast<size_t>(s * blocks + place / kBlock)];
      for (int h = 0; h < c().num_kv_heads; ++h)
        for (int column = 0; column < c().head_dim; ++column, ++written) {
          const auto at = static_cast<size_t>(
              ((block * c().num_kv_heads + h) * kBlock + place % kBlock) * c().head_dim + column);
          const auto own = static_cast<size_t>((r * c().num_kv_heads + h) * c().head_dim + column);
          ASSERT_EQ(keys[at], k[own].bits) << "key of row " << r;
          ASSERT_EQ(values[at], v[own].bits) << "value of row " << r;
        }
    }
    EXPECT_EQ(std::ranges::count_if(keys, [](uint16_t x) { return x != 0xffff; }), written);
  }

  HeadRows pass;
  std::vector<float> inv_freq =
      ops::rope_inv_freq(c().head_dim, 1e6, c().head_dim == 512 ? 0.25 : 1.0);
};
INSTANTIATE_TEST_SUITE_P(Shapes, WideHeadsTest,
                         testing::Values(HeadCase{8, 2, 32, false}, HeadCase{8, 1, 64, true},
                                         HeadCase{16, 8, 256, false}, HeadCase{16, 1, 512, true},
                                         HeadCase{3, 2, 128, false}));

// Keys to pages, or to the chunk and from there to a ring.
TEST_P(WideHeadsTest, AreThoseOfTheReferenceWhereverTheyGo) {
  const int dim = c().head_dim;
  const auto num_rows = static_cast<size_t>(pass.count());
  const Bf16Rows product = random_bf16(num_rows * static_cast<size_t>(units() * dim), 41, 2.0F);
  const Bf16Rows q_norm = random_bf16(static_cast<size_t>(dim), 42);
  const Bf16Rows k_norm = random_bf16(static_cast<size_t>(dim), 43);
  const Store pages(2 * kPages * kBlock * kv_row());
  const Store ring(6 * kBlock * kv_row());
  const Store chunk(num_rows * kv_row());
  const DeviceBuffer q = tests::poisoned(num_rows * static_cast<size_t>(c().num_heads * dim) * 2);
  const auto product_d = tests::to_device(product);
  const auto q_norm_d = tests::to_device(q_norm);
  const auto k_norm_d = tests::to_device(k_norm);
  const auto inv_freq_d = tests::to_device(inv_freq);
  ops::cuda::WideHeads op;
  op.product = product_d.as<uint16_t>();
  op.num_heads = c().num_heads;
  op.num_kv_heads = c().num_kv_heads;
  op.head_dim = dim;
  op.k_eq_v = c().k_eq_v;
  op.eps = kNextEps;
  op.q_norm = q_norm_d.as<uint16_t>();
  op.k_norm = k_norm_d.as<uint16_t>();
  op.inv_freq = inv_freq_d.as<float>();
  op.q = q.as<uint16_t>();
  op.kv = pages.layer();
  op.places = pass.page_table();
  wide_heads({}, pass.rows(), op);
  op.chunk = chunk.layer();
  wide_heads({}, pass.rows(), op);
  store_ring({}, pass.rows(), pass.tiles(),
             {c().num_kv_heads, dim, chunk.layer(), ring.layer(), pass.ring_table()});
  tests::synchronize();

  const int kv_heads = c().num_kv_heads;
  const Bf16Rows ones(static_cast<size_t>(dim), core::to_bf16(1.0F));
  const Bf16Rows want_q = rotated(part(product, 0, c().num_heads), q_norm, c().num_heads);
  const Bf16Rows want_k = rotated(part(product, c().num_heads, kv_heads), k_norm, kv_heads);
  const int first_v = c().num_heads + (c().k_eq_v ? 0 : kv_heads);
  const Bf16Rows want_v = norm_of(part(product, first_v, kv_heads), ones, kNextEps);
  const auto got_k = tests::to_host<BFloat16>(chunk.k, want_k.size());
  const auto got_v = tests::to_host<BFloat16>(chunk.v, want_v.size());
  expect_heads("q", want_q, tests::to_host<BFloat16>(q, want_q.size()));
  expect_heads("k", want_k, got_k);
  expect_heads("v", want_v, got_v);
  expect_places(pages, got_k, got_v, pass.pages, 0, kPages);
  expect_places(ring, got_k, got_v, pass.ring, kRing, 3);
}

TEST(GatherRows, AreRowsAndTheHeadsOperand) {
  constexpr int kHidden = 416;
  const Bf16Rows hidden = random_bf16(100 * kHidden, 51);
  std::vector<int32_t> sources;
  for (int i = 0; i < 24; ++i) sources.push_back(i == 20 ? -1 : (i * 37 + 5) % 100);
  const auto hidden_d = tests::to_device(hidden);
  const auto sources_d = tests::to_device(sources);
  const DeviceBuffer out = tests::poisoned(24 * kHidden * 2);
  tests::TestOperand operand(24, kHidden, 0.0F);
  gather_rows({}, hidden_d.as<uint16_t>(), sources_d.as<int32_t>(), 24, kHidden, out.as<uint16_t>(),
              operand.view());
  tests::synchronize();
  Bf16Rows want;
  for (const int source : sources)
    for (int c = 0; c < kHidden; ++c)
      want.push_back(source < 0 ? BFloat16{} : hidden[static_cast<size_t>(source * kHidden + c)]);
  const auto got = tests::to_host<BFloat16>(out, want.size());
  for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(got[i].bits, want[i].bits) << i;
  operand.read();
  operand.expect("operand", want, 24, kHidden);
}

}  // namespace
}  // namespace tandem
