#include "tests/support/tiny_quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include <fmt/format.h>

#include "core/bf16.h"
#include "core/e4m3.h"

namespace tandem::test_support {
namespace {

using core::DType;
using nlohmann::json;

constexpr int64_t kBlock = 128;
// Inputs of the tiny models stay below 8 in magnitude.
constexpr float kInputScale = 8.0F / core::kE4M3Max;

bool is_quantizable(const TinyTensor& tensor) {
  return tensor.name.find("layers.") != std::string::npos && tensor.name.ends_with("_proj.weight");
}

std::vector<float> values_of(const TinyTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / 2);
  for (size_t i = 0; i < values.size(); ++i) {
    core::BFloat16 value;
    std::memcpy(&value.bits, tensor.bytes.data() + 2 * i, 2);
    values[i] = core::to_float(value);
  }
  return values;
}

std::string f32_bytes(const std::vector<float>& values) {
  std::string bytes(values.size() * 4, '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::string bf16_bytes(const std::vector<float>& values) {
  std::string bytes(values.size() * 2, '\0');
  for (size_t i = 0; i < values.size(); ++i) {
    const core::BFloat16 value = core::to_bf16(values[i]);
    std::memcpy(bytes.data() + 2 * i, &value.bits, 2);
  }
  return bytes;
}

// Scales of a grid of cells of `cell_rows` x `cell_cols`, and the weight quantized with them.
struct Quantized {
  std::vector<float> scales;
  int64_t grid_rows = 0;
  int64_t grid_cols = 0;
  std::string bytes;
};

Quantized quantize(const TinyTensor& tensor, int64_t cell_rows, int64_t cell_cols) {
  const int64_t rows = tensor.shape[0];
  const int64_t cols = tensor.shape[1];
  const std::vector<float> values = values_of(tensor);
  Quantized result;
  result.grid_rows = (rows + cell_rows - 1) / cell_rows;
  result.grid_cols = (cols + cell_cols - 1) / cell_cols;
  const auto cell_of = [&](size_t i) {
    const auto row = static_cast<int64_t>(i) / cols;
    const auto col = static_cast<int64_t>(i) % cols;
    return static_cast<size_t>(row / cell_rows * result.grid_cols + col / cell_cols);
  };
  result.scales.assign(static_cast<size_t>(result.grid_rows * result.grid_cols), 0);
  for (size_t i = 0; i < values.size(); ++i)
    result.scales[cell_of(i)] = std::max(result.scales[cell_of(i)], std::abs(values[i]));
  for (float& scale : result.scales) scale /= core::kE4M3Max;
  for (size_t i = 0; i < values.size(); ++i)
    result.bytes += static_cast<char>(core::float_to_e4m3(values[i] / result.scales[cell_of(i)]));
  return result;
}

Quantized quantize(const TinyTensor& tensor, TinyFormat format) {
  const int64_t rows = tensor.shape[0];
  const int64_t cols = tensor.shape[1];
  if (format == TinyFormat::kFp8Block) return quantize(tensor, kBlock, kBlock);
  if (format == TinyFormat::kFp8PerChannel || format == TinyFormat::kCompressedChannel)
    return quantize(tensor, 1, cols);
  return quantize(tensor, rows, cols);
}

void add_scales(std::vector<TinyTensor>& out, const std::string& module, TinyFormat format,
                const Quantized& quantized) {
  TinyTensor scale{
      .name = module + ".weight_scale", .dtype = DType::kF32, .shape = {}, .bytes = {}};
  scale.bytes = f32_bytes(quantized.scales);
  if (format == TinyFormat::kFp8Block)
    scale.shape = {quantized.grid_rows, 1, quantized.grid_cols, 1};
  if (format == TinyFormat::kFp8PerChannel) scale.shape = {quantized.grid_rows};
  if (format == TinyFormat::kCompressedTensor) scale.shape = {1};
  if (format == TinyFormat::kCompressedChannel) {
    scale.dtype = DType::kBF16;
    scale.shape = {quantized.grid_rows, 1};
    scale.bytes = bf16_bytes(quantized.scales);
  }
  out.push_back(std::move(scale));
  if (format == TinyFormat::kFp8)
    out.push_back({module + ".input_scale", DType::kF32, {}, f32_bytes({kInputScale})});
  if (format == TinyFormat::kCompressedTensor)
    out.push_back({module + ".input_scale", DType::kF32, {1}, f32_bytes({kInputScale})});
}

json float8(bool dynamic, const char* strategy) {
  return {{"dynamic", dynamic},
          {"num_bits", 8},
          {"strategy", strategy},
          {"symmetric", true},
          {"type", "float"}};
}

void add_compressed_json(TinyCheckpoint& checkpoint, TinyFormat format,
                         const std::vector<std::string>& exclude) {
  const bool channel = format == TinyFormat::kCompressedChannel;
  json group = {{"targets", {"Linear"}},
                {"weights", float8(false, channel ? "channel" : "tensor")},
                {"input_activations", channel ? float8(true, "token") : float8(false, "tensor")}};
  checkpoint.config["quantization_config"] = {{"quant_method", "compressed-tensors"},
                                              {"format", "float-quantized"},
                                              {"quantization_status", "compressed"},
                                              {"ignore", exclude},
                                              {"config_groups", {{"group_0", group}}}};
}

void add_modelopt_json(TinyCheckpoint& checkpoint, TinyFormat format,
                       const std::vector<std::string>& exclude) {
  const char* algorithm = format == TinyFormat::kFp8        ? "FP8"
                          : format == TinyFormat::kFp8Block ? "FP8_PB_WO"
                                                            : "FP8_PER_CHANNEL_PER_TOKEN";
  const json producer = {{"name", "modelopt"}, {"version", "0.47.0"}};
  json& config = checkpoint.config["quantization_config"];
  config = {{"quant_method", "modelopt"},
            {"quant_algo", algorithm},
            {"ignore", exclude},
            {"producer", producer}};
  // ModelOpt writes groups for plain FP8 only.
  const json scheme = {{"dynamic", false}, {"num_bits", 8}, {"type", "float"}};
  if (format == TinyFormat::kFp8)
    config["config_groups"]["group_0"] = {
        {"input_activations", scheme}, {"weights", scheme}, {"targets", {"Linear"}}};
  checkpoint.hf_quant_config = {{"producer", producer},
                                {"quantization",
                                 {{"quant_algo", algorithm},
                                  {"kv_cache_quant_algo", nullptr},
                                  {"exclude_modules", exclude}}}};
}

}  // namespace

void quantize_tiny(TinyCheckpoint& checkpoint, TinyFormat format,
                   const std::vector<std::string>& exclude) {
  if (format == TinyFormat::kBF16) return;
  std::vector<TinyTensor> tensors;
  for (TinyTensor& tensor : checkpoint.tensors) {
    if (!is_quantizable(tensor)) {
      tensors.push_back(std::move(tensor));
      continue;
    }
    Quantized quantized = quantize(tensor, format);
    const std::string module = tensor.name.substr(0, tensor.name.size() - 7);  // ".weight"
    tensors.push_back({tensor.name, DType::kF8E4M3, tensor.shape, std::move(quantized.bytes)});
    add_scales(tensors, module, format, quantized);
  }
  checkpoint.tensors = std::move(tensors);
  if (format == TinyFormat::kCompressedTensor || format == TinyFormat::kCompressedChannel)
    add_compressed_json(checkpoint, format, exclude);
  else
    add_modelopt_json(checkpoint, format, exclude);
}

void add_tiny_kv_scales(TinyCheckpoint& checkpoint, const TinyOptions& options) {
  for (size_t i = 0; i < options.layers.size(); ++i) {
    const std::string prefix = fmt::format("{}layers.{}.self_attn.", options.prefix, i);
    const float step = static_cast<float>(i) / 1024;
    checkpoint.add_scalar(prefix + "k_proj.k_scale", 0.125F + step);
    checkpoint.add_scalar(prefix + "v_proj.v_scale", 0.0625F + step);
  }
  checkpoint.config["quantization_config"]["kv_cache_scheme"] = {
      {"dynamic", false}, {"num_bits", 8}, {"type", "float"}};
  if (!checkpoint.hf_quant_config.is_null())
    checkpoint.hf_quant_config["quantization"]["kv_cache_quant_algo"] = "FP8";
}

}  // namespace tandem::test_support
