// Queries, keys and values from partial sums, against ops/rms_norm and ops/rope on BF16 rows.
#include "ops/cuda/head_prep.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "tests/gpu/kv_support.h"
#include "tests/gpu/support.h"
#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

using core::BFloat16;

constexpr float kEps = 1e-6F;
constexpr int32_t kHuge = 2147480000;
constexpr int kBlockSize = 8;

struct Case {
  int num_heads;
  int num_kv_heads;  // 0: an assistant's layer
  int head_dim;
  bool k_eq_v;
  double theta;
  double rotating;  // partial_rotary_factor
  int ring_len;
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  const Case& c = info.param;
  return std::to_string(c.num_heads) + "_and_" + std::to_string(c.num_kv_heads) + "_of_" +
         std::to_string(c.head_dim) + (c.k_eq_v ? "_k_eq_v" : "") +
         (c.ring_len > 0 ? "_ring" : "_pages");
}

// Sums as a product leaves them: cut into pieces by the shares of the thread blocks.
struct Product {
  cuda::Partials plan;
  std::vector<float> pieces;  // [num_sets][max_pieces][num_rows][kSetColumns]
  std::vector<float> sums;    // [num_rows, columns], pieces added in order

  // `steep`: sums of very different sizes, some zero. `cuts`: of most sets, some have one less.
  Product(int num_rows, int columns, uint32_t seed, bool steep = false, int cuts = 2) {
    const int num_sets = (columns + cuda::kSetColumns - 1) / cuda::kSetColumns;
    plan.num_rows = num_rows;
    plan.set_blocks = 30;
    plan.num_shares = num_sets * cuts + 1;
    plan.total_blocks = int64_t{num_sets} * plan.set_blocks;
    for (int set = 0; set < num_sets; ++set)
      plan.max_pieces = std::max(plan.max_pieces, plan.num_pieces(set));
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 40.0F);
    pieces.assign(static_cast<size_t>(num_sets * plan.max_pieces * num_rows * cuda::kSetColumns),
                  std::nanf(""));
    for (int row = 0; row < num_rows; ++row)
      for (int column = 0; column < columns; ++column) {
        const float size = !steep               ? 1.0F
                           : random() % 16 == 0 ? 0.0F
                                                : std::exp2(-static_cast<float>(random() % 16));
        float sum = 0.0F;
        for (int piece = 0; piece < plan.num_pieces(column / cuda::kSetColumns); ++piece) {
          const float part = size * normal(random);
          pieces[index(row, column, piece)] = part;
          sum = piece == 0 ? part : sum + part;
        }
        sums.push_back(sum);
      }
  }
  size_t index(int row, int column, int piece) const {
    const int line = (column / cuda::kSetColumns * plan.max_pieces + piece) * plan.num_rows + row;
    return static_cast<size_t>(line * cuda::kSetColumns + column % cuda::kSetColumns);
  }
};

struct Batch {
  std::vector<int32_t> positions, sequences;
};

// Five rows of one sequence, three of others, one that is padding in the middle of nowhere.
Batch make_batch() {
  Batch batch;
  batch.positions = {97,    98, 99, 100,   101,   0,     7,     131071,
                     kHuge, 40, 41, kHuge, kHuge, kHuge, kHuge, kHuge};
  batch.sequences = {0, 0, 0, 0, 0, 1, 2, 3, -1, 2, 2, -1, -1, -1, -1, -1};
  return batch;
}

class HeadPrepTest : public testing::TestWithParam<Case> {
 protected:
  HeadPrepTest()
      : inv_freq_(rope_inv_freq(c().head_dim, c().theta, c().rotating)),
        q_norm_(tests::random_bf16(static_cast<size_t>(c().head_dim), 31, 1.0F)),
        k_norm_(tests::random_bf16(static_cast<size_t>(c().head_dim), 32, 1.0F)) {
    // One entry of the table for each block that a row of the batch writes to.
    const Batch batch = make_batch();
    table_.assign(static_cast<size_t>(4 * kMaxBlocks), kHuge);
    std::set<size_t> entries;
    for (size_t r = 0; r < batch.positions.size(); ++r)
      if (batch.sequences[r] >= 0) entries.insert(entry(batch.sequences[r], batch.positions[r]));
    int32_t block = static_cast<int32_t>(entries.size());  // blocks 1 .. n; 0 stays untouched
    num_blocks_ = block + 1;
    for (const size_t e : entries) table_[e] = block--;
  }

  static const Case& c() { return GetParam(); }
  static int columns() {
    return (c().num_heads + (c().k_eq_v ? 1 : 2) * c().num_kv_heads) * c().head_dim;
  }
  static int place(int position) { return c().ring_len > 0 ? position % c().ring_len : position; }
  static size_t entry(int sequence, int position) {
    return static_cast<size_t>(sequence * kMaxBlocks + place(position) / kBlockSize);
  }
  size_t cache_elements() const {
    return static_cast<size_t>(num_blocks_ * c().num_kv_heads * kBlockSize * c().head_dim);
  }
  size_t cache_index(int sequence, int position, int kv_head) const {
    const int block = table_[entry(sequence, position)];
    return static_cast<size_t>(
        ((block * c().num_kv_heads + kv_head) * kBlockSize + place(position) % kBlockSize) *
        c().head_dim);
  }

  struct Result {
    std::vector<uint16_t> q, k, v;
    std::vector<uint8_t> k_bytes, v_bytes;  // of E4M3
  };
  Result run(const Batch& batch, const Product& product, bool early = false, bool fp8 = false) {
    const auto pieces = tests::to_device(product.pieces);
    const auto positions = tests::to_device(batch.positions);
    const auto sequences = tests::to_device(batch.sequences);
    const auto q_norm = tests::to_device(q_norm_);
    const auto k_norm = tests::to_device(k_norm_);
    const auto inv_freq = tests::to_device(inv_freq_);
    const auto table = tests::to_device(table_);
    const auto k = tests::poisoned(cache_elements() * 2 + 16);
    const auto v = tests::poisoned(cache_elements() * 2 + 16);
    const size_t q_elements =
        batch.positions.size() * static_cast<size_t>(c().num_heads * c().head_dim);
    const auto q = tests::poisoned(q_elements * 2);
    cuda::Rows rows;
    rows.num_rows = static_cast<int>(batch.positions.size());
    rows.positions = positions.as<int32_t>();
    rows.sequences = sequences.as<int32_t>();
    rows.early_plan = early;
    cuda::HeadPrep job;
    job.product = product.plan;
    job.product.data = pieces.as<float>();
    std::copy(std::begin(kScales), std::end(kScales), std::begin(job.scales));
    job.num_heads = c().num_heads;
    job.num_kv_heads = c().num_kv_heads;
    job.head_dim = c().head_dim;
    job.k_eq_v = c().k_eq_v;
    job.eps = kEps;
    job.q_norm = q_norm.as<uint16_t>();
    job.k_norm = c().num_kv_heads > 0 ? k_norm.as<uint16_t>() : nullptr;
    job.inv_freq = inv_freq.as<float>();
    job.kv = {k.data(), v.data(), fp8, fp8 ? tests::kKeyScale : 1.0F,
              fp8 ? tests::kValueScale : 1.0F};
    job.places = {table.as<int32_t>(), kMaxBlocks, kBlockSize, c().ring_len};
    job.q = q.as<uint16_t>();
    cuda::head_prep({}, rows, job);
    tests::synchronize();
    Result result;
    result.q = tests::to_host<uint16_t>(q, q_elements);
    result.k = tests::to_host<uint16_t>(k, cache_elements());
    result.v = tests::to_host<uint16_t>(v, cache_elements());
    result.k_bytes = tests::to_host<uint8_t>(k, cache_elements() * 2);
    result.v_bytes = tests::to_host<uint8_t>(v, cache_elements() * 2);
    return result;
  }

  // One head of one row as the reference computes it from the product's sums.
  struct Wanted {
    Tensor raw, normed, plain, rotated;
  };
  Wanted wanted(const Product& product, int row, int unit, float scale, int position,
                std::vector<BFloat16>& norm) const {
    const int64_t dim = c().head_dim;
    Wanted w{Tensor(DType::kBF16, {1, dim}), Tensor(DType::kBF16, {1, dim}),
             Tensor(DType::kBF16, {1, dim}), Tensor(DType::kBF16, {1, 1, dim})};
    for (int64_t i = 0; i < dim; ++i)
      store(w.raw, 0, i,
            product.sums[static_cast<size_t>(row * columns() + unit * c().head_dim + i)] * scale);
    rms_norm(kReferenceContext, w.raw, TensorView(), kEps, w.plain);
    rms_norm(kReferenceContext, w.raw, TensorView(norm.data(), DType::kBF16, Shape{dim}), kEps,
             w.normed);
    std::memcpy(w.rotated.view().data, w.normed.view().data, static_cast<size_t>(dim) * 2);
    Tensor cos(DType::kF32, {1, dim / 2});
    Tensor sin(DType::kF32, {1, dim / 2});
    const std::vector<int32_t> positions = {position};
    rope_angles(kReferenceContext, positions, inv_freq_, true, cos, sin);
    rope(kReferenceContext, cos, sin, w.rotated);
    return w;
  }

  // Most values have the reference's bits. The rest come from another order of the sum of squares
  // or a last bit of sin and cos: they flip a rounding to BF16 (2^-7 of the value: one unit in the
  // last place) of the two values of a pair, of sin or cos, and of the result.
  void expect_values(const std::vector<uint16_t>& got, size_t at, const Tensor& want,
                     const Tensor& pair, const std::string& where) {
    const int64_t half = want.cols() / 2;
    for (int64_t i = 0; i < want.cols(); ++i) {
      const uint16_t bits = got[at + static_cast<size_t>(i)];
      const float value = core::to_float(BFloat16{bits});
      ++num_values_;
      if (bits == core::to_bf16(want.at(0, i)).bits) continue;
      ++num_different_;
      const float magnitude =
          std::fabs(pair.at(0, i % half)) + std::fabs(pair.at(0, i % half + half));
      if (std::fabs(value - want.at(0, i)) <= 0x1p-7F * 3 * magnitude) continue;
      if (++num_failures_ > 5) return;
      ADD_FAILURE() << where << " column " << i << ": expected " << want.at(0, i) << ", got "
                    << value;
    }
  }
  void expect_mostly_equal() const {
    EXPECT_GT(num_values_, 0);
    EXPECT_LE(num_different_, num_values_ / 100);
  }

  static constexpr int kMaxBlocks = 16400;  // up to position 131,071 in pages
  static constexpr float kScales[3] = {0.0123F, 0.031F, 0.27F};
  std::vector<float> inv_freq_;
  std::vector<BFloat16> q_norm_, k_norm_;
  std::vector<int32_t> table_;
  int num_blocks_ = 0;
  int num_values_ = 0;
  int num_different_ = 0;
  int num_failures_ = 0;
};

INSTANTIATE_TEST_SUITE_P(
    Shapes, HeadPrepTest,
    testing::Values(Case{4, 2, 32, false, 1e4, 1.0, 48}, Case{4, 1, 64, true, 1e6, 0.25, 0},
                    Case{3, 3, 96, false, 1e4, 1.0, 0}, Case{5, 1, 288, false, 1e4, 0.5, 40},
                    Case{16, 8, 256, false, 1e4, 1.0, 64}, Case{16, 1, 512, true, 1e6, 0.25, 0},
                    Case{16, 0, 256, false, 1e4, 1.0, 64}, Case{16, 0, 512, false, 1e6, 0.25, 0},
                    // Of many rows a thread block has more angles than columns.
                    Case{5, 1, 512, true, 1e6, 0.25, 0}),
    name_of);

TEST_P(HeadPrepTest, MatchesTheReference) {
  const Batch batch = make_batch();
  const Product product(static_cast<int>(batch.positions.size()), columns(), 41);
  const Result got = run(batch, product);
  const int heads = c().num_heads;
  for (int row = 0; row < static_cast<int>(batch.positions.size()); ++row) {
    const int sequence = batch.sequences[static_cast<size_t>(row)];
    const int position = batch.positions[static_cast<size_t>(row)];
    const auto q_at = static_cast<size_t>(row * heads * c().head_dim);
    if (sequence < 0) {
      for (size_t i = 0; i < static_cast<size_t>(heads * c().head_dim); ++i)
        ASSERT_EQ(got.q[q_at + i], 0) << "padding row " << row << " element " << i;
      continue;
    }
    const std::string where = "row " + std::to_string(row);
    for (int head = 0; head < heads; ++head) {
      const Wanted w = wanted(product, row, head, kScales[0], position, q_norm_);
      expect_values(got.q, q_at + static_cast<size_t>(head * c().head_dim), w.rotated, w.normed,
                    where + " q head " + std::to_string(head));
    }
    for (int head = 0; head < c().num_kv_heads; ++head) {
      const std::string of = " kv head " + std::to_string(head);
      const size_t at = cache_index(sequence, position, head);
      const Wanted k = wanted(product, row, heads + head, kScales[1], position, k_norm_);
      expect_values(got.k, at, k.rotated, k.normed, where + " k" + of);
      const int v_unit = heads + head + (c().k_eq_v ? 0 : c().num_kv_heads);
      const Wanted v = wanted(product, row, v_unit, kScales[c().k_eq_v ? 1 : 2], position, k_norm_);
      expect_values(got.v, at, v.plain, v.plain, where + " v" + of);
    }
  }
  expect_mostly_equal();
}

TEST_P(HeadPrepTest, WritesNothingElse) {
  const Batch batch = make_batch();
  const Product product(static_cast<int>(batch.positions.size()), columns(), 42);
  const Result got = run(batch, product);
  std::vector<bool> written(cache_elements(), false);
  for (size_t r = 0; r < batch.positions.size(); ++r)
    for (int head = 0; head < c().num_kv_heads && batch.sequences[r] >= 0; ++head) {
      const size_t at = cache_index(batch.sequences[r], batch.positions[r], head);
      std::fill_n(written.begin() + static_cast<int64_t>(at), c().head_dim, true);
    }
  for (size_t i = 0; i < written.size(); ++i) {
    ASSERT_EQ(got.k[i] != 0xffff, written[i]) << "K element " << i;
    ASSERT_EQ(got.v[i] != 0xffff, written[i]) << "V element " << i;
  }
}

// Of what a BF16 cache would hold, the bytes that the CPU writes, and no others.
TEST_P(HeadPrepTest, BytesOfE4m3AreThoseOfTheCpu) {
  const Batch batch = make_batch();
  const Product product(static_cast<int>(batch.positions.size()), columns(), 45, true);
  const Result bf16 = run(batch, product);
  std::vector<uint8_t> all;
  for (const bool early : {false, true}) {
    const Result got = run(batch, product, early, true);
    EXPECT_EQ(got.q, bf16.q);
    std::vector<uint8_t> k(cache_elements() * 2, 0xff);
    std::vector<uint8_t> v = k;
    const auto dim = static_cast<size_t>(c().head_dim);
    const auto store = [&](const std::vector<uint16_t>& from, size_t at, float scale,
                           std::vector<uint8_t>& to) {
      std::vector<BFloat16> row;
      for (size_t i = at; i < at + dim; ++i) row.push_back(BFloat16{from[i]});
      const auto bytes = tests::stored_by_cpu(std::move(row), c().head_dim, scale);
      std::ranges::copy(bytes, to.begin() + static_cast<int64_t>(at));
      all.insert(all.end(), bytes.begin(), bytes.end());
    };
    for (size_t r = 0; r < batch.positions.size(); ++r)
      for (int head = 0; head < c().num_kv_heads && batch.sequences[r] >= 0; ++head) {
        const size_t at = cache_index(batch.sequences[r], batch.positions[r], head);
        store(bf16.k, at, tests::kKeyScale, k);
        store(bf16.v, at, tests::kValueScale, v);
      }
    EXPECT_TRUE(got.k_bytes == k);
    EXPECT_TRUE(got.v_bytes == v);
  }
  EXPECT_TRUE(c().num_kv_heads == 0 || tests::meets_all_kinds(all));
}

TEST_P(HeadPrepTest, BitsOfARowDoNotDependOnItsCompany) {
  const Batch batch = make_batch();
  const Product product(static_cast<int>(batch.positions.size()), columns(), 43);
  const Result all = run(batch, product);
  const auto q_columns = static_cast<size_t>(c().num_heads * c().head_dim);
  for (const int row : {0, 3, 7, 9}) {
    // The row as row 2 of 8, all others padding.
    Batch one;
    one.positions.assign(8, kHuge);
    one.sequences.assign(8, -1);
    one.positions[2] = batch.positions[static_cast<size_t>(row)];
    one.sequences[2] = batch.sequences[static_cast<size_t>(row)];
    Product alone(8, columns(), 44);
    for (int column = 0; column < columns(); ++column)
      for (int piece = 0; piece < product.plan.num_pieces(column / cuda::kSetColumns); ++piece)
        alone.pieces[alone.index(2, column, piece)] =
            product.pieces[product.index(row, column, piece)];
    const Result got = run(one, alone, row % 2 == 1);
    for (size_t i = 0; i < q_columns; ++i)
      ASSERT_EQ(got.q[2 * q_columns + i], all.q[static_cast<size_t>(row) * q_columns + i])
          << "row " << row << " q element " << i;
    for (int head = 0; head < c().num_kv_heads; ++head) {
      const size_t at = cache_index(one.sequences[2], one.positions[2], head);
      for (size_t i = at; i < at + static_cast<size_t>(c().head_dim); ++i) {
        ASSERT_EQ(got.k[i], all.k[i]) << "row " << row << " K element " << i;
        ASSERT_EQ(got.v[i], all.v[i]) << "row " << row << " V element " << i;
      }
    }
  }
}

// From 96 rows on there is a kernel of its own.
TEST_P(HeadPrepTest, ManyRowsHaveTheBitsOfFew) {
  const Batch few = make_batch();
  const auto num_few = static_cast<int>(few.positions.size());
  Batch many = few;
  many.positions.resize(192, kHuge);
  many.sequences.resize(192, -1);
  for (const int cuts : {2, 5}) {
    const Product product(192, columns(), 46, false, cuts);
    Product own(num_few, columns(), 47, false, cuts);
    for (int row = 0; row < num_few; ++row)
      for (int column = 0; column < columns(); ++column)
        for (int piece = 0; piece < product.plan.num_pieces(column / cuda::kSetColumns); ++piece)
          own.pieces[own.index(row, column, piece)] =
              product.pieces[product.index(row, column, piece)];
    for (const bool early : {false, true})
      for (const bool fp8 : {false, true}) {
        const Result want = run(few, own, early, fp8);
        const Result got = run(many, product, early, fp8);
        const auto end = got.q.begin() + static_cast<int64_t>(want.q.size());
        EXPECT_TRUE(std::equal(want.q.begin(), want.q.end(), got.q.begin()));
        EXPECT_TRUE(std::all_of(end, got.q.end(), [](uint16_t bits) { return bits == 0; }));
        EXPECT_TRUE(want.k_bytes == got.k_bytes && want.v_bytes == got.v_bytes)
            << cuts << " cuts, early " << early << ", fp8 " << fp8;
      }
  }
}

}  // namespace
}  // namespace tandem::ops::test
