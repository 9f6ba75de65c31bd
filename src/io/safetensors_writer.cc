#include "io/safetensors_writer.h"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <set>

#include "io/safetensors_index.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

uint64_t payload_bytes(const TensorDeclaration& tensor) {
  return static_cast<uint64_t>(tensor.shape.num_elements()) * core::dtype_bytes(tensor.dtype);
}

std::string quoted(const std::string& text) {
  return json(text).dump();
}

}  // namespace

void sort_for_alignment(std::vector<TensorDeclaration>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) {
    const size_t a_bytes = core::dtype_bytes(a.dtype);
    const size_t b_bytes = core::dtype_bytes(b.dtype);
    return a_bytes != b_bytes ? a_bytes > b_bytes : a.name < b.name;
  });
}

base::Status SafetensorsWriter::check_declarations(const std::vector<TensorDeclaration>& tensors) {
  std::set<std::string_view> names;
  for (const TensorDeclaration& tensor : tensors)
    if (!names.insert(tensor.name).second)
      return base::invalid("tensor {}: expected to be written once, got it twice", tensor.name);
  return {};
}

base::Result<SafetensorsWriter> SafetensorsWriter::create_model(
    const fs::path& dir, std::vector<TensorDeclaration> tensors, Options options) {
  std::error_code error;
  for (const char* name : {kSingleFileName, kIndexFileName})
    if (fs::exists(fs::symlink_status(dir / name, error)))
      return base::invalid(
          "{}: expected a folder without a model, got one with {}; choose another "
          "output folder or remove it",
          dir.string(), name);
  TANDEM_RETURN_IF_ERROR(check_declarations(tensors));
  SafetensorsWriter writer;
  writer.tensors_ = std::move(tensors);
  writer.options_ = std::move(options);
  writer.plan_shards(dir);
  TANDEM_RETURN_IF_ERROR(writer.begin_shard());
  TANDEM_RETURN_IF_ERROR(writer.skip_finished_tensors());
  return writer;
}

base::Result<SafetensorsWriter> SafetensorsWriter::create_file(
    const fs::path& path, std::vector<TensorDeclaration> tensors, Options options) {
  TANDEM_RETURN_IF_ERROR(check_declarations(tensors));
  SafetensorsWriter writer;
  writer.tensors_ = std::move(tensors);
  writer.options_ = std::move(options);
  writer.shards_.push_back({0, writer.tensors_.size(), path});
  TANDEM_RETURN_IF_ERROR(writer.begin_shard());
  TANDEM_RETURN_IF_ERROR(writer.skip_finished_tensors());
  return writer;
}

void SafetensorsWriter::plan_shards(const fs::path& dir) {
  uint64_t shard_bytes = 0;
  shards_.push_back({0, 0, {}});
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const uint64_t bytes = payload_bytes(tensors_[i]);
    if (i > shards_.back().first && shard_bytes + bytes > options_.max_shard_bytes) {
      shards_.push_back({i, i, {}});
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    shards_.back().last = i + 1;
  }
  if (shards_.size() == 1) {
    shards_[0].path = dir / kSingleFileName;
    return;
  }
  index_path_ = dir / kIndexFileName;
  for (size_t i = 0; i < shards_.size(); ++i)
    shards_[i].path = dir / fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
}

std::string SafetensorsWriter::header_of(const Shard& shard) const {
  std::string header = "{\"__metadata__\":" + json(options_.metadata).dump();
  uint64_t offset = 0;
  for (size_t i = shard.first; i < shard.last; ++i) {
    const TensorDeclaration& tensor = tensors_[i];
    std::string dims;
    for (size_t d = 0; d < tensor.shape.rank(); ++d)
      dims += fmt::format("{}{}", d == 0 ? "" : ",", tensor.shape[d]);
    const uint64_t end = offset + payload_bytes(tensor);
    header += fmt::format(R"(,{}:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                          quoted(tensor.name), core::dtype_name(tensor.dtype), dims, offset, end);
    offset = end;
  }
  header += '}';
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

base::Status SafetensorsWriter::begin_shard() {
  const Shard& shard = shards_[files_.size()];
  TANDEM_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::create(shard.path));
  const std::string header = header_of(shard);
  static_assert(std::endian::native == std::endian::little);
  const uint64_t header_bytes = header.size();
  TANDEM_RETURN_IF_ERROR(file.append(&header_bytes, sizeof(header_bytes)));
  TANDEM_RETURN_IF_ERROR(file.append(header.data(), header.size()));
  files_.push_back(std::move(file));
  return {};
}

// Moves on over tensors that are complete (also those without elements) and to the next shard.
base::Status SafetensorsWriter::skip_finished_tensors() {
  while (tensor_ < tensors_.size() && tensor_done_ == payload_bytes(tensors_[tensor_])) {
    ++tensor_;
    tensor_done_ = 0;
    if (tensor_ == shards_[files_.size() - 1].last && tensor_ < tensors_.size()) {
      TANDEM_RETURN_IF_ERROR(files_.back().sync_and_close());
      TANDEM_RETURN_IF_ERROR(begin_shard());
    }
  }
  return {};
}

base::Status SafetensorsWriter::append(std::string_view name, const void* bytes, size_t count) {
  TANDEM_CHECK_LT(tensor_, tensors_.size());
  const TensorDeclaration& tensor = tensors_[tensor_];
  TANDEM_CHECK_EQ(std::string_view(tensor.name), name);
  TANDEM_CHECK_LE(tensor_done_ + count, payload_bytes(tensor));
  TANDEM_RETURN_IF_ERROR(files_.back().append(bytes, count));
  tensor_done_ += count;
  return skip_finished_tensors();
}

base::Status SafetensorsWriter::append(std::string_view name, const core::TensorView& tensor) {
  TANDEM_CHECK(tensor.rows() <= 1 || tensor.row_stride == tensor.cols());  // contiguous
  const auto bytes =
      static_cast<size_t>(tensor.shape.num_elements()) * core::dtype_bytes(tensor.dtype);
  return append(name, tensor.data, bytes);
}

std::string SafetensorsWriter::index_json() const {
  json weight_map = json::object();
  uint64_t total = 0;
  for (const Shard& shard : shards_)
    for (size_t i = shard.first; i < shard.last; ++i) {
      weight_map[tensors_[i].name] = shard.path.filename().string();
      total += payload_bytes(tensors_[i]);
    }
  const json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  return index.dump(2) + "\n";
}

base::Status SafetensorsWriter::finish() {
  TANDEM_CHECK_EQ(tensor_, tensors_.size());
  for (AtomicFile& file : files_) TANDEM_RETURN_IF_ERROR(file.sync_and_close());
  for (AtomicFile& file : files_) TANDEM_RETURN_IF_ERROR(file.publish());
  const fs::path dir = shards_[0].path.parent_path();
  if (!index_path_) return sync_folder(dir);
  TANDEM_RETURN_IF_ERROR(sync_folder(dir));
  return write_file_atomically(*index_path_, index_json());
}

}  // namespace tandem::io
