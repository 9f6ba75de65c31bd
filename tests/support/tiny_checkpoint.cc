#include "tests/support/tiny_checkpoint.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "tests/support/temp_folder.h"

namespace tandem::test_support {
namespace {

using core::DType;
using nlohmann::json;
using nlohmann::ordered_json;

ordered_json header_entry(const TinyTensor& tensor, size_t begin) {
  return {{"dtype", core::dtype_name(tensor.dtype)},
          {"shape", tensor.shape},
          {"data_offsets", {begin, begin + tensor.bytes.size()}}};
}

std::string float_bytes(float value) {
  std::string bytes(sizeof(value), '\0');
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

}  // namespace

bool TinyCheckpoint::has(std::string_view name) const {
  return std::any_of(tensors.begin(), tensors.end(),
                     [&](const TinyTensor& tensor) { return tensor.name == name; });
}

TinyTensor& TinyCheckpoint::tensor(std::string_view name) {
  const auto found = std::find_if(tensors.begin(), tensors.end(),
                                  [&](const TinyTensor& tensor) { return tensor.name == name; });
  TANDEM_CHECK_MSG(found != tensors.end(), "no tensor {}", name);
  return *found;
}

void TinyCheckpoint::remove(std::string_view name) {
  TANDEM_CHECK_MSG(has(name), "no tensor {}", name);
  std::erase_if(tensors, [&](const TinyTensor& tensor) { return tensor.name == name; });
}

void TinyCheckpoint::rename(std::string_view name, std::string new_name) {
  tensor(name).name = std::move(new_name);
}

void TinyCheckpoint::add(std::string name, DType dtype, std::vector<int64_t> shape,
                         std::string bytes) {
  tensors.push_back({std::move(name), dtype, std::move(shape), std::move(bytes)});
}

void TinyCheckpoint::add_scalar(std::string name, float value) {
  add(std::move(name), DType::kF32, {}, float_bytes(value));
}

void TinyCheckpoint::set_scalar(std::string_view name, float value) {
  TinyTensor& scale = tensor(name);
  TANDEM_CHECK(scale.dtype == DType::kF32 && scale.bytes.size() == sizeof(value));
  scale.bytes = float_bytes(value);
}

void TinyCheckpoint::set_bf16(std::string_view name, size_t index, uint16_t bits) {
  TinyTensor& target = tensor(name);
  TANDEM_CHECK(target.dtype == DType::kBF16 && (index + 1) * sizeof(bits) <= target.bytes.size());
  std::memcpy(target.bytes.data() + index * sizeof(bits), &bits, sizeof(bits));
}

void TinyCheckpoint::write(const std::filesystem::path& dir, int num_shards) const {
  std::filesystem::create_directories(dir);
  write_bytes(dir / "config.json", config.dump(2));
  if (!generation_config.is_null())
    write_bytes(dir / "generation_config.json", generation_config.dump(2));
  if (!hf_quant_config.is_null())
    write_bytes(dir / "hf_quant_config.json", hf_quant_config.dump(2));
  if (num_shards == 1) {
    write_bytes(dir / "model.safetensors", safetensors_bytes(tensors));
  } else {
    json weight_map;
    size_t total = 0;
    const auto count = static_cast<size_t>(num_shards);
    for (size_t shard = 0; shard < count; ++shard) {
      const auto name = fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, count);
      const auto first = tensors.begin() + static_cast<long>(tensors.size() * shard / count);
      const auto last = tensors.begin() + static_cast<long>(tensors.size() * (shard + 1) / count);
      const std::vector<TinyTensor> part(first, last);
      for (const TinyTensor& tensor : part) {
        weight_map[tensor.name] = name;
        total += tensor.bytes.size();
      }
      write_bytes(dir / name, safetensors_bytes(part));
    }
    write_bytes(dir / "model.safetensors.index.json",
                json{{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}}.dump(2));
  }
  for (const auto& [name, bytes] : raw_files) write_bytes(dir / name, bytes);
}

TinyPair write_tiny_pair(const std::filesystem::path& dir, const TinyOptions& options) {
  const TinyPair pair{dir / "target", dir / "assistant"};
  make_tiny_target(options).write(pair.target);
  make_tiny_assistant(options).write(pair.assistant);
  return pair;
}

std::string safetensors_bytes(std::string_view header, std::string_view payload) {
  const uint64_t header_size = header.size();
  std::string bytes(sizeof(header_size), '\0');
  std::memcpy(bytes.data(), &header_size, sizeof(header_size));
  bytes += header;
  bytes += payload;
  return bytes;
}

std::string safetensors_bytes(const std::vector<TinyTensor>& tensors) {
  ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string payload;
  for (const TinyTensor& tensor : tensors) {
    header[tensor.name] = header_entry(tensor, payload.size());
    payload += tensor.bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return safetensors_bytes(text, payload);
}

}  // namespace tandem::test_support
