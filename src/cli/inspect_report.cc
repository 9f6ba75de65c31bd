#include "cli/inspect_report.h"

#include <algorithm>

#include "cli/progress.h"
#include "model/kv_format.h"
#include "model/kv_store.h"
#include "speculation/acceptance.h"

namespace tandem::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxNeighbours = 200;
constexpr int64_t kBlockSize = 32;

const char* format_name(io::WeightFormat format) {
  switch (format) {
    case io::WeightFormat::kBF16:
      return "BF16";
    case io::WeightFormat::kFp8PerTensor:
      return "FP8";
    case io::WeightFormat::kFp8PerChannelPerToken:
      return "FP8 per channel";
    case io::WeightFormat::kFp8Block:
      return "FP8 blocks";
  }
  return "unknown";
}

std::optional<ScaleRange> range_of(std::vector<float> values) {
  if (values.empty()) return std::nullopt;
  std::ranges::sort(values);
  return ScaleRange{values.front(), values[values.size() / 2], values.back()};
}

// "layers.3.mlp.up_proj" -> "mlp.up_proj".
std::string kind_name(const std::string& module) {
  constexpr std::string_view kLayers = "layers.";
  if (!module.starts_with(kLayers)) return module;
  const size_t dot = module.find('.', kLayers.size());
  return dot == std::string::npos ? module : module.substr(dot + 1);
}

int64_t size_of(const core::TensorView& view) {
  return view.shape.num_elements() * static_cast<int64_t>(core::dtype_bytes(view.dtype));
}

struct Gathered {
  ModuleKind kind;
  std::vector<float> weight_scales, input_scales;

  void add(const io::LinearWeights& linear) {
    ++kind.count;
    kind.num_parameters += linear.weight.shape.num_elements();
    kind.size_bytes += size_of(linear.weight);
    if (linear.format == io::WeightFormat::kBF16) return;
    if (linear.format == io::WeightFormat::kFp8PerTensor) {
      weight_scales.push_back(linear.weight_scale);
    } else {
      const auto* values = static_cast<const float*>(linear.weight_scales.data);
      weight_scales.insert(weight_scales.end(), values,
                           values + linear.weight_scales.shape.num_elements());
    }
    if (linear.input_scale > 0 && linear.format == io::WeightFormat::kFp8PerTensor)
      input_scales.push_back(linear.input_scale);
  }
};

// One entry per name and format: a model may keep some layers in BF16.
std::vector<ModuleKind> gather_modules(const io::Checkpoint& checkpoint) {
  std::vector<Gathered> gathered;
  for (const std::string& module : checkpoint.linear_modules()) {
    const io::LinearWeights linear = checkpoint.linear(module);
    const std::string name = kind_name(module);
    const std::string format = format_name(linear.format);
    auto found = std::ranges::find_if(gathered, [&](const Gathered& entry) {
      return entry.kind.name == name && entry.kind.format == format;
    });
    if (found == gathered.end()) {
      gathered.push_back(
          {.kind = {.name = name, .format = format}, .weight_scales = {}, .input_scales = {}});
      found = std::prev(gathered.end());
    }
    found->add(linear);
  }
  std::vector<ModuleKind> kinds;
  for (Gathered& entry : gathered) {
    entry.kind.weight_scale = range_of(std::move(entry.weight_scales));
    entry.kind.input_scale = range_of(std::move(entry.input_scales));
    kinds.push_back(std::move(entry.kind));
  }
  return kinds;
}

void count_weights(const io::Checkpoint& checkpoint, InspectReport& report) {
  const bool tied = report.config.text.tie_word_embeddings;
  for (const io::Checkpoint::StoredTensor& tensor : checkpoint.stored_tensors()) {
    if (tensor.canonical_name.empty()) {
      report.skipped_bytes += size_of(tensor.view);
      continue;
    }
    if (tied && tensor.canonical_name == "lm_head.weight") continue;
    report.weight_bytes += size_of(tensor.view);
    if (!tensor.canonical_name.ends_with("_scale"))
      report.num_parameters += tensor.view.shape.num_elements();
  }
}

KvMemory kv_memory(const io::TextConfig& config, core::DType dtype, int64_t length) {
  const model::KvBlockBytes block = model::kv_block_bytes(config, kBlockSize, dtype);
  const int64_t ring =
      model::ring_len_for(config.sliding_window, speculation::kMaxDraftTokens, kBlockSize);
  KvMemory memory;
  memory.dtype = dtype;
  memory.length = std::min(length, config.max_position_embeddings);
  memory.bytes_per_token = block.page_block_bytes / kBlockSize;
  memory.bytes_per_sequence = ring / kBlockSize * block.ring_block_bytes;
  memory.bytes_at_length = memory.bytes_per_sequence +
                           (memory.length + kBlockSize - 1) / kBlockSize * block.page_block_bytes;
  return memory;
}

void read_kv_scales(const io::Checkpoint& checkpoint, InspectReport& report) {
  std::vector<float> k, v;
  for (int64_t layer = 0; layer < report.config.text.num_layers(); ++layer) {
    const io::Checkpoint::KvScales scales = checkpoint.kv_scales(layer);
    if (!scales.calibrated) continue;
    k.push_back(scales.k_scale);
    v.push_back(scales.v_scale);
  }
  report.k_scales = range_of(std::move(k));
  report.v_scales = range_of(std::move(v));
}

base::Result<Partner> try_partner(const fs::path& dir, const io::ModelConfig& self) {
  TANDEM_ASSIGN_OR_RETURN(const io::ModelConfig other, io::read_model_config(dir));
  Partner partner{.dir = dir, .model_type = other.model_type, .fits = false, .reason = {}};
  const bool self_is_target = self.kind == io::ModelKind::kTarget;
  if (self.kind == other.kind) {
    partner.reason = self_is_target ? "both are targets" : "both are assistants";
    return partner;
  }
  const base::Status status =
      self_is_target ? io::check_pair(self, other) : io::check_pair(other, self);
  partner.fits = status.has_value();
  if (!status) partner.reason = status.error().message;
  return partner;
}

// Neighbours of the other kind; what is no model folder is none of our business.
std::vector<Partner> look_around(const fs::path& dir, const io::ModelConfig& self) {
  std::error_code error;
  const fs::path own = fs::canonical(dir, error);
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(own.parent_path(), error)) {
    if (folders.size() >= kMaxNeighbours) break;
    std::error_code ignored;
    if (entry.path() != own && fs::is_regular_file(entry.path() / "config.json", ignored))
      folders.push_back(entry.path());
  }
  std::ranges::sort(folders);
  std::vector<Partner> partners;
  for (const fs::path& folder : folders) {
    auto partner = try_partner(folder, self);
    if (!partner || partner->reason.starts_with("both are")) continue;
    partner->dir =
        dir.parent_path().empty() ? folder : (dir / ".." / folder.filename()).lexically_normal();
    partners.push_back(std::move(*partner));
  }
  return partners;
}

}  // namespace

base::Result<InspectReport> inspect(const fs::path& dir, const InspectOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const io::Checkpoint checkpoint, io::Checkpoint::open(dir));
  InspectReport report;
  report.dir = dir;
  report.config = checkpoint.config();
  report.generation = checkpoint.generation_config();
  report.quantization = checkpoint.quantization();
  if (options.check_values) {
    Progress progress("reading " + dir.string());
    TANDEM_RETURN_IF_ERROR(checkpoint.check_values(
        [&](int64_t done, int64_t total) { progress.update(done, total); }));
  }
  report.modules = gather_modules(checkpoint);
  count_weights(checkpoint, report);
  if (report.config.kind == io::ModelKind::kTarget) {
    report.kv = kv_memory(report.config.text,
                          model::kv_dtype(model::KvCacheDtype::kAuto, report.quantization, {}),
                          options.length);
    read_kv_scales(checkpoint, report);
  }
  if (options.partner.empty()) {
    report.partners = look_around(dir, report.config);
  } else {
    TANDEM_ASSIGN_OR_RETURN(Partner partner, try_partner(options.partner, report.config));
    report.partners.push_back(std::move(partner));
  }
  return report;
}

}  // namespace tandem::cli
