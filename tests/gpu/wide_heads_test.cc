// Queries, keys and values of prompts against ops/reference, and a cache of E4M3 against the CPU's.
#include <algorithm>

#include "ops/cuda/wide_rows.h"
#include "ops/rope.h"
#include "tests/gpu/kv_support.h"
#include "tests/gpu/row_support.h"
#include "tests/gpu/wide_support.h"

namespace tandem {
namespace {

using core::BFloat16;
using ops::cuda::DeviceBuffer;
using tests::bf16_step;
using tests::Bf16Rows;
using tests::norm_of;
using tests::random_bf16;

const ops::Context kReference{ops::Backend::kReference, nullptr};
constexpr float kNextEps = 0.07F;

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
  ops::cuda::KvLayer layer() const { return {k.data(), v.data()}; }
  ops::cuda::KvLayer fp8_layer() const {
    return {k.data(), v.data(), true, tests::kKeyScale, tests::kValueScale};
  }
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
  // Exactly the keys and values of `chunk` that `table` has places for, and nothing else written:
  // BF16's bits, or E4M3's bytes.
  template <typename Bits>
  void expect_places(const Store& store, const std::vector<Bits>& k, const std::vector<Bits>& v,
                     const std::vector<int32_t>& table, int ring_len, int blocks) const {
    const size_t elements = store.k.size_bytes() / sizeof(Bits);
    const auto keys = tests::to_host<Bits>(store.k, elements);
    const auto values = tests::to_host<Bits>(store.v, elements);
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
          ASSERT_EQ(keys[at], k[own]) << "key of row " << r;
          ASSERT_EQ(values[at], v[own]) << "value of row " << r;
        }
    }
    EXPECT_EQ(std::ranges::count_if(keys, [](Bits x) { return x != static_cast<Bits>(-1); }),
              written);
  }
  static std::vector<uint16_t> bits(const Bf16Rows& rows) {
    std::vector<uint16_t> made;
    for (const BFloat16 value : rows) made.push_back(value.bits);
    return made;
  }

  // wide_heads and store_ring on the device, their weights and where they write.
  struct Run {
    Run(const WideHeadsTest& test, const Bf16Rows& product)
        : pages(2 * kPages * kBlock * test.kv_row()),
          ring(6 * kBlock * test.kv_row()),
          chunk(static_cast<size_t>(test.pass.count()) * test.kv_row()),
          q(tests::poisoned(
              static_cast<size_t>(test.pass.count() * test.c().num_heads * test.c().head_dim) * 2)),
          arrays{tests::to_device(product), tests::to_device(test.q_norm),
                 tests::to_device(test.k_norm)},
          inv_freq(tests::to_device(test.inv_freq)) {
      op.product = arrays[0].as<uint16_t>();
      op.num_heads = test.c().num_heads;
      op.num_kv_heads = test.c().num_kv_heads;
      op.head_dim = test.c().head_dim;
      op.k_eq_v = test.c().k_eq_v;
      op.eps = kNextEps;
      op.q_norm = arrays[1].as<uint16_t>();
      op.k_norm = arrays[2].as<uint16_t>();
      op.inv_freq = inv_freq.as<float>();
      op.q = q.as<uint16_t>();
    }
    // Keys to pages, and to the chunk and from there to a ring.
    void store(const HeadRows& pass, bool fp8) {
      op.kv = fp8 ? pages.fp8_layer() : pages.layer();
      op.places = pass.page_table();
      op.chunk = {};
      wide_heads({}, pass.rows(), op);
      op.chunk = chunk.layer();
      wide_heads({}, pass.rows(), op);
      store_ring({}, pass.rows(), pass.tiles(),
                 {op.num_kv_heads, op.head_dim, op.chunk, fp8 ? ring.fp8_layer() : ring.layer(),
                  pass.ring_table()});
      tests::synchronize();
    }

    Store pages, ring, chunk;
    DeviceBuffer q;
    DeviceBuffer arrays[3];
    DeviceBuffer inv_freq;
    ops::cuda::WideHeads op;
  };

  HeadRows pass;
  Bf16Rows q_norm = random_bf16(static_cast<size_t>(c().head_dim), 42);
  Bf16Rows k_norm = random_bf16(static_cast<size_t>(c().head_dim), 43);
  std::vector<float> inv_freq =
      ops::rope_inv_freq(c().head_dim, 1e6, c().head_dim == 512 ? 0.25 : 1.0);
};
INSTANTIATE_TEST_SUITE_P(Shapes, WideHeadsTest,
                         testing::Values(HeadCase{8, 2, 32, false}, HeadCase{8, 1, 64, true},
                                         HeadCase{16, 8, 256, false}, HeadCase{16, 1, 512, true},
                                         HeadCase{3, 2, 128, false}));

TEST_P(WideHeadsTest, AreThoseOfTheReferenceWhereverTheyGo) {
  const int dim = c().head_dim;
  const auto num_rows = static_cast<size_t>(pass.count());
  const Bf16Rows product = random_bf16(num_rows * static_cast<size_t>(units() * dim), 41, 2.0F);
  Run run(*this, product);
  run.store(pass, false);

  const int kv_heads = c().num_kv_heads;
  const Bf16Rows ones(static_cast<size_t>(dim), core::to_bf16(1.0F));
  const Bf16Rows want_q = rotated(part(product, 0, c().num_heads), q_norm, c().num_heads);
  const Bf16Rows want_k = rotated(part(product, c().num_heads, kv_heads), k_norm, kv_heads);
  const int first_v = c().num_heads + (c().k_eq_v ? 0 : kv_heads);
  const Bf16Rows want_v = norm_of(part(product, first_v, kv_heads), ones, kNextEps);
  const auto got_k = tests::to_host<BFloat16>(run.chunk.k, want_k.size());
  const auto got_v = tests::to_host<BFloat16>(run.chunk.v, want_v.size());
  expect_heads("q", want_q, tests::to_host<BFloat16>(run.q, want_q.size()));
  expect_heads("k", want_k, got_k);
  expect_heads("v", want_v, got_v);
  expect_places(run.pages, bits(got_k), bits(got_v), pass.pages, 0, kPages);
  expect_places(run.ring, bits(got_k), bits(got_v), pass.ring, kRing, 3);
}

// Of what a BF16 cache would hold, the bytes that the CPU writes; in the chunk their values.
TEST_P(WideHeadsTest, BytesOfE4m3AreThoseOfTheCpuWhereverTheyGo) {
  const auto num_rows = static_cast<size_t>(pass.count());
  const Bf16Rows product =
      tests::steep_bf16(num_rows * static_cast<size_t>(units() * c().head_dim), 44);
  const size_t count = num_rows * kv_row();
  Run bf16(*this, product);
  bf16.store(pass, false);
  Run fp8(*this, product);
  fp8.store(pass, true);
  const auto stored = [&](const DeviceBuffer& rows, float scale) {
    return tests::stored_by_cpu(tests::to_host<BFloat16>(rows, count),
                                static_cast<int64_t>(kv_row()), scale);
  };
  const auto k = stored(bf16.chunk.k, tests::kKeyScale);
  const auto v = stored(bf16.chunk.v, tests::kValueScale);
  EXPECT_TRUE(tests::meets_all_kinds(k));
  EXPECT_TRUE(tests::meets_all_kinds(v));
  EXPECT_EQ(tests::to_host<uint16_t>(fp8.chunk.k, count), bits(tests::widened(k)));
  EXPECT_EQ(tests::to_host<uint16_t>(fp8.chunk.v, count), bits(tests::widened(v)));
  expect_places(fp8.pages, k, v, pass.pages, 0, kPages);
  expect_places(fp8.ring, k, v, pass.ring, kRing, 3);
}

}  // namespace
}  // namespace tandem
