// Attention of rows with a tile each, and with queries that attention() makes from what their
// product left, against head_prep() and attention() of rows with padding, bit for bit.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ops/cuda/attention.h"
#include "ops/cuda/head_prep.h"
#include "ops/rope.h"
#include "tests/gpu/attention_support.h"
#include "tests/gpu/row_support.h"

namespace tandem::ops::test {
namespace {

struct Case {
  Heads heads;
  int set_blocks, num_shares;  // of the product of queries
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return name_of(info.param.heads) + "_behind_" + std::to_string(info.param.num_shares);
}

struct Options {
  bool makes_queries = false;
  bool early_plan = false;
  bool one_tile = false;  // without an empty one behind it
  bool padded = false;    // to eight rows: other kernels take them
  bool dependent = true;
};

int columns_of(const Heads& heads) {
  return heads.num_heads * heads.head_dim;
}

// A layer of an assistant over keys that its target wrote, and rows of it, on the device.
struct Layer {
  Layer(const Case& c, const Cache& cache, const std::vector<RowSpec>& specs, bool padded)
      : heads(c.heads),
        layout(cache.layout()),
        max_blocks(static_cast<int>(cache.places().max_blocks)),
        batch(specs, cuda::kTileRows),
        num_rows(padded ? batch.num_rows() : static_cast<int>(specs.size())),
        host_sums(8, columns_of(heads), c.set_blocks, c.num_shares),
        inv_freq(tests::to_device(rope_inv_freq(heads.head_dim, 10000.0, 1.0))),
        host_norm(tests::random_bf16(static_cast<size_t>(heads.head_dim), 31, 0.3F)),
        norm(tests::to_device(host_norm)),
        k(tests::to_device(cache.device_bytes(cache.k()))),
        v(tests::to_device(cache.device_bytes(cache.v()))),
        kv(cache.device_layer(k.data(), v.data())),
        table(tests::to_device(cache.table())),
        sequences(tests::to_device(batch.sequences)),
        last_keys(tests::to_device(batch.last_keys)),
        first_rows(tests::to_device(batch.first_rows)),
        tile_rows(tests::to_device(batch.tile_rows)),
        max_segments(cuda::attention_max_segments(
            heads.head_dim, layout.window == 0 ? 1500 : layout.window + cuda::kTileRows - 1)),
        workspace(tests::poisoned(cuda::attention_workspace_bytes(num_rows, heads.num_heads,
                                                                  heads.head_dim, max_segments))),
        q(tests::poisoned(static_cast<size_t>(num_rows * columns_of(heads)) * 2)),
        out(num_rows, columns_of(heads), 0.0123F) {
    host_sums.fill_normal(5, 1.0F, static_cast<int>(specs.size()));
    sums = host_sums.upload();
    std::vector<int32_t> next;  // the token whose keys nobody has
    for (const RowSpec& row : specs) next.push_back(row.last_key + 1);
    next.resize(static_cast<size_t>(num_rows), kHuge);
    positions = tests::to_device(next);
  }

  cuda::Rows rows(bool early_plan) const {
    return {num_rows,
            nullptr,
            positions.as<int32_t>(),
            last_keys.as<int32_t>(),
            sequences.as<int32_t>(),
            early_plan};
  }
  cuda::QueryTiles tiles(bool one_tile) const {
    const auto count = static_cast<int>(batch.first_rows.size());
    return {one_tile ? count - 1 : count, first_rows.as<int32_t>(), tile_rows.as<int32_t>()};
  }
  cuda::HeadPrep preparation() const {
    cuda::HeadPrep prep;
    prep.product = sums;
    prep.scales[0] = kScale;
    prep.num_heads = heads.num_heads;
    prep.head_dim = heads.head_dim;
    prep.eps = kEps;
    prep.q_norm = norm.as<uint16_t>();
    prep.inv_freq = inv_freq.as<float>();
    prep.q = q.as<uint16_t>();
    return prep;
  }
  cuda::QuerySums query_sums() const {
    return {sums, kScale, kEps, norm.as<uint16_t>(), inv_freq.as<float>()};
  }
  float query_scale() const {
    float largest = 0.0F;
    for (const core::BFloat16 weight : host_norm)
      largest = std::max(largest, std::fabs(core::to_float(weight)));
    return cuda::attention_query_scale(heads.head_dim, largest);
  }
  cuda::Attention attention() const {
    cuda::Attention job;
    job.has_fresh_keys = false;
    job.num_heads = heads.num_heads;
    job.num_kv_heads = heads.num_kv_heads;
    job.head_dim = heads.head_dim;
    job.window = layout.window;
    job.query_scale = query_scale();
    job.kv = kv;
    job.places = {table.as<int32_t>(), max_blocks, layout.block_size, layout.ring_len};
    job.workspace = workspace.data();
    job.max_segments = max_segments;
    job.out = out.view();
    return job;
  }

  static constexpr float kScale = 0.71F;
  static constexpr float kEps = 1e-6F;
  Heads heads;
  Layout layout;
  int max_blocks;
  Batch batch;
  int num_rows;
  tests::HostSums host_sums;
  cuda::Partials sums;
  cuda::DeviceBuffer inv_freq;
  std::vector<core::BFloat16> host_norm;
  cuda::DeviceBuffer norm, k, v;
  cuda::KvLayer kv;
  cuda::DeviceBuffer table, sequences, last_keys, first_rows, tile_rows;
  cuda::DeviceBuffer positions;
  int max_segments;
  cuda::DeviceBuffer workspace, q;
  tests::TestOperand out;
};

class AttentionQueries : public testing::TestWithParam<Case> {
 protected:
  static const Heads& heads() { return GetParam().heads; }

  // Bits of the result of the real rows.
  static std::vector<uint16_t> run(const Cache& cache, const std::vector<RowSpec>& specs,
                                   const Options& options) {
    Layer layer(GetParam(), cache, specs, options.padded);
    const cuda::Stream stream{nullptr, options.dependent};
    const cuda::Rows rows = layer.rows(options.early_plan);
    cuda::Attention job = layer.attention();
    if (options.makes_queries) {
      job.query_sums = layer.query_sums();
    } else {
      cuda::head_prep(stream, rows, layer.preparation());
      job.q = layer.q.as<uint16_t>();
    }
    cuda::attention(stream, rows, layer.tiles(options.one_tile), job);
    tests::synchronize();
    layer.out.read();
    EXPECT_TRUE(layer.out.guard_intact());
    std::vector<uint16_t> bits;
    for (int row = 0; row < static_cast<int>(specs.size()); ++row)
      for (int column = 0; column < columns_of(heads()); ++column)
        bits.push_back(layer.out.bits(row, column));
    return bits;
  }

  static void expect_same(const Cache& cache, const std::vector<RowSpec>& rows) {
    const auto want = run(cache, rows, {.padded = true});
    int zeros = 0;  // of the last row
    for (int i = 1; i <= columns_of(heads()); ++i) zeros += (*(want.end() - i) & 0x7f) == 0 ? 1 : 0;
    EXPECT_LT(zeros, columns_of(heads()) / 4) << "nothing to compare";
    const int group = heads().num_heads / heads().num_kv_heads;
    for (const bool makes : {false, cuda::attention_makes_queries(heads().head_dim, group)})
      for (const bool early : {false, true})
        for (const bool one_tile : {false, true})
          for (const bool dependent : {false, true})
            EXPECT_TRUE(run(cache, rows,
                            {.makes_queries = makes,
                             .early_plan = early,
                             .one_tile = one_tile,
                             .dependent = dependent}) == want)
                << rows.size() << " rows, last key " << rows[0].last_key << ", makes queries "
                << makes << ", early plan " << early << ", one tile " << one_tile << ", dependent "
                << dependent;
  }
};

// Groups of 1 to 8 heads, and larger ones, of which two thread blocks take halves; pieces of sums
// from one to eight; heads that are narrower than a warp or end within a set of the product.
INSTANTIATE_TEST_SUITE_P(Shapes, AttentionQueries,
                         testing::Values(Case{{4, 4, 32}, 4, 1}, Case{{6, 2, 64}, 32, 20},
                                         Case{{5, 1, 128}, 32, 17}, Case{{16, 8, 256}, 32, 132},
                                         Case{{16, 8, 256}, 32, 128}, Case{{8, 2, 256}, 32, 128},
                                         Case{{8, 1, 256}, 64, 132}, Case{{16, 1, 512}, 32, 128},
                                         Case{{24, 2, 512}, 32, 132}, Case{{3, 1, 512}, 32, 40},
                                         Case{{4, 4, 32, true}, 4, 1},
                                         Case{{5, 1, 128, true}, 32, 17},
                                         Case{{16, 8, 256, true}, 32, 128},
                                         Case{{24, 2, 512, true}, 32, 132}),
                         name_of);

TEST_P(AttentionQueries, OfOneRow) {
  Cache pages(heads(), {16, 0, 0, {7, 1300}});
  pages.write_random(3);
  for (const int last_key : {0, 63, 127, 128, 300, 1024, 1298}) expect_same(pages, {{1, last_key}});
  Cache ring(heads(), {32, 1088, 1024, {7, 1500}});
  ring.write_random(4);
  for (const int last_key : {1450, 1498}) expect_same(ring, {{1, last_key}});
}

TEST_P(AttentionQueries, OfTwoRows) {
  Cache pages(heads(), {16, 0, 0, {1300, 200}});
  pages.write_random(6);
  expect_same(pages, {{0, 1200}, {1, 150}});
  expect_same(pages, {{0, 1280}, {0, 1281}});
  Cache ring(heads(), {32, 1088, 1024, {1500, 1400}});
  ring.write_random(7);
  expect_same(ring, {{0, 1498}, {1, 1370}});
}

// A row that sees nothing, before one that does.
TEST_P(AttentionQueries, OfARowWithoutKeys) {
  Cache pages(heads(), {16, 0, 0, {40, 100}});
  pages.write_random(8);
  expect_same(pages, {{0, -1}, {1, 90}});
}

}  // namespace
}  // namespace tandem::ops::test
