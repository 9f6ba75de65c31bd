// Heads through their screens (ops/cuda/head_screen.h, head_likeliest.h): greedy tokens of the
// head, or its likeliest ones, for the bytes of its 8-bit copy.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/gpu/graph_timer.h"
#include "bench/gpu/product_bench.h"
#include "ops/cuda/head_likeliest.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;
using ops::cuda::DeviceBuffer;
using ops::cuda::HeadArgmax;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using ops::cuda::Stream;

constexpr int kMostRows = 8 * ops::cuda::kMaxListedTiles;
constexpr int kLaunches = 4;
constexpr int kNumLikeliest = 66;  // top-k 64 and two suppressed ids

// A head of random weights and its screen.
struct ScreenedHead {
  PackedLinear head, screen;
  DeviceBuffer scales, errors, workspace, exchange, scratch, tokens, partials, operand, rest,
      likeliest;

  ScreenedHead(int out, int in, int num_multiprocessors)
      : head(make_packed_linear(PackedType::kBF16, out, in, num_multiprocessors)),
        screen(make_packed_linear(PackedType::kIntegers, out, in, num_multiprocessors)),
        scales(zeros(int64_t{4} * ops::cuda::kSetColumns * head.num_sets)),
        errors(zeros(static_cast<int64_t>(scales.size_bytes()))),
        workspace(zeros(static_cast<int64_t>(ops::cuda::screen_workspace_bytes(screen)))),
        exchange(zeros(static_cast<int64_t>(ops::cuda::head_exchange_bytes(screen)))),
        scratch(zeros(static_cast<int64_t>(ops::cuda::argmax_scratch_bytes(kMostRows)))),
        tokens(sizeof(int32_t) * kMostRows),
        partials(static_cast<size_t>(screen.partial_bytes(kMostRows))),
        operand(size_t{2} * kMostRows * static_cast<size_t>(in)),
        rest(ops::cuda::likeliest_workspace_bytes(screen)),
        likeliest(sizeof(ops::cuda::Likeliest) * kMostRows) {
    // Random values are as good as rows as they are packed.
    const PackedLinear rows = make_packed_linear(PackedType::kBF16, out, in, num_multiprocessors);
    const PackedLinear x = make_packed_linear(PackedType::kBF16, 128, in, num_multiprocessors);
    const DeviceBuffer codes(static_cast<size_t>(screen.size_bytes()));
    fill_random({}, rows, 1);
    fill_random({}, x, 2);
    ops::cuda::round_to_integers({}, rows.data.data(), out, in, codes.as<uint8_t>(),
                                 scales.as<float>(), errors.as<float>());
    pack_rows({}, head, rows.data.data(), 0, out);
    pack_rows({}, screen, codes.data(), 0, out);
    TANDEM_CUDA_CHECK(
        cudaMemcpy(operand.data(), x.data.data(), operand.size_bytes(), cudaMemcpyDeviceToDevice));
    TANDEM_CUDA_CHECK(cudaDeviceSynchronize());
  }

  ops::cuda::HeadLogits logits(int rows) const {
    ops::cuda::HeadLogits result;
    result.num_rows = rows;
    result.vocab_size = head.out_features;
    result.cap = 0.5F;  // the largest of these logits are near 0.15
    return result;
  }
  ops::cuda::HeadScreen view() const {
    return {&screen, scales.as<float>(), errors.as<float>(), workspace.data()};
  }
  void choose(const Stream& stream, int rows) const {
    HeadArgmax argmax;
    argmax.logits = logits(rows);
    argmax.scratch = scratch.data();
    argmax.tokens = tokens.as<int32_t>();
    argmax.exchange = exchange.data();
    if (rows <= ops::cuda::kMaxHeadRows)
      screened_head(stream, head, view(), {}, operand.data(), argmax);
    else
      screened_rows(stream, head, view(), operand.data(), num_tiles(rows), partials.as<float>(),
                    argmax);
  }
  void find_likeliest(const Stream& stream, int rows) const {
    ops::cuda::HeadLikeliest job;
    job.logits = logits(rows);
    job.num_likeliest = kNumLikeliest;
    job.workspace = rest.data();
    job.exchange = exchange.data();
    job.out = likeliest.as<ops::cuda::Likeliest>();
    if (rows <= ops::cuda::kMaxHeadRows)
      screened_likeliest(stream, head, view(), {}, operand.data(), job);
    else
      screened_likeliest_rows(stream, head, view(), operand.data(), num_tiles(rows),
                              partials.as<float>(), job);
  }
};

// Of one number of rows.
ordered_json time_screened(const GpuFacts& facts, const LinearShape& shape,
                           const ScreenedHead& head, int rows, bool likeliest) {
  const auto time = [&](bool dependent) {
    return time_graph(
               [&](const Stream& stream) {
                 for (int i = 0; i < kLaunches; ++i)
                   likeliest ? head.find_likeliest(stream, rows) : head.choose(stream, rows);
               },
               dependent) /
           kLaunches;
  };
  const auto bytes = static_cast<double>(head.screen.size_bytes());
  const double us = time(false);
  ordered_json line = {{"name", shape.name + (likeliest ? " likeliest" : " screened")},
                       {"in", shape.in},
                       {"out", shape.out()},
                       {"format", "8 bits"},
                       {"rows", rows},
                       {"us", us},
                       {"us_dependent", time(true)},
                       {"gb_per_s", bytes / us * 1e-3},
                       {"share_of_read", bytes / us * 1e6 / facts.read_bandwidth}};
  if (!likeliest) line["with_argmax"] = true;
  return line;
}

}  // namespace

ordered_json bench_screened_head(const GpuFacts& facts, const LinearShape& shape,
                                 const ordered_json& head_lines) {
  auto results = ordered_json::array();
  const ScreenedHead head(static_cast<int>(shape.out()), static_cast<int>(shape.in),
                          facts.num_multiprocessors);
  if (!takes_screened_rows(head.head, head.screen, 1)) return results;
  for (const ordered_json& line : head_lines) {
    const auto rows = line["rows"].get<int>();
    if (!takes_screened_rows(head.head, head.screen, num_tiles(rows))) continue;
    ordered_json one = time_screened(facts, shape, head, rows, false);
    if (line.contains("cublaslt_us")) add_peer(one, line["cublaslt_us"].get<double>());
    results.push_back(std::move(one));
    if (takes_likeliest_rows(head.head, head.screen, num_tiles(rows)))
      results.push_back(time_screened(facts, shape, head, rows, true));
  }
  return results;
}

}  // namespace tandem::bench
