#include "quantize/exporter.h"

#include <algorithm>
#include <map>

#include "io/atomic_file.h"
#include "quantize/model_files.h"
#include "quantize/modules.h"

namespace tandem::quantize {
namespace {

using core::DType;
using Stored = io::Checkpoint::StoredTensor;

constexpr std::string_view kWeight = ".weight";
constexpr size_t kChunkElements = size_t{4} << 20;

// Where the bytes of one exported tensor come from.
struct Source {
  const Stored* tensor = nullptr;        // copied, or quantized
  const ModuleScales* scales = nullptr;  // quantized with these
  float scalar = 0;                      // neither: an F32 scalar
};

struct Contents {
  std::vector<io::TensorDeclaration> tensors;
  std::map<std::string, Source> sources;

  void add(std::string name, DType dtype, const core::Shape& shape, const Source& source) {
    sources.emplace(name, source);
    tensors.push_back({std::move(name), dtype, shape});
  }
  void add_scalar(std::string name, float value) {
    add(std::move(name), DType::kF32, {}, {nullptr, nullptr, value});
  }
};

std::string without_ending(std::string_view name, std::string_view ending) {
  return std::string(name.substr(0, name.size() - ending.size()));
}

// ".../k_proj.weight" of a layer carries the names of its KV scales.
void add_kv_scales(const ModelPlan& plan, const Stored& tensor, Contents& contents) {
  for (size_t layer = 0; layer < plan.kv.size(); ++layer) {
    if (tensor.canonical_name != fmt::format("layers.{}.self_attn.k_proj.weight", layer)) continue;
    const std::string attention = without_ending(tensor.stored_name, "k_proj.weight");
    contents.add_scalar(attention + "k_proj.k_scale", plan.kv[layer].k_scale);
    contents.add_scalar(attention + "v_proj.v_scale", plan.kv[layer].v_scale);
  }
}

Contents plan_contents(const io::Checkpoint& source, const ModelPlan& plan) {
  Contents contents;
  const bool tied = source.config().text.tie_word_embeddings;
  for (const Stored& tensor : source.stored_tensors()) {
    const std::string& canonical = tensor.canonical_name;
    // A tied head repeats the embedding; ModelOpt does not write it.
    if (tied && canonical == "lm_head.weight") continue;
    add_kv_scales(plan, tensor, contents);
    const auto found = canonical.ends_with(kWeight)
                           ? plan.quantized.find(without_ending(canonical, kWeight))
                           : plan.quantized.end();
    if (found == plan.quantized.end()) {
      contents.add(tensor.stored_name, tensor.view.dtype, tensor.view.shape, {&tensor, nullptr, 0});
      continue;
    }
    const std::string module = without_ending(tensor.stored_name, kWeight);
    contents.add(tensor.stored_name, DType::kF8E4M3, tensor.view.shape,
                 {&tensor, &found->second, 0});
    contents.add_scalar(module + ".weight_scale", found->second.weight_scale);
    contents.add_scalar(module + ".input_scale", found->second.input_scale);
  }
  io::sort_for_alignment(contents.tensors);
  return contents;
}

int64_t payload_bytes(const io::TensorDeclaration& tensor) {
  return tensor.shape.num_elements() * static_cast<int64_t>(core::dtype_bytes(tensor.dtype));
}

class TensorStream {
 public:
  TensorStream(const io::Checkpoint& checkpoint, io::SafetensorsWriter& writer,
               core::ThreadPool& pool, Quotient quotient)
      : checkpoint_(checkpoint), writer_(writer), pool_(pool), quotient_(quotient) {}

  base::Status write(const std::string& name, const Source& source) {
    if (source.tensor == nullptr)
      return writer_.append(name, &source.scalar, sizeof(source.scalar));
    if (source.scales != nullptr) return write_quantized(name, source);
    return copy(name, source.tensor->view);
  }

 private:
  base::Status copy(const std::string& name, const core::TensorView& view) {
    const auto total =
        static_cast<size_t>(view.shape.num_elements()) * core::dtype_bytes(view.dtype);
    const auto* bytes = static_cast<const uint8_t*>(view.data);
    for (size_t begin = 0; begin < total; begin += kChunkElements) {
      const size_t count = std::min(kChunkElements, total - begin);
      TANDEM_RETURN_IF_ERROR(writer_.append(name, bytes + begin, count));
      checkpoint_.release_pages(bytes + begin, count);
    }
    return {};
  }

  base::Status write_quantized(const std::string& name, const Source& source) {
    const WeightEncoder encoder(source.scales->weight_scale, quotient_);
    const core::TensorView& view = source.tensor->view;
    const auto total = static_cast<size_t>(view.shape.num_elements());
    const auto* values = view.ptr<core::BFloat16>();
    for (size_t begin = 0; begin < total; begin += kChunkElements) {
      const size_t count = std::min(kChunkElements, total - begin);
      bytes_.resize(count);
      encoder.encode({values + begin, count}, bytes_.data(), pool_);
      TANDEM_RETURN_IF_ERROR(writer_.append(name, bytes_.data(), count));
      checkpoint_.release_pages(values + begin, count * sizeof(core::BFloat16));
    }
    return {};
  }

  const io::Checkpoint& checkpoint_;
  io::SafetensorsWriter& writer_;
  core::ThreadPool& pool_;
  Quotient quotient_;
  std::vector<uint8_t> bytes_;
};

base::Status write_tensors(const io::Checkpoint& source, const Contents& contents,
                           const ModelPlan& plan, uint64_t max_shard_bytes, core::ThreadPool& pool,
                           const Progress& progress, OutputFolder& folder) {
  int64_t total = 0;
  for (const io::TensorDeclaration& tensor : contents.tensors) total += payload_bytes(tensor);
  io::SafetensorsWriterOptions options;
  options.max_shard_bytes = max_shard_bytes;
  TANDEM_ASSIGN_OR_RETURN(
      io::SafetensorsWriter writer,
      io::SafetensorsWriter::create_model(folder.dir(), contents.tensors, options));
  TensorStream stream(source, writer, pool, plan.options.quotient);
  int64_t done = 0;
  for (const io::TensorDeclaration& tensor : contents.tensors) {
    TANDEM_RETURN_IF_ERROR(report_progress(progress, "writing", done, total));
    TANDEM_RETURN_IF_ERROR(stream.write(tensor.name, contents.sources.at(tensor.name)));
    done += payload_bytes(tensor);
  }
  return writer.finish();
}

}  // namespace

std::vector<std::string> exported_exclusions(const io::Checkpoint& source, const ModelPlan& plan) {
  std::vector<std::string> unquantized = {"lm_head"};
  std::vector<std::string> quantized;
  for (const Stored& tensor : source.stored_tensors()) {
    if (!tensor.stored_name.ends_with(kWeight) || tensor.view.shape.rank() != 2) continue;
    const std::string module = without_ending(tensor.stored_name, kWeight);
    const std::string canonical =
        tensor.canonical_name.empty() ? "" : without_ending(tensor.canonical_name, kWeight);
    if (plan.quantized.contains(canonical))
      quantized.push_back(module);
    else if (canonical != "embed_tokens" && canonical != "lm_head")
      unquantized.push_back(module);
  }
  return exclusion_list(unquantized, quantized);
}

int64_t exported_bytes(const io::Checkpoint& source, const ModelPlan& plan) {
  int64_t total = 0;
  for (const io::TensorDeclaration& tensor : plan_contents(source, plan).tensors)
    total += payload_bytes(tensor);
  return total;
}

base::Status export_model(const io::Checkpoint& source, const ModelPlan& plan,
                          const std::string& report_json, uint64_t max_shard_bytes,
                          core::ThreadPool& pool, const Progress& progress, OutputFolder& folder) {
  const std::vector<std::string> exclusions = exported_exclusions(source, plan);
  TANDEM_ASSIGN_OR_RETURN(const std::string config,
                          quantized_config_json(source.dir(), plan, exclusions));
  TANDEM_RETURN_IF_ERROR(copy_carried_files(source.dir(), folder.dir()));
  TANDEM_RETURN_IF_ERROR(io::write_file_atomically(folder.dir() / "hf_quant_config.json",
                                                   hf_quant_config_json(plan, exclusions)));
  TANDEM_RETURN_IF_ERROR(
      io::write_file_atomically(folder.dir() / "quantization_report.json", report_json));
  TANDEM_RETURN_IF_ERROR(write_tensors(source, plan_contents(source, plan), plan, max_shard_bytes,
                                       pool, progress, folder));
  TANDEM_RETURN_IF_ERROR(folder.hold_config(config));
  return report_progress(progress, "writing", 1, 1);
}

}  // namespace tandem::quantize
