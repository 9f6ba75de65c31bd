#include "ops/attention.h"

#include <algorithm>

#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

// A KV store with places for several sequences. Blocks are dealt out in a scrambled order; entries
// of the table that no position uses are huge, slots that no position uses are NaN.
struct Store {
  struct Sizes {
    DType dtype = DType::kBF16;
    int64_t num_kv_heads = 2;
    int64_t head_dim = 24;
    int64_t block_size = 8;
    int64_t ring_len = 0;
    std::vector<int64_t> lengths;  // positions 0 .. length - 1 have been written
  };

  explicit Store(const Sizes& s, uint32_t seed = 1)
      : sizes(s),
        k(s.dtype, {num_slots(s), s.num_kv_heads, s.head_dim}, 8),
        v(s.dtype, {num_slots(s), s.num_kv_heads, s.head_dim}, 8) {
    places.max_blocks = max_blocks(s);
    places.block_size = s.block_size;
    places.ring_len = s.ring_len;
    table.assign(s.lengths.size() * static_cast<size_t>(places.max_blocks), 2147480000);
    std::vector<int32_t> blocks(static_cast<size_t>(num_slots(s) / s.block_size));
    for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<int32_t>(i);
    std::mt19937 generator(seed);
    std::shuffle(blocks.begin(), blocks.end(), generator);
    for (size_t sequence = 0; sequence < s.lengths.size(); ++sequence)
      for (int64_t b = 0; b < blocks_of(s, s.lengths[sequence]); ++b) {
        table[sequence * static_cast<size_t>(places.max_blocks) + static_cast<size_t>(b)] =
            blocks.back();
        blocks.pop_back();
      }
    places.block_table = table;
    kv.k = k;
    kv.v = v;
    kv.k_scale = 0.031F;
    kv.v_scale = 0.017F;
  }

  static int64_t blocks_of(const Sizes& s, int64_t length) {
    const int64_t used = s.ring_len == 0 ? length : std::min(length, s.ring_len);
    return (used + s.block_size - 1) / s.block_size;
  }
  static int64_t max_blocks(const Sizes& s) {
    int64_t most = 0;
    for (const int64_t length : s.lengths) most = std::max(most, blocks_of(s, length));
    return most + 3;
  }
  static int64_t num_slots(const Sizes& s) {
    int64_t blocks = 2;
    for (const int64_t length : s.lengths) blocks += blocks_of(s, length);
    return blocks * s.block_size;
  }

  // Writes all positions of all sequences through kv_write, oldest first.
  void write_all(const Context& context, uint32_t seed = 3) {
    for (size_t sequence = 0; sequence < sizes.lengths.size(); ++sequence) {
      const int64_t n = sizes.lengths[sequence];
      if (n == 0) continue;
      Tensor new_k(DType::kF32, {n, sizes.num_kv_heads, sizes.head_dim}, 5);
      Tensor new_v(DType::kF32, {n, sizes.num_kv_heads, sizes.head_dim}, 5);
      new_k.fill_normal(seed + static_cast<uint32_t>(sequence), 1.0F);
      new_v.fill_normal(seed + 100 + static_cast<uint32_t>(sequence), 1.0F);
      for (int64_t p = 0; p < n; ++p) {
        const std::vector<int32_t> sequences(1, static_cast<int32_t>(sequence));
        const std::vector<int32_t> positions(1, static_cast<int32_t>(p));
        kv_write(context, new_k.view().slice_rows(p, p + 1), new_v.view().slice_rows(p, p + 1),
                 sequences, positions, places, kv);
      }
    }
  }

  void poison(int64_t sequence, int64_t position) const {
    const int64_t slot = places.slot(sequence, position);
    const float nan = std::nanf("");
    for (int64_t i = 0; i < sizes.num_kv_heads * sizes.head_dim; ++i) {
      store(k, slot, i, nan);
      store(v, slot, i, nan);
    }
  }

  double k_value(int64_t slot, int64_t i) const {
    const double scale = sizes.dtype == DType::kF8E4M3 ? static_cast<double>(kv.k_scale) : 1.0;
    return static_cast<double>(k.at(slot, i)) * scale;
  }
  double v_value(int64_t slot, int64_t i) const {
    const double scale = sizes.dtype == DType::kF8E4M3 ? static_cast<double>(kv.v_scale) : 1.0;
    return static_cast<double>(v.at(slot, i)) * scale;
  }

  Sizes sizes;
  Tensor k;
  Tensor v;
  std::vector<int32_t> table;
  KvPlaces places;
  KvView kv;
};

struct Rows {
  std::vector<int32_t> sequences;
  std::vector<int32_t> last_keys;
};

struct Exact {
  std::vector<double> values;  // [head_dim]
  double tolerance;            // of the FP32 result
};

// One row and head in double, with the error that FP32 may have. A score is a sum of d products: it
// is off by at most s_err = (d + 1) 2^-24 sum|q k|, which moves each weight by a factor e^(+-2
// s_err) (score and maximum), as do the exponentials (2^-22 and 2^-24 |score - max| for its
// argument). The weighted mean of n values adds n + 4 roundings of at most max|v|.
Exact exact(const Tensor& q, int64_t row, int64_t head, int64_t first, int64_t last,
            int64_t sequence, const Store& kv) {
  const int64_t d = kv.sizes.head_dim;
  const int64_t kv_head = head / (q.view().shape[1] / kv.sizes.num_kv_heads);
  std::vector<double> scores;
  double abs_sum = 0.0;
  for (int64_t p = first; p <= last; ++p) {
    const int64_t slot = kv.places.slot(sequence, p);
    double sum = 0.0;
    double abs = 0.0;
    for (int64_t i = 0; i < d; ++i) {
      const double product =
          static_cast<double>(q.at(row, head * d + i)) * kv.k_value(slot, kv_head * d + i);
      sum += product;
      abs += std::fabs(product);
    }
    scores.push_back(sum);
    abs_sum = std::max(abs_sum, abs);
  }
  Exact result{std::vector<double>(static_cast<size_t>(d), 0.0), 0.0};
  if (scores.empty()) return result;
  const double most = *std::max_element(scores.begin(), scores.end());
  const double least = *std::min_element(scores.begin(), scores.end());
  double total = 0.0;
  for (double& s : scores) total += s = std::exp(s - most);
  double largest = 0.0;
  for (size_t k = 0; k < scores.size(); ++k)
    for (int64_t i = 0; i < d; ++i) {
      const double value =
          kv.v_value(kv.places.slot(sequence, first + static_cast<int64_t>(k)), kv_head * d + i);
      result.values[static_cast<size_t>(i)] += scores[k] / total * value;
      largest = std::max(largest, std::fabs(value));
    }
  const double eps = std::ldexp(1.0, -24);
  const double weight_error = 2.0 * static_cast<double>(d + 1) * eps * abs_sum +
                              eps * (most - least) + std::ldexp(1.0, -22);
  result.tolerance = largest * (2.0 * weight_error + static_cast<double>(scores.size() + 4) * eps);
  return result;
}

void expect_near_exact(const Tensor& q, const Rows& rows, int64_t window, const Store& kv,
                       const Tensor& out) {
  const int64_t d = kv.sizes.head_dim;
  for (int64_t r = 0; r < q.rows(); ++r) {
    const int64_t last = rows.last_keys[static_cast<size_t>(r)];
    const int64_t first = window == 0 ? 0 : std::max<int64_t>(0, last - window + 1);
    for (int64_t head = 0; head < q.view().shape[1]; ++head) {
      const Exact truth =
          exact(q, r, head, first, last, rows.sequences[static_cast<size_t>(r)], kv);
      for (int64_t i = 0; i < d; ++i) {
        const double value = truth.values[static_cast<size_t>(i)];
        ASSERT_NEAR(
            static_cast<double>(out.at(r, head * d + i)), value,
            truth.tolerance + half_ulp(out.view().dtype) * (std::fabs(value) + truth.tolerance))
            << "row " << r << ", head " << head << ", element " << i;
      }
    }
  }
}

void run(const Context& context, const Tensor& q, const Rows& rows, int64_t window, const Store& kv,
         const Tensor& out) {
  attention(context, q, rows.sequences, rows.last_keys, window, kv.places, kv.kv, out);
}

struct Case {
  const char* name;
  DType dtype;
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t block_size;
  int64_t ring_len;
  int64_t window;
};

constexpr Case kCases[] = {
    {"full_f32_odd_head", DType::kF32, 4, 2, 24, 8, 0, 0},
    {"full_bf16", DType::kBF16, 8, 1, 64, 16, 0, 0},
    {"full_fp8", DType::kF8E4M3, 3, 1, 40, 4, 0, 0},
    {"full_one_group_of_sixteen", DType::kBF16, 16, 1, 136, 16, 0, 0},
    {"ring_f32", DType::kF32, 4, 2, 32, 8, 48, 33},
    {"ring_bf16", DType::kBF16, 2, 2, 16, 16, 96, 64},
    {"ring_fp8_odd_head", DType::kF8E4M3, 6, 2, 23, 4, 40, 17},
    {"window_over_pages", DType::kBF16, 2, 1, 32, 8, 0, 20},
};

// Prefill rows, verify rows, a plain decode row and one without keys, of sequences long enough to
// wrap a ring several times.
Rows mixed_rows() {
  Rows rows;
  for (int32_t p = 180; p < 199; ++p) {
    rows.sequences.push_back(0);
    rows.last_keys.push_back(p);
  }
  for (int32_t p = 61; p < 66; ++p) {
    rows.sequences.push_back(2);
    rows.last_keys.push_back(p);
  }
  rows.sequences.insert(rows.sequences.end(), {1, 1, 3});
  rows.last_keys.insert(rows.last_keys.end(), {0, -1, 31});
  return rows;
}

Store::Sizes sizes_of(const Case& c) {
  return {c.dtype, c.num_kv_heads, c.head_dim, c.block_size, c.ring_len, {199, 1, 66, 32}};
}

class AttentionTest : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionTest, EveryBackendIsNearTheExactResult) {
  const Case& c = GetParam();
  Store kv(sizes_of(c));
  kv.write_all(kReferenceContext);
  Rows rows = mixed_rows();
  if (c.ring_len != 0) {
    // A ring keeps the newest ring_len positions: only rows whose window is still there.
    Rows kept;
    for (size_t r = 0; r < rows.sequences.size(); ++r) {
      const int64_t length = kv.sizes.lengths[static_cast<size_t>(rows.sequences[r])];
      const int64_t first = std::max<int64_t>(0, rows.last_keys[r] - c.window + 1);
      if (first < length - c.ring_len) continue;
      kept.sequences.push_back(rows.sequences[r]);
      kept.last_keys.push_back(rows.last_keys[r]);
    }
    rows = kept;
    ASSERT_GT(rows.sequences.size(), 8U);
  }
  const auto n = static_cast<int64_t>(rows.sequences.size());
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor q = std::move(Tensor(dtype, {n, c.num_heads, c.head_dim}, 8).fill_normal(9, 0.7F));
    const Tensor slow(dtype, {n, c.num_heads, c.head_dim}, 8);
    run(kReferenceContext, q, rows, c.window, kv, slow);
    expect_near_exact(q, rows, c.window, kv, slow);
    const Tensor first(dtype, {n, c.num_heads, c.head_dim}, 8);
    run(Context{}, q, rows, c.window, kv, first);
    expect_near_exact(q, rows, c.window, kv, first);
    for_all_ways([&](const Context& context) {
      const Tensor fast(dtype, {n, c.num_heads, c.head_dim}, 8);
      run(context, q, rows, c.window, kv, fast);
      ASSERT_TRUE(same_bits(fast, first));
      EXPECT_TRUE(fast.surroundings_intact());
    });
  }
}

TEST_P(AttentionTest, ARowHasTheSameBitsHoweverManyRideAlong) {
  const Case& c = GetParam();
  Store kv(sizes_of(c));
  kv.write_all(Context{});
  const int64_t n = 64;
  Rows rows;
  for (int32_t r = 0; r < n; ++r) {
    const bool second = r >= 50;
    rows.sequences.push_back(second ? 2 : 0);
    rows.last_keys.push_back(second ? r : 135 + r);
  }
  const int64_t window = c.window;
  if (c.ring_len != 0)
    for (int32_t& last : rows.last_keys) last = std::max(last, last > 100 ? 190 : 60);
  const Tensor q =
      std::move(Tensor(DType::kF32, {n, c.num_heads, c.head_dim}).fill_normal(9, 0.7F));
  const Tensor expected(DType::kF32, {n, c.num_heads, c.head_dim});
  run(Context{}, q, rows, window, kv, expected);
  for_all_ways([&](const Context& context) {
    for (const int64_t count : {1, 2, 5, 16, 17, 64}) {
      const int64_t first = count == 64 ? 0 : 44 - count / 2;
      Rows part;
      Tensor part_q(DType::kF32, {count, c.num_heads, c.head_dim}, 3);
      for (int64_t r = 0; r < count; ++r) {
        part.sequences.push_back(rows.sequences[static_cast<size_t>(first + r)]);
        part.last_keys.push_back(rows.last_keys[static_cast<size_t>(first + r)]);
        for (int64_t i = 0; i < q.cols(); ++i) store(part_q, r, i, q.at(first + r, i));
      }
      const Tensor out(DType::kF32, {count, c.num_heads, c.head_dim}, 3);
      run(context, part_q, part, window, kv, out);
      for (int64_t r = 0; r < count; ++r)
        ASSERT_TRUE(same_bits(out, r, expected, first + r)) << count << " rows";
    }
  });
}

// Verify rows see drafted keys that earlier rows must not: even a NaN there stays invisible to
// them, and so do the slots before the window.
TEST_P(AttentionTest, KeysOutsideARowsRangeAreNeverRead) {
  const Case& c = GetParam();
  Store kv(sizes_of(c));
  kv.write_all(kReferenceContext);
  const Rows rows{{0, 0, 0}, {195, 196, 197}};
  const Tensor q =
      std::move(Tensor(DType::kF32, {3, c.num_heads, c.head_dim}).fill_normal(9, 0.7F));
  const Tensor before(DType::kF32, {3, c.num_heads, c.head_dim});
  run(kReferenceContext, q, rows, c.window, kv, before);
  const Tensor fast_before(DType::kF32, {3, c.num_heads, c.head_dim});
  run(Context{}, q, rows, c.window, kv, fast_before);
  for (const int64_t position : {196, 197, 198}) kv.poison(0, position);
  if (c.window != 0) kv.poison(0, 195 - c.window);
  const Tensor after(DType::kF32, {3, c.num_heads, c.head_dim});
  run(kReferenceContext, q, rows, c.window, kv, after);
  EXPECT_TRUE(same_bits(after, 0, before, 0));
  EXPECT_TRUE(std::isnan(after.at(1, 0)));
  for_all_ways([&](const Context& context) {
    const Tensor out(DType::kF32, {3, c.num_heads, c.head_dim});
    run(context, q, rows, c.window, kv, out);
    EXPECT_TRUE(same_bits(out, 0, fast_before, 0));
    for (int64_t i = 0; i < out.cols(); ++i) {
      EXPECT_TRUE(std::isnan(out.at(1, i)));
      EXPECT_TRUE(std::isnan(out.at(2, i)));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Stores, AttentionTest, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(Attention, LargeScoresDoNotOverflow) {
  Store kv({DType::kF32, 1, 16, 8, 0, {70}});
  kv.write_all(kReferenceContext);
  const Rows rows{{0}, {69}};
  const Tensor q = std::move(Tensor(DType::kF32, {1, 2, 16}).fill_normal(2, 60.0F));
  for_all_ways([&](const Context& context) {
    const Tensor out(DType::kF32, {1, 2, 16});
    run(context, q, rows, 0, kv, out);
    expect_near_exact(q, rows, 0, kv, out);
  });
}

TEST(KvWrite, EveryBackendStoresTheSameBytes) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8E4M3}) {
    const Store::Sizes sizes{dtype, 2, 24, 8, 16, {40}};
    Store slow(sizes);
    slow.write_all(kReferenceContext);
    for_all_ways([&](const Context& context) {
      Store fast(sizes);
      fast.write_all(context);
      EXPECT_TRUE(same_bits(fast.k, slow.k));
      EXPECT_TRUE(same_bits(fast.v, slow.v));
      EXPECT_TRUE(fast.k.surroundings_intact());
    });
  }
}

TEST(KvWrite, Fp8DividesByTheScaleAndSaturates) {
  Store kv({DType::kF8E4M3, 1, 4, 2, 0, {1}});
  Tensor k(DType::kF32, {1, 1, 4});
  Tensor v(DType::kF32, {1, 1, 4});
  const float values[] = {0.031F * 3.25F, -1e9F, 1e9F, 0.0F};
  for (int64_t i = 0; i < 4; ++i) {
    store(k, 0, i, values[i]);
    store(v, 0, i, values[i]);
  }
  const std::vector<int32_t> zero = {0};
  for (const Context& context : {kReferenceContext, Context{}}) {
    kv_write(context, k, v, zero, zero, kv.places, kv.kv);
    const int64_t slot = kv.places.slot(0, 0);
    EXPECT_EQ(kv.k.at(slot, 0), 3.25F);
    EXPECT_EQ(kv.k.at(slot, 1), -448.0F);
    EXPECT_EQ(kv.k.at(slot, 2), 448.0F);
    EXPECT_EQ(kv.k.at(slot, 3), 0.0F);
    EXPECT_EQ(kv.v.at(slot, 0), 6.0F);  // 3.25 * 0.031 / 0.017 = 5.926
  }
}

}  // namespace
}  // namespace tandem::ops::test
