#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "bench/gpu_bench.h"
#include "bench/table.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

std::string number(const ordered_json& one, const char* key, int digits) {
  return one.contains(key) ? fmt::format("{:.{}f}", one[key].get<double>(), digits) : "-";
}

std::string percent(const ordered_json& one, const char* key) {
  return one.contains(key) ? fmt::format("{:.0f} %", 100 * one[key].get<double>()) : "-";
}

std::string count(const ordered_json& one, const char* key) {
  return one.contains(key) ? std::to_string(one[key].get<int64_t>()) : "-";
}

// Says what ours does in the same kernel, and the peer does not.
std::string name_of(const ordered_json& one) {
  const auto name = one["name"].get<std::string>();
  return one.contains("with_gelu")     ? name + " + GELU"
         : one.contains("with_argmax") ? name + " + argmax"
                                       : name;
}

std::string products(const ordered_json& ops) {
  Table table({"projection", "in", "out", "format", "rows", "us", "us dependent", "GB/s", "of read",
               "cuBLASLt us", "x cuBLASLt"});
  for (const ordered_json& one : ops)
    table.add({name_of(one), count(one, "in"), count(one, "out"), one["format"], count(one, "rows"),
               number(one, "us", 1), number(one, "us_dependent", 1), number(one, "gb_per_s", 0),
               percent(one, "share_of_read"), number(one, "cublaslt_us", 1),
               number(one, "times_cublaslt", 2)});
  return table.text();
}

std::string prompt_products(const ordered_json& lines) {
  Table table({"projection, prompts", "rows", "us", "TFLOP/s", "cuBLASLt us", "x cuBLASLt"});
  for (const ordered_json& one : lines)
    table.add({one["name"], count(one, "rows"), number(one, "us", 1), number(one, "tflop_per_s", 0),
               number(one, "cublaslt_us", 1), number(one, "times_cublaslt", 2)});
  return table.text();
}

std::string chains(const ordered_json& lines) {
  Table table({"products of a layer, one after the other", "rows", "us", "us independent",
               "ideal us", "of read", "cuBLASLt us", "x cuBLASLt"});
  for (const ordered_json& one : lines)
    table.add({one["name"], count(one, "rows"), number(one, "us", 1),
               number(one, "us_independent", 1), number(one, "ideal_us", 1),
               percent(one, "share_of_read"), number(one, "cublaslt_us", 1),
               number(one, "times_cublaslt", 2)});
  return table.text();
}

std::string kernels(const ordered_json& lines) {
  Table table(
      {"kernel", "batch", "keys", "rows", "us", "us dependent", "KB read", "ideal us", "of read"});
  for (const ordered_json& one : lines)
    table.add({one["name"], count(one, "batch"), count(one, "keys"), count(one, "rows"),
               number(one, "us", 2), number(one, "us_dependent", 2),
               fmt::format("{:.0f}", one["bytes"].get<double>() / 1024), number(one, "ideal_us", 2),
               percent(one, "share_of_read")});
  return table.text();
}

}  // namespace

std::string gpu_ops_table(const ordered_json& result) {
  std::string text =
      fmt::format("reads {:.0f} GB/s; peer: {}\n", result["read_gb_per_s"].get<double>(),
                  result["peer"].get<std::string>());
  if (!result["ops"].empty()) text += products(result["ops"]);
  if (!result["prompt_ops"].empty())
    text.append("\n").append(prompt_products(result["prompt_ops"]));
  if (!result["chains"].empty()) text.append("\n").append(chains(result["chains"]));
  if (!result["kernels"].empty()) text.append("\n").append(kernels(result["kernels"]));
  return text;
}

}  // namespace tandem::bench
