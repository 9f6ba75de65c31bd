#include "io/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "io/dummy_weights.h"
#include "io/linear_reader.h"
#include "io/quantization_config.h"
#include "io/safetensors_index.h"
#include "io/tensor_names.h"
#include "io/tensor_requirements.h"
#include "io/tensor_table.h"
#include "io/value_checks.h"

namespace tandem::io {

namespace fs = std::filesystem;

struct Checkpoint::Impl {
  fs::path dir;
  ModelConfig config;
  GenerationConfig generation;
  QuantizationConfig quantization;
  TensorTable table;
  std::vector<RequiredLinear> linears;
  std::map<std::string, LinearWeights, std::less<>> weights;
  std::vector<core::Buffer> scale_arrays;
  std::vector<KvScales> kv_scales;

  base::Status read_plain_tensors();
  base::Status read_linears();
  base::Status refuse_misplaced_scales() const;
  base::Status refuse_unused() const;
  base::Status check_tied_head() const;
};

fs::path normal_folder(const fs::path& dir) {
  const fs::path whole = fs::absolute(dir).lexically_normal();
  return whole.has_filename() ? whole : whole.parent_path();
}

std::string folder_name(const fs::path& dir) {
  return normal_folder(dir).filename().string();
}

namespace {

base::Status check_is_folder(const fs::path& dir) {
  std::error_code error;
  const fs::file_status status = fs::status(dir, error);
  if (fs::is_directory(status)) return {};
  if (fs::exists(status))
    return base::invalid("{}: expected a model folder, got a file", dir.string());
  return base::make_error(
      base::ErrorCode::kNotFound,
      fmt::format("{}: expected a model folder, got nothing of that name; models are not "
                  "downloaded: give the path of a local folder",
                  dir.string()));
}

base::Result<TensorTable> read_tensors(const fs::path& dir, const ModelConfig& config,
                                       const QuantizationConfig& quantization,
                                       const LoadOptions& options) {
  if (options.dummy) return make_dummy_weights(dir, config, quantization, options.dummy_seed);
  TANDEM_ASSIGN_OR_RETURN(std::vector<SafetensorsFile> files, open_model_files(dir));
  return TensorTable::build(dir, std::move(files), config.kind == ModelKind::kTarget);
}

}  // namespace

base::Status Checkpoint::Impl::read_plain_tensors() {
  for (const RequiredTensor& required : required_tensors(config)) {
    const StoredTensor* tensor = table.take(required.name);
    if (tensor == nullptr && required.optional) continue;
    if (tensor == nullptr)
      return base::invalid("{}: expected BF16 {}, got no such tensor", table.where(required.name),
                           core::to_string(required.shape));
    TANDEM_RETURN_IF_ERROR(
        check_tensor(table, required.name, tensor->view, core::DType::kBF16, required.shape));
  }
  return {};
}

base::Status Checkpoint::Impl::read_linears() {
  linears = required_linears(config);
  for (const RequiredLinear& linear : linears) {
    TANDEM_ASSIGN_OR_RETURN(LinearWeights weight,
                            read_linear(table, quantization, linear, scale_arrays));
    weights.emplace(linear.name, weight);
  }
  if (const StoredTensor* head = table.find("lm_head.weight")) {
    LinearWeights plain;
    plain.weight = head->view;
    weights.emplace("lm_head", plain);
  }
  return {};
}

// Scales where none may be, with a better reason than "unexpected".
base::Status Checkpoint::Impl::refuse_misplaced_scales() const {
  for (const char* module : {"lm_head", "embed_tokens"})
    for (const char* kind : {".weight_scale", ".input_scale"}) {
      const std::string name = std::string(module) + kind;
      if (table.find(name) != nullptr)
        return base::invalid("{}: expected no scale ({} always stays BF16), got one",
                             table.where(name), module);
    }
  return {};
}

base::Status Checkpoint::Impl::refuse_unused() const {
  const StoredTensor* tensor = table.first_unused();
  if (tensor == nullptr) return {};
  const std::string& name = tensor->canonical_name;
  const std::string where = table.where(name);
  const bool kv_scale = name.ends_with("k_scale") || name.ends_with("v_scale");
  const bool is_assistant = config.kind == ModelKind::kAssistant;
  if (is_assistant && (kv_scale || name.find(".k_proj.") != std::string::npos ||
                       name.find(".v_proj.") != std::string::npos))
    return base::invalid("{}: expected no K or V in an assistant (it reads the target's), got one",
                         where);
  if (name.find(".v_proj.weight") != std::string::npos)
    return base::invalid(
        "{}: expected no V projection (attention_k_eq_v: V of a full layer is its K projection), "
        "got one; wrong model or export",
        where);
  if (!quantization.info.quantized && (kv_scale || name.ends_with("_scale")))
    return base::invalid(
        "{}: expected no scale (config.json has no quantization_config and there "
        "is no hf_quant_config.json), got one",
        where);
  return base::invalid("{}: expected only tensors of a {} with {} layers, got an unknown one{}",
                       where, config.model_type, config.text.num_layers(),
                       hint_for_unknown_tensor(name));
}

// Tied models use the embedding; a head that says something else would be ignored in silence.
base::Status Checkpoint::Impl::check_tied_head() const {
  const StoredTensor* head = table.find("lm_head.weight");
  if (!config.text.tie_word_embeddings || head == nullptr) return {};
  const StoredTensor* embedding = table.find("embed_tokens.weight");
  const auto bytes =
      static_cast<size_t>(head->view.shape.num_elements()) * core::dtype_bytes(head->view.dtype);
  if (std::memcmp(head->view.data, embedding->view.data, bytes) == 0) return {};
  return base::invalid(
      "{}: expected the same values as {}, for tie_word_embeddings is true, got "
      "others",
      table.where("lm_head.weight"), embedding->stored_name);
}

base::Result<Checkpoint> Checkpoint::open(const fs::path& dir, const LoadOptions& options) {
  TANDEM_RETURN_IF_ERROR(check_is_folder(dir));
  auto impl = std::make_unique<Impl>();
  impl->dir = dir;
  TANDEM_ASSIGN_OR_RETURN(impl->config, read_model_config(dir, options.hf_overrides));
  TANDEM_ASSIGN_OR_RETURN(impl->generation,
                          read_generation_config(dir, impl->config.text.vocab_size));
  TANDEM_ASSIGN_OR_RETURN(impl->quantization, read_quantization_config(dir, options.hf_overrides));
  const bool is_target = impl->config.kind == ModelKind::kTarget;
  TANDEM_ASSIGN_OR_RETURN(impl->table,
                          read_tensors(dir, impl->config, impl->quantization, options));
  TANDEM_RETURN_IF_ERROR(impl->refuse_misplaced_scales());
  TANDEM_RETURN_IF_ERROR(impl->read_plain_tensors());
  TANDEM_RETURN_IF_ERROR(impl->read_linears());
  if (is_target) {
    TANDEM_ASSIGN_OR_RETURN(impl->kv_scales, read_kv_scales(impl->table, impl->quantization,
                                                            impl->config.text.num_layers()));
  }
  TANDEM_RETURN_IF_ERROR(impl->refuse_unused());
  return Checkpoint(std::move(impl));
}

Checkpoint::Checkpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;
Checkpoint::~Checkpoint() = default;

const fs::path& Checkpoint::dir() const {
  return impl_->dir;
}
const ModelConfig& Checkpoint::config() const {
  return impl_->config;
}
const GenerationConfig& Checkpoint::generation_config() const {
  return impl_->generation;
}
std::vector<int32_t> Checkpoint::suppressed_ids() const {
  std::vector<int32_t> ids = generation_config().suppress_tokens;
  for (const int32_t id : config().modality_token_ids)
    if (std::ranges::find(ids, id) == ids.end()) ids.push_back(id);
  return ids;
}

const QuantizationInfo& Checkpoint::quantization() const {
  return impl_->quantization.info;
}
const std::vector<Checkpoint::StoredTensor>& Checkpoint::stored_tensors() const {
  return impl_->table.stored();
}

std::optional<core::TensorView> Checkpoint::find(std::string_view canonical_name) const {
  const StoredTensor* tensor = impl_->table.find(canonical_name);
  if (tensor == nullptr) return std::nullopt;
  return tensor->view;
}

core::TensorView Checkpoint::tensor(std::string_view canonical_name) const {
  const StoredTensor* tensor = impl_->table.find(canonical_name);
  TANDEM_CHECK_MSG(tensor != nullptr, "tensor {}", canonical_name);
  return tensor->view;
}

core::TensorView Checkpoint::head() const {
  const auto own = find("lm_head.weight");
  return own ? *own : tensor("embed_tokens.weight");
}

LinearWeights Checkpoint::linear(std::string_view canonical_module) const {
  const auto found = impl_->weights.find(canonical_module);
  TANDEM_CHECK_MSG(found != impl_->weights.end(), "module {}", canonical_module);
  return found->second;
}

void Checkpoint::replace_linear(std::string_view canonical_module, const LinearWeights& weights) {
  const auto found = impl_->weights.find(canonical_module);
  TANDEM_CHECK_MSG(found != impl_->weights.end(), "module {}", canonical_module);
  TANDEM_CHECK(found->second.weight.shape == weights.weight.shape);
  found->second = weights;
}

int64_t Checkpoint::copy_into_memory() {
  const int64_t bytes = impl_->table.copy_into_memory();
  for (auto& [module, weights] : impl_->weights) {
    const StoredTensor* const tensor = impl_->table.find(module + ".weight");
    TANDEM_CHECK_MSG(tensor != nullptr, "tensor {}.weight", module);
    weights.weight.data = tensor->view.data;
  }
  return bytes;
}

void Checkpoint::release_pages(const void* bytes, size_t count) const {
  for (const SafetensorsFile& file : impl_->table.files()) file.release_pages(bytes, count);
}

std::vector<std::string> Checkpoint::linear_modules() const {
  std::vector<std::string> names;
  for (const RequiredLinear& linear : impl_->linears) names.push_back(linear.name);
  return names;
}

Checkpoint::KvScales Checkpoint::kv_scales(int64_t layer) const {
  TANDEM_CHECK_LT(layer, impl_->config.text.num_layers());
  if (impl_->kv_scales.empty()) return {};
  return impl_->kv_scales[static_cast<size_t>(layer)];
}

base::Status Checkpoint::check_values(const std::function<void(int64_t, int64_t)>& progress) const {
  for (const SafetensorsFile& file : impl_->table.files())
    TANDEM_RETURN_IF_ERROR(file.check_unchanged());
  std::vector<NamedTensor> tensors;
  for (const StoredTensor& tensor : impl_->table.stored())
    if (!tensor.canonical_name.empty())
      tensors.push_back(
          {fmt::format("{}: tensor {}", tensor.file, tensor.stored_name), tensor.view});
  TANDEM_RETURN_IF_ERROR(check_tensor_values(tensors, progress));
  return impl_->check_tied_head();
}

}  // namespace tandem::io
