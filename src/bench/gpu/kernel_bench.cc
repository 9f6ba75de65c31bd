#include "bench/gpu/kernel_bench.h"

#include <nlohmann/json.hpp>

#include "bench/gpu/graph_timer.h"

namespace tandem::bench {

using nlohmann::ordered_json;
using ops::cuda::Partials;
using ops::cuda::Stream;

void add_kernel(ordered_json& results, const ordered_json& entry, int launches,
                const std::function<void(const Stream&, int)>& launch) {
  const auto time = [&](bool dependent) {
    return time_graph(
               [&](const Stream& stream) {
                 for (int i = 0; i < launches; ++i) launch(stream, i);
               },
               dependent) /
           launches;
  };
  results.push_back(entry);
  results.back()["us"] = time(false);
  results.back()["us_dependent"] = time(true);
}

Partials partials_of(const GpuFacts& facts, int64_t in, int64_t out, int num_rows) {
  return ops::cuda::plan_packed_linear(ops::cuda::PackedType::kFp8, static_cast<int>(out),
                                       static_cast<int>(in), facts.num_multiprocessors)
      .partials(nullptr, num_rows);
}

double partial_bytes(const Partials& sums, int64_t columns, int64_t rows) {
  double bytes = 0;
  for (int64_t column = 0; column < columns; column += ops::cuda::kSetColumns)
    bytes += sums.num_pieces(static_cast<int>(column / ops::cuda::kSetColumns)) *
             ops::cuda::kSetColumns * 4.0;
  return bytes * static_cast<double>(rows);
}

}  // namespace tandem::bench
