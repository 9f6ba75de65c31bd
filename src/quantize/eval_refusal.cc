#include "quantize/eval_refusal.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

#include "io/safetensors.h"
#include "quantize/eval_gate.h"
#include "quantize/modules.h"

namespace tandem::quantize {
namespace {

struct Stored {
  std::set<std::string> names;   // of all tensors
  std::vector<std::string> fp8;  // modules with an FP8 weight, by name
};

Stored read_names(const std::filesystem::path& dir) {
  constexpr std::string_view kWeight = ".weight";
  Stored stored;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(dir, ignored)) {
    if (entry.path().extension() != ".safetensors") continue;
    const auto file = io::SafetensorsFile::open(entry.path());
    if (!file) continue;
    for (const io::SafetensorsEntry& tensor : file->entries()) {
      stored.names.insert(tensor.name);
      if (tensor.dtype == core::DType::kF8E4M3 && tensor.name.ends_with(kWeight))
        stored.fp8.push_back(tensor.name.substr(0, tensor.name.size() - kWeight.size()));
    }
  }
  std::ranges::sort(stored.fp8);
  return stored;
}

}  // namespace

std::string explain_refusal(const std::filesystem::path& dir, std::string_view refusal) {
  if (!refusal.starts_with(dir.string())) return {};  // of another folder
  const Stored stored = read_names(dir);
  for (const std::string& module : stored.fp8) {
    const std::string name = module.substr(module.rfind('.') + 1);
    if (always_bf16(name) && refusal.find(name) != std::string_view::npos)
      return fmt::format(
          "{}: {} is FP8 but must stay BF16: its input joins values of different ranges, or its "
          "output chooses the token; exclude it from quantization",
          dir.string(), name);
  }
  for (const char* scale : {"weight_scale", "input_scale"}) {
    if (refusal.find(scale) == std::string_view::npos) continue;
    std::vector<std::string> without;
    for (const std::string& module : stored.fp8)
      if (!stored.names.contains(module + "." + scale)) without.push_back(module);
    if (!without.empty())
      return fmt::format("{}: the export lost its scales: {} of {} FP8 modules have no {} ({})",
                         dir.string(), without.size(), stored.fp8.size(), scale,
                         list_names(without));
  }
  return {};
}

}  // namespace tandem::quantize
