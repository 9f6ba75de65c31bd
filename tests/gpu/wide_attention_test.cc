// Attention of prompts against ops/reference, with everything that must not be read poisoned, and
// the promise that a row's bits do not depend on the rows beside it.
#include "ops/cuda/wide_attention.h"

#include <cmath>
#include <cstring>
#include <string>

#include "tests/gpu/attention_support.h"
#include "tests/gpu/kv_support.h"
#include "tests/gpu/wide_support.h"

namespace tandem::ops::test {
namespace {

std::string name_of(const testing::TestParamInfo<Heads>& info) {
  return name_of(info.param);
}

constexpr float kScale = 0.02F;

// Keys and values of each position, BF16 and the same wherever they are kept.
template <int kWhich>
auto value_of(int sequence, int position) {
  return [sequence, position](int head, int column) {
    uint32_t x = static_cast<uint32_t>(((sequence * 9001 + position) * 17 + head) * 1031 + column) *
                     2654435761U +
                 kWhich * 977U;
    x = (x ^ (x >> 15)) * 2246822519U;
    x = (x ^ (x >> 13)) * 3266489917U;
    return core::round_to_bf16((static_cast<float>(x >> 8) / 8388608.0F - 1.0F) * 1.7F);
  };
}

// A sequence's part of a pass: positions begin .. end - 1, of which `rows` is what is asked for.
struct Chunk {
  int sequence;
  int begin;
  int end;
};

struct PassSetup {
  Heads heads;
  int window;
  std::vector<Chunk> chunks;
  int tile_rows = cuda::kWideTileRows;
  bool in_chunk = false;  // the pass's keys are beside the cache
  int block_size = 16;
};

// Everything up to each chunk's end, in the reference's layout.
Cache reference_cache(const PassSetup& setup) {
  std::vector<int> lengths;
  for (const Chunk& chunk : setup.chunks) lengths.push_back(chunk.end);
  Cache cache(setup.heads, {setup.block_size, 0, setup.window, lengths});
  for (size_t s = 0; s < lengths.size(); ++s)
    for (int p = 0; p < lengths[s]; ++p)
      cache.write(static_cast<int>(s), p, value_of<1>(setup.chunks[s].sequence, p),
                  value_of<2>(setup.chunks[s].sequence, p));
  return cache;
}

// What the device has: all of it in pages, or old keys in a ring and the chunk's own apart.
Cache device_cache(const PassSetup& setup) {
  if (!setup.in_chunk) return reference_cache(setup);
  std::vector<int> lengths;
  for (const Chunk& chunk : setup.chunks) lengths.push_back(std::max(chunk.begin, 1));
  const int ring_len = (setup.window + 15) / 16 * 16;
  Cache cache(setup.heads, {16, ring_len, setup.window, lengths});
  for (size_t s = 0; s < lengths.size(); ++s)
    for (int p = 0; p < setup.chunks[s].begin; ++p)
      cache.write(static_cast<int>(s), p, value_of<1>(setup.chunks[s].sequence, p),
                  value_of<2>(setup.chunks[s].sequence, p));
  return cache;
}

template <int kWhich>
std::vector<BFloat16> chunk_rows(const PassSetup& setup) {
  std::vector<BFloat16> rows;
  for (const Chunk& chunk : setup.chunks)
    for (int p = chunk.begin; p < chunk.end; ++p)
      for (int h = 0; h < setup.heads.num_kv_heads; ++h)
        for (int c = 0; c < setup.heads.head_dim; ++c)
          rows.push_back(core::to_bf16(value_of<kWhich>(chunk.sequence, p)(h, c)));
  if (!setup.heads.e4m3_cache) return rows;
  return tests::widened(
      tests::stored_by_cpu(rows, setup.heads.head_dim, kWhich == 1 ? kKeyScale : kValueScale));
}

struct Lists {
  explicit Lists(const PassSetup& setup) {
    for (size_t s = 0; s < setup.chunks.size(); ++s) {
      const Chunk& chunk = setup.chunks[s];
      for (int p = chunk.begin; p < chunk.end; ++p) {
        if ((p - chunk.begin) % setup.tile_rows == 0) {
          first_rows.push_back(static_cast<int32_t>(positions.size()));
          num_rows.push_back(0);
          begins.push_back(chunk.begin);
          ends.push_back(chunk.end);
        }
        ++num_rows.back();
        positions.push_back(p);
        sequences.push_back(static_cast<int32_t>(s));
      }
    }
  }
  std::vector<int32_t> positions, sequences, first_rows, num_rows, begins, ends;
};

// Queries whose scores have a standard deviation of about 2, a function of sequence and position.
std::vector<BFloat16> queries(const PassSetup& setup) {
  std::vector<BFloat16> q;
  const float scale = 2.0F / std::sqrt(static_cast<float>(setup.heads.head_dim));
  for (const Chunk& chunk : setup.chunks)
    for (int p = chunk.begin; p < chunk.end; ++p)
      for (int h = 0; h < setup.heads.num_heads; ++h)
        for (int c = 0; c < setup.heads.head_dim; ++c)
          q.push_back(core::to_bf16(scale * value_of<3>(chunk.sequence, p)(h, c)));
  return q;
}

// E4M3 bytes of the result, row after row.
std::vector<uint8_t> run(const PassSetup& setup) {
  const Lists lists(setup);
  const Cache cache = device_cache(setup);
  const auto num_rows = static_cast<int>(lists.positions.size());
  const int columns = setup.heads.num_heads * setup.heads.head_dim;
  const auto q = tests::to_device(queries(setup));
  const auto k = tests::to_device(cache.device_order(cache.k()));
  const auto v = tests::to_device(cache.device_order(cache.v()));
  const auto chunk_k = tests::to_device(chunk_rows<1>(setup));
  const auto chunk_v = tests::to_device(chunk_rows<2>(setup));
  const auto table = tests::to_device(cache.table());
  const auto positions = tests::to_device(lists.positions);
  const auto sequences = tests::to_device(lists.sequences);
  const auto first_rows = tests::to_device(lists.first_rows);
  const auto tile_rows = tests::to_device(lists.num_rows);
  const auto begins = tests::to_device(lists.begins);
  const auto ends = tests::to_device(lists.ends);
  tests::WideTestOperand out(num_rows, columns, kScale);
  cuda::Rows rows;
  rows.num_rows = num_rows;
  rows.positions = positions.as<int32_t>();
  rows.sequences = sequences.as<int32_t>();
  const cuda::WideTiles tiles{static_cast<int>(lists.first_rows.size()), first_rows.as<int32_t>(),
                              tile_rows.as<int32_t>(), begins.as<int32_t>(), ends.as<int32_t>()};
  cuda::WideAttention job;
  job.num_heads = setup.heads.num_heads;
  job.num_kv_heads = setup.heads.num_kv_heads;
  job.head_dim = setup.heads.head_dim;
  job.window = setup.window;
  job.q = q.as<uint16_t>();
  job.kv = cache.device_layer(k.data(), v.data());
  job.places = {table.as<int32_t>(), static_cast<int>(cache.places().max_blocks),
                cache.layout().block_size, cache.layout().ring_len};
  if (setup.in_chunk) job.chunk = {chunk_k.as<uint16_t>(), chunk_v.as<uint16_t>()};
  job.out = out.view();
  cuda::wide_attention({}, rows, tiles, job);
  out.read();
  EXPECT_TRUE(out.guard_intact());
  std::vector<uint8_t> bytes;
  for (int r = 0; r < num_rows; ++r)
    for (int c = 0; c < columns; ++c) bytes.push_back(out.byte(r, c));
  return bytes;
}

// The reference's result in FP32 of every `stride`th row, with V as it is or with |V|.
Tensor expected(const PassSetup& setup, int stride, bool absolute_values) {
  static core::ThreadPool pool(8);
  const Context context{Backend::kReference, &pool};
  const Lists lists(setup);
  const Cache cache = reference_cache(setup);
  const auto all_q = queries(setup);
  const int columns = setup.heads.num_heads * setup.heads.head_dim;
  std::vector<int32_t> sequences, last_keys;
  for (size_t r = 0; r < lists.positions.size(); r += static_cast<size_t>(stride)) {
    sequences.push_back(lists.sequences[r]);
    last_keys.push_back(lists.positions[r]);
  }
  const auto num_rows = static_cast<int64_t>(sequences.size());
  Tensor q(DType::kBF16, {num_rows, setup.heads.num_heads, setup.heads.head_dim});
  for (int64_t r = 0; r < num_rows; ++r)
    std::memcpy(q.view().row<BFloat16>(r), all_q.data() + r * stride * columns,
                static_cast<size_t>(columns) * 2);
  const Tensor v = cache.values(absolute_values);
  const KvView kv = cache.view(v);
  Tensor out(DType::kF32, {num_rows, setup.heads.num_heads, setup.heads.head_dim});
  attention(context, q, sequences, last_keys, setup.window, cache.places(), kv, out);
  return out;
}

// As for few rows (attention_test.cc): weights rounded to BF16 change a sum of values by one part
// in 2^8 of the sum of magnitudes at most; then the result is rounded to BF16 and to E4M3, whose
// steps are 2^-3 of the value and 2^-9 of the scale at least.
void expect_like_reference(const PassSetup& setup, int stride = 1) {
  const auto got = run(setup);
  const Tensor want = expected(setup, stride, false);
  const Tensor magnitudes = expected(setup, stride, true);
  int failures = 0;
  double squares = 0;
  for (int64_t r = 0; r < want.rows(); ++r)
    for (int64_t c = 0; c < want.cols() && failures < 5; ++c) {
      const float value =
          kScale * core::e4m3_to_float(got[static_cast<size_t>(r * stride * want.cols() + c)]);
      const float exact = want.at(r, c);
      const float before = 0x1p-8F * (magnitudes.at(r, c) + 3.0F * std::fabs(exact));
      const float bound = before + std::max((std::fabs(exact) + before) / 16, kScale * 0x1p-10F);
      const float error = (value - exact) / (magnitudes.at(r, c) + 1e-9F);
      squares += double{error} * double{error};
      if (std::fabs(value - exact) <= bound) continue;
      ++failures;
      ADD_FAILURE() << "row " << r * stride << " head " << c / setup.heads.head_dim << " column "
                    << c % setup.heads.head_dim << ": expected " << exact << " +- " << bound
                    << ", got " << value;
    }
  // Rounding to E4M3 alone: a step of 2^-3 at most, uniform, on values below their magnitudes.
  EXPECT_LE(std::sqrt(squares / static_cast<double>(want.rows() * want.cols())), 0.02);
}

// Over caches of BF16 and of E4M3.
std::vector<Heads> in_both_formats(std::vector<Heads> shapes) {
  for (size_t i = 0, n = shapes.size(); i < n; ++i) {
    shapes.push_back(shapes[i]);
    shapes.back().e4m3_cache = true;
  }
  return shapes;
}

class WideAttentionTest : public tests::OfPrompts<testing::TestWithParam<Heads>> {};

// The demo pair's, 12B and 31B heads of both types; groups that are no power of two.
INSTANTIATE_TEST_SUITE_P(Shapes, WideAttentionTest,
                         testing::ValuesIn(in_both_formats({{8, 2, 32},
                                                            {8, 1, 64},
                                                            {6, 2, 64},
                                                            {5, 1, 128},
                                                            {16, 8, 256},
                                                            {8, 4, 256},
                                                            {16, 1, 512},
                                                            {8, 1, 512},
                                                            {3, 1, 512}})),
                         name_of);

TEST_P(WideAttentionTest, PagesOfSeveralSequences) {
  expect_like_reference({GetParam(), 0, {{0, 0, 1}, {1, 0, 70}, {2, 190, 260}, {3, 63, 66}}});
}

TEST_P(WideAttentionTest, AWindowInPages) {
  expect_like_reference({GetParam(), 70, {{0, 0, 200}, {1, 129, 193}}});
}

TEST_P(WideAttentionTest, OldKeysInARingTheirOwnBesideIt) {
  PassSetup setup{GetParam(), 70, {{0, 0, 150}, {1, 300, 371}, {2, 64, 65}, {3, 30, 95}}};
  setup.in_chunk = true;
  expect_like_reference(setup);
}

// Alone, in tiles cut elsewhere, in shorter chunks, from the cache or beside it.
TEST_P(WideAttentionTest, BitsOfARowDoNotDependOnItsCompany) {
  for (const int window : {0, 90}) {
    SCOPED_TRACE(testing::Message() << "window " << window);
    const PassSetup whole{GetParam(), window, {{0, 0, 230}, {1, 100, 140}}};
    const auto all = run(whole);
    const auto columns = static_cast<size_t>(GetParam().num_heads * GetParam().head_dim);
    const auto expect_rows = [&](const PassSetup& setup, size_t first, const std::string& how) {
      const auto got = run(setup);
      for (size_t i = 0; i < got.size(); ++i)
        ASSERT_EQ(got[i], all[first * columns + i])
            << how << ": row " << first + i / columns << " column " << i % columns;
    };
    PassSetup odd = whole;
    odd.tile_rows = 13;
    expect_rows(odd, 0, "tiles of 13");
    for (const int row : {0, 1, 63, 64, 89, 90, 127, 229})
      expect_rows({GetParam(), window, {{0, row, row + 1}}}, static_cast<size_t>(row), "alone");
    expect_rows({GetParam(), window, {{0, 57, 171}}}, 57, "a chunk");
    expect_rows({GetParam(), window, {{1, 100, 140}}}, 230, "the second sequence");
    if (window == 0) continue;
    for (const int begin : {0, 101}) {
      PassSetup beside{GetParam(), window, {{0, begin, 230}}};
      beside.in_chunk = true;
      expect_rows(beside, static_cast<size_t>(begin), "beside a ring");
    }
  }
}

using WideAttentionLong = tests::OfPrompts<testing::Test>;

TEST_F(WideAttentionLong, TheWindowOfThe12B) {
  for (const Heads& heads : in_both_formats({{16, 8, 256}})) {
    PassSetup setup{heads, 1024, {{0, 1800, 1990}}};
    setup.in_chunk = true;
    expect_like_reference(setup, 17);
  }
}

// Those of which the copy engine takes whole pages, and others.
TEST_F(WideAttentionLong, BlockSizesChangeNoBit) {
  PassSetup setup{{16, 1, 512}, 0, {{0, 150, 280}, {1, 0, 5}, {2, 63, 64}}};
  const auto expected = run(setup);
  for (const int block_size : {1, 8, 24, 32, 64, 256}) {
    setup.block_size = block_size;
    EXPECT_TRUE(run(setup) == expected) << block_size;
  }
}

TEST_F(WideAttentionLong, AFullLayerOverManyKeys) {
  for (const Heads& heads : in_both_formats({{16, 1, 512}}))
    expect_like_reference({heads, 0, {{0, 5000, 5070}}}, 9);
}

}  // namespace
}  // namespace tandem::ops::test
