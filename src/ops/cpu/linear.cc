#include <algorithm>
#include <vector>

#include "ops/cpu/cpu.h"
#include "ops/cpu/scratch.h"
#include "ops/parallel.h"

namespace tandem::ops::cpu {
namespace {

// Multiply-adds that pay for waking a thread: some five microseconds.
constexpr int64_t kMinWork = 1 << 16;

Element element_of(const LinearWeight& weight) {
  if (weight.format == LinearFormat::kF32) return Element::kF32;
  return weight.format == LinearFormat::kBF16 ? Element::kBF16 : Element::kFp8;
}

// One way in which weights want x.
struct PreparedRows {
  int halves = 1;
  bool on_tiles = false;
  TileOrder order = TileOrder::kNeighbours;  // on_tiles
  Quantize quantize = Quantize::kNone;
  float input_scale = 1.0F;
  float* x = nullptr;           // [n, padded(in)]
  float* row_scales = nullptr;  // [n]
  TileRows tiles;               // on_tiles: the same once more

  bool serves(const PreparedRows& wanted) const {
    return halves == wanted.halves && on_tiles == wanted.on_tiles && order == wanted.order &&
           quantize == wanted.quantize &&
           (quantize != Quantize::kStatic || input_scale == wanted.input_scale);
  }
};
static_assert(static_cast<int>(Quantize::kStatic) ==
              static_cast<int>(ActivationQuantization::kStatic));
static_assert(static_cast<int>(Quantize::kPerToken) ==
              static_cast<int>(ActivationQuantization::kPerToken));

// Tiles take what BF16 holds: E4M3 values, and x in BF16. The choice may not depend on the number
// of rows.
PreparedRows wanted_by(const LinearWeight& weight, const core::TensorView& x) {
  const bool narrow_x =
      x.dtype == core::DType::kBF16 || weight.activation != ActivationQuantization::kNone;
  PreparedRows way;
  way.on_tiles =
      kernels().linear_tiles != nullptr && weight.format != LinearFormat::kF32 && narrow_x;
  if (way.on_tiles && element_of(weight) == Element::kFp8) way.order = TileOrder::kEights;
  way.halves = way.on_tiles ? 1 : halves_of(element_of(weight));
  way.quantize = static_cast<Quantize>(weight.activation);
  way.input_scale = weight.input_scale;
  return way;
}

void fill(const Context& context, const core::TensorView& x, PreparedRows& way) {
  const int64_t n = x.rows();
  const int64_t depth = padded(x.cols());
  parallel_for(context, n, kMinWork / (depth + 1) + 1, [&](int64_t begin, int64_t end) {
    kernels().prepare_rows(rows_of(x), x.cols(), way.halves, way.quantize, way.input_scale, begin,
                           end, way.x, way.row_scales);
  });
  if (!way.on_tiles) return;
  const int64_t items = way.tiles.num_tiles * way.tiles.num_products;
  parallel_for(context, items, kMinWork / (tile_pairs(way.tiles) + 1) + 1,
               [&](int64_t begin, int64_t end) {
                 avx512::pack_tiles(way.x, depth, n, way.tiles, begin, end);
               });
}

// x once per way the weights want it: projections of one input mostly agree.
std::vector<PreparedRows> prepare(const Context& context, const core::TensorView& x,
                                  std::span<const LinearWeight> weights) {
  std::vector<PreparedRows> ways;
  for (const LinearWeight& weight : weights) {
    const PreparedRows wanted = wanted_by(weight, x);
    const auto serves = [&](const PreparedRows& way) { return way.serves(wanted); };
    if (std::none_of(ways.begin(), ways.end(), serves)) ways.push_back(wanted);
  }
  const int64_t n = x.rows();
  const int64_t size = n * padded(x.cols());
  const auto count = static_cast<int64_t>(ways.size());
  const TileRows largest = tile_rows(nullptr, n, x.cols(), TileOrder::kEights);
  const int64_t pairs_size = largest.num_tiles * largest.num_products * tile_pairs(largest);
  float* const values = scratch(ScratchUse::kRows, count * size);
  float* const scales = scratch(ScratchUse::kRowScales, count * n);
  float* const pairs =
      kernels().linear_tiles == nullptr ? nullptr : scratch(ScratchUse::kPairs, count * pairs_size);
  for (int64_t i = 0; i < count; ++i) {
    PreparedRows& way = ways[static_cast<size_t>(i)];
    way.x = values + i * size;
    way.row_scales = scales + i * n;
    if (way.on_tiles)
      way.tiles =
          tile_rows(reinterpret_cast<uint32_t*>(pairs + i * pairs_size), n, x.cols(), way.order);
    fill(context, x, way);
  }
  return ways;
}

LinearJob make_job(const LinearWeight& weight, const PreparedRows& x, int64_t n,
                   const core::TensorView& output) {
  LinearJob job;
  job.element = element_of(weight);
  job.weight = weight.weight.data;
  job.weight_stride = weight.weight.row_stride;
  job.out = weight.out_features();
  job.in = weight.in_features();
  job.x = x.x;
  job.tiles = x.tiles;
  job.n = n;
  job.row_scales = x.row_scales;
  job.y = rows_of(output);
  const auto* const scales = static_cast<const float*>(weight.weight_scales.data);
  if (weight.format == LinearFormat::kFp8Tensor) job.scale = weight.weight_scale;
  if (weight.format == LinearFormat::kFp8Channel) job.channel_scales = scales;
  if (weight.format == LinearFormat::kFp8Block) {
    job.block_scales = scales;
    job.block_stride = weight.weight_scales.row_stride;
  }
  return job;
}

// Outputs are given to threads in groups of this size.
int64_t group_of(const LinearJob& job) {
  return job.tiles.pairs == nullptr ? kOutTile : kTileGroup;
}

void run(const LinearJob& job, int64_t begin, int64_t end) {
  if (job.tiles.pairs == nullptr)
    kernels().linear(job, begin, end, scratch(ScratchUse::kPanel, linear_scratch(job.n)));
  else
    kernels().linear_tiles(job, begin, end,
                           scratch(ScratchUse::kPanel, tiles_scratch(job.tiles.num_tiles)));
}

}  // namespace

void linear(const Context& context, const core::TensorView& x,
            std::span<const LinearWeight> weights, std::span<const core::TensorView> outputs) {
  const int64_t n = x.rows();
  const std::vector<PreparedRows> ways = prepare(context, x, weights);
  std::vector<LinearJob> jobs;
  int64_t num_groups = 0;
  int64_t largest = kOutTile;
  for (size_t i = 0; i < weights.size(); ++i) {
    const PreparedRows wanted = wanted_by(weights[i], x);
    const auto way = std::find_if(ways.begin(), ways.end(), [&](const PreparedRows& candidate) {
      return candidate.serves(wanted);
    });
    jobs.push_back(make_job(weights[i], *way, n, outputs[i]));
    const int64_t group = group_of(jobs.back());
    num_groups += (jobs.back().out + group - 1) / group;
    largest = std::max(largest, group);
  }
  // All projections in one parallel section: groups of the first weight, then of the second, ...
  const int64_t work = n * x.cols() * largest;
  parallel_for(context, num_groups, kMinWork / (work + 1) + 1, [&](int64_t begin, int64_t end) {
    int64_t first = 0;
    for (const LinearJob& job : jobs) {
      const int64_t group = group_of(job);
      const int64_t from = std::max<int64_t>(begin - first, 0) * group;
      const int64_t to = std::min((end - first) * group, job.out);
      if (from < to) run(job, from, to);
      first += (job.out + group - 1) / group;
    }
  });
}

}  // namespace tandem::ops::cpu
