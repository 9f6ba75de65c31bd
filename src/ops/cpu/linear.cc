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

struct PreparedRows {
  int halves = 1;
  Quantize quantize = Quantize::kNone;
  float input_scale = 1.0F;
  const float* x = nullptr;           // [n, padded(in)]
  const float* row_scales = nullptr;  // [n]

  bool serves(const LinearWeight& weight) const {
    return halves == halves_of(element_of(weight)) &&
           quantize == static_cast<Quantize>(weight.activation) &&
           (quantize != Quantize::kStatic || input_scale == weight.input_scale);
  }
};
static_assert(static_cast<int>(Quantize::kStatic) ==
              static_cast<int>(ActivationQuantization::kStatic));
static_assert(static_cast<int>(Quantize::kPerToken) ==
              static_cast<int>(ActivationQuantization::kPerToken));

// x once per way the weights want it: projections of one input mostly agree.
std::vector<PreparedRows> prepare(const Context& context, const core::TensorView& x,
                                  std::span<const LinearWeight> weights) {
  std::vector<PreparedRows> ways;
  for (const LinearWeight& weight : weights) {
    const auto serves = [&](const PreparedRows& way) { return way.serves(weight); };
    if (std::none_of(ways.begin(), ways.end(), serves))
      ways.push_back({halves_of(element_of(weight)), static_cast<Quantize>(weight.activation),
                      weight.input_scale});
  }
  const int64_t n = x.rows();
  const int64_t cols = x.cols();
  const auto count = static_cast<int64_t>(ways.size());
  float* const values = scratch(ScratchUse::kRows, count * n * padded(cols));
  float* const scales = scratch(ScratchUse::kRowScales, count * n);
  for (int64_t i = 0; i < count; ++i) {
    PreparedRows& way = ways[static_cast<size_t>(i)];
    float* const to = values + i * n * padded(cols);
    float* const row_scales = scales + i * n;
    way.x = to;
    way.row_scales = row_scales;
    parallel_for(context, n, kMinWork / (cols + 1) + 1, [&](int64_t begin, int64_t end) {
      kernels().prepare_rows(rows_of(x), cols, way.halves, way.quantize, way.input_scale, begin,
                             end, to, row_scales);
    });
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

constexpr int64_t tiles_of(int64_t out) {
  return (out + kOutTile - 1) / kOutTile;
}

}  // namespace

void linear(const Context& context, const core::TensorView& x,
            std::span<const LinearWeight> weights, std::span<const core::TensorView> outputs) {
  const int64_t n = x.rows();
  const std::vector<PreparedRows> ways = prepare(context, x, weights);
  std::vector<LinearJob> jobs;
  int64_t num_tiles = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto way = std::find_if(ways.begin(), ways.end(), [&](const PreparedRows& candidate) {
      return candidate.serves(weights[i]);
    });
    jobs.push_back(make_job(weights[i], *way, n, outputs[i]));
    num_tiles += tiles_of(jobs.back().out);
  }
  // All projections in one parallel section: tiles of the first weight, then of the second, ...
  const int64_t work = n * x.cols() * kOutTile;
  parallel_for(context, num_tiles, kMinWork / (work + 1) + 1, [&](int64_t begin, int64_t end) {
    float* const sums = scratch(ScratchUse::kPanel, linear_scratch(n));
    int64_t first = 0;
    for (const LinearJob& job : jobs) {
      const int64_t from = std::max<int64_t>(begin - first, 0) * kOutTile;
      const int64_t to = std::min((end - first) * kOutTile, job.out);
      if (from < to) kernels().linear(job, from, to, sums);
      first += tiles_of(job.out);
    }
  });
}

}  // namespace tandem::ops::cpu
