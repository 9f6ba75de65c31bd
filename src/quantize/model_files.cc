#include "quantize/model_files.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "io/atomic_file.h"
#include "io/json.h"
#include "io/mapped_file.h"

namespace tandem::quantize {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// The version of the format's exporter whose files these match.
constexpr const char* kFormatVersion = "0.47.0";
constexpr size_t kMaxCarriedBytes = size_t{1} << 30;

constexpr std::array<std::string_view, 10> kWeightEndings = {
    ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack", ".npz", ".partial"};
constexpr std::array<std::string_view, 4> kOwnNames = {"config.json", "hf_quant_config.json",
                                                       "model.safetensors.index.json",
                                                       "quantization_report.json"};

Json producer() {
  return Json{{"name", "modelopt"}, {"version", kFormatVersion}};
}

Json fp8_scheme() {
  return Json{{"dynamic", false}, {"num_bits", 8}, {"type", "float"}};
}

bool is_carried(const fs::path& path) {
  const std::string name = path.filename().string();
  const bool is_weight = std::ranges::any_of(
      kWeightEndings, [&](std::string_view ending) { return name.ends_with(ending); });
  return !name.starts_with('.') && !is_weight &&
         std::ranges::find(kOwnNames, name) == kOwnNames.end();
}

}  // namespace

base::Result<std::string> quantized_config_json(const fs::path& source_dir, const ModelPlan& plan,
                                                const std::vector<std::string>& exclusions) {
  const fs::path path = source_dir / "config.json";
  TANDEM_ASSIGN_OR_RETURN(const std::string text,
                          io::read_whole_file(path, io::JsonLimits{}.max_bytes));
  // Checked when the checkpoint was opened; here only the order of keys matters.
  Json config = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object())
    return base::invalid("{}: expected a JSON object, got something else; it changed",
                         path.string());
  Json group;
  if (!plan.options.weight_only) group["input_activations"] = fp8_scheme();
  group["weights"] = fp8_scheme();
  group["targets"] = {"Linear"};
  Json quantization;
  quantization["config_groups"]["group_0"] = group;
  quantization["ignore"] = exclusions;
  quantization["quant_algo"] = "FP8";
  if (!plan.kv.empty()) quantization["kv_cache_scheme"] = fp8_scheme();
  quantization["producer"] = producer();
  quantization["quant_method"] = "modelopt";
  config["quantization_config"] = quantization;
  return config.dump(2) + "\n";
}

std::string hf_quant_config_json(const ModelPlan& plan,
                                 const std::vector<std::string>& exclusions) {
  Json inner;
  inner["quant_algo"] = "FP8";
  inner["kv_cache_quant_algo"] = plan.kv.empty() ? Json() : Json("FP8");
  inner["exclude_modules"] = exclusions;
  Json file;
  file["producer"] = producer();
  file["quantization"] = inner;
  return file.dump(4) + "\n";
}

base::Result<std::vector<fs::path>> carried_files(const fs::path& source_dir) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(source_dir, error))
    if (entry.is_regular_file(error) && is_carried(entry.path())) files.push_back(entry.path());
  if (error)
    return base::invalid("{}: expected a folder to read, got: {}", source_dir.string(),
                         error.message());
  std::ranges::sort(files);
  return files;
}

base::Status copy_carried_files(const fs::path& source_dir, const fs::path& out_dir) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<fs::path> files, carried_files(source_dir));
  for (const fs::path& file : files) {
    std::error_code error;
    std::string bytes;
    if (fs::file_size(file, error) > 0 || error) {
      TANDEM_ASSIGN_OR_RETURN(bytes, io::read_whole_file(file, kMaxCarriedBytes));
    }
    TANDEM_RETURN_IF_ERROR(io::write_file_atomically(out_dir / file.filename(), bytes));
  }
  return {};
}

}  // namespace tandem::quantize
