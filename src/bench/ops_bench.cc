#include "bench/ops_bench.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/statistics.h"
#include "bench/table.h"

namespace tandem::bench {
namespace {

using core::DType;
using core::Shape;
using core::TensorView;
using nlohmann::ordered_json;

// Inputs, outputs and as many copies of a group's weights as the arena holds.
class LinearCase {
 public:
  LinearCase(Device& device, const TensorView& arena, const LinearShape& shape, int64_t max_rows)
      : device_(device), arena_(arena), shape_(shape) {
    input_ = device.allocate(DType::kBF16, Shape{max_rows, shape.in});
    for (const int64_t out : shape.outs)
      outputs_.push_back(device.allocate(DType::kBF16, Shape{max_rows, out}));
    if (shape.format == ops::LinearFormat::kFp8Channel)
      scales_ = device.allocate(DType::kF32, Shape{shape.out()});
    if (shape.format == ops::LinearFormat::kFp8Block)
      scales_ = device.allocate(DType::kF32,
                                Shape{(shape.out() + 127) / 128 + 128, (shape.in + 127) / 128});
    copies_ = std::max<int64_t>(1, arena.shape.num_elements() / shape.weight_bytes());
  }

  std::vector<double> time(int64_t rows, const Timing& timing) {
    const TensorView x = input_.slice_rows(0, rows);
    std::vector<TensorView> y;
    for (const TensorView& output : outputs_) y.push_back(output.slice_rows(0, rows));
    return device_.time(timing, [&](int64_t call) {
      ops::linear(device_.context(), x, weights(call % copies_), y);
    });
  }

 private:
  std::vector<ops::LinearWeight> weights(int64_t copy) const {
    const bool bf16 = shape_.format == ops::LinearFormat::kBF16;
    char* data = static_cast<char*>(arena_.data) + copy * shape_.weight_bytes();
    std::vector<ops::LinearWeight> weights;
    for (const int64_t out : shape_.outs) {
      ops::LinearWeight weight;
      weight.format = shape_.format;
      weight.activation = shape_.activation;
      weight.weight = TensorView(data, bf16 ? DType::kBF16 : DType::kF8E4M3, Shape{out, shape_.in});
      if (shape_.format == ops::LinearFormat::kFp8Channel)
        weight.weight_scales = scales_.slice_rows(0, out);
      if (shape_.format == ops::LinearFormat::kFp8Block)
        weight.weight_scales = scales_.slice_rows(0, (out + 127) / 128);
      data += out * shape_.in * (bf16 ? 2 : 1);
      weights.push_back(weight);
    }
    return weights;
  }

  Device& device_;
  TensorView arena_;  // bytes
  const LinearShape& shape_;
  TensorView input_;                 // [max_rows, in] bf16
  std::vector<TensorView> outputs_;  // [max_rows, out] bf16 each
  TensorView scales_;                // f32, of the formats that have many
  int64_t copies_ = 1;
};

}  // namespace

const char* linear_format_name(ops::LinearFormat format) {
  switch (format) {
    case ops::LinearFormat::kBF16:
      return "bf16";
    case ops::LinearFormat::kF32:
      return "f32";
    case ops::LinearFormat::kFp8Tensor:
      return "fp8";
    case ops::LinearFormat::kFp8Channel:
      return "fp8 per channel";
    case ops::LinearFormat::kFp8Block:
      return "fp8 block";
  }
  return "";
}

ordered_json op_line(const LinearShape& shape, int64_t rows, double seconds, double bandwidth) {
  const auto bytes = static_cast<double>(shape.weight_bytes());
  const double flop = 2.0 * static_cast<double>(rows * shape.in * shape.out());
  return {{"name", shape.name},
          {"in", shape.in},
          {"out", shape.out()},
          {"format", linear_format_name(shape.format)},
          {"num_in_model", shape.num_in_model},
          {"rows", rows},
          {"us", seconds * 1e6},
          {"gb_per_s", bytes / seconds * 1e-9},
          {"read_gb_per_s", bandwidth * 1e-9},
          {"share_of_read", bytes / seconds / bandwidth},
          {"gflop_per_s", flop / seconds * 1e-9}};
}

ordered_json run_ops_bench(Device& device, const std::vector<LinearShape>& shapes,
                           const OpsOptions& options) {
  int64_t arena_bytes = options.arena_bytes;
  for (const LinearShape& shape : shapes) arena_bytes = std::max(arena_bytes, shape.weight_bytes());
  const TensorView arena = device.allocate(DType::kU8, Shape{arena_bytes});
  const int64_t max_rows = std::ranges::max(options.rows);
  auto results = ordered_json::array();
  for (const LinearShape& shape : shapes) {
    if (shape.name.find(options.only) == std::string::npos) continue;
    LinearCase one(device, arena, shape, max_rows);
    const double bandwidth = device.read_bandwidth();
    double one_row = 0;
    for (const int64_t rows : options.rows) {
      const std::vector<double> seconds = one.time(rows, options.timing);
      results.push_back(op_line(shape, rows, median(seconds), bandwidth));
      results.back()["calls"] = seconds.size();
      results.back()["us_best"] = *std::ranges::min_element(seconds) * 1e6;
      const double us = results.back()["us"];
      if (rows == 1) one_row = us;
      if (one_row > 0) results.back()["times_one_row"] = us / one_row;
    }
  }
  return results;
}

std::string ops_table(const ordered_json& results) {
  Table table(
      {"projection", "in", "out", "format", "rows", "us", "GB/s", "of read", "GFLOP/s", "x 1 row"});
  for (const ordered_json& one : results)
    table.add(
        {one["name"], std::to_string(one["in"].get<int64_t>()),
         std::to_string(one["out"].get<int64_t>()), one["format"],
         std::to_string(one["rows"].get<int64_t>()), fmt::format("{:.1f}", one["us"].get<double>()),
         fmt::format("{:.2f}", one["gb_per_s"].get<double>()),
         fmt::format("{:.0f} %", 100 * one["share_of_read"].get<double>()),
         fmt::format("{:.1f}", one["gflop_per_s"].get<double>()),
         one.contains("times_one_row") ? fmt::format("{:.2f}", one["times_one_row"].get<double>())
                                       : "-"});
  return table.text();
}

}  // namespace tandem::bench
