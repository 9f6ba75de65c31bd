#include "io/tensor_table.h"

#include <cstring>

#include "io/tensor_names.h"

namespace tandem::io {

base::Result<TensorTable> TensorTable::build(const std::filesystem::path& dir,
                                             std::vector<SafetensorsFile> files, bool skip_media) {
  TensorTable table;
  table.dir_ = dir;
  for (const SafetensorsFile& file : files)
    for (const SafetensorsEntry& entry : file.entries())
      TANDEM_RETURN_IF_ERROR(table.add(file, entry, skip_media));
  table.files_ = std::move(files);
  table.used_.assign(table.stored_.size(), false);
  for (const Checkpoint::StoredTensor& tensor : table.stored_)
    if (tensor.canonical_name.starts_with("layers.")) {
      table.prefix_ = spelling_prefix(tensor.stored_name, tensor.canonical_name);
      break;
    }
  return table;
}

TensorTable TensorTable::of_buffers(const std::filesystem::path& dir,
                                    std::vector<NamedBuffer> buffers) {
  TensorTable table;
  table.dir_ = dir;
  for (NamedBuffer& named : buffers) {
    const auto [found, is_new] = table.index_.emplace(named.canonical_name, table.stored_.size());
    TANDEM_CHECK_MSG(is_new, "tensor {}", named.canonical_name);
    table.stored_.push_back({.stored_name = named.canonical_name,
                             .canonical_name = named.canonical_name,
                             .view = named.buffer.view(),
                             .file = dir.string()});
    table.owned_.push_back(std::move(named.buffer));
  }
  table.used_.assign(table.stored_.size(), false);
  return table;
}

base::Status TensorTable::add(const SafetensorsFile& file, const SafetensorsEntry& entry,
                              bool skip_media) {
  Checkpoint::StoredTensor tensor;
  tensor.stored_name = entry.name;
  tensor.file = file.path().string();
  tensor.view = file.view(entry);
  if (!skip_media || !is_media_tensor(entry.name))
    tensor.canonical_name = canonical_tensor_name(entry.name);
  if (!tensor.canonical_name.empty()) {
    const auto [found, is_new] = index_.emplace(tensor.canonical_name, stored_.size());
    if (!is_new)
      return base::invalid("{}: tensor {}: expected each tensor once, got it as {} too",
                           tensor.file, entry.name, stored_[found->second].stored_name);
    // The format promises no alignment; kernels want it. Only odd files pay for a copy.
    if (!is_aligned(tensor.view)) {
      core::Buffer copy(entry.dtype, entry.shape);
      std::memcpy(copy.data(), tensor.view.data, copy.size_bytes());
      tensor.view = copy.view();
      owned_.push_back(std::move(copy));
    }
  }
  stored_.push_back(std::move(tensor));
  return {};
}

const Checkpoint::StoredTensor* TensorTable::find(std::string_view canonical_name) const {
  const auto found = index_.find(std::string(canonical_name));
  return found == index_.end() ? nullptr : &stored_[found->second];
}

const Checkpoint::StoredTensor* TensorTable::take(std::string_view canonical_name) {
  const auto found = index_.find(std::string(canonical_name));
  if (found == index_.end()) return nullptr;
  used_[found->second] = true;
  return &stored_[found->second];
}

const Checkpoint::StoredTensor* TensorTable::first_unused() const {
  for (size_t i = 0; i < stored_.size(); ++i)
    if (!used_[i] && !stored_[i].canonical_name.empty()) return &stored_[i];
  return nullptr;
}

std::string TensorTable::where(std::string_view canonical_name) const {
  if (const Checkpoint::StoredTensor* tensor = find(canonical_name))
    return fmt::format("{}: tensor {}", tensor->file, tensor->stored_name);
  const std::string place = files_.size() == 1 ? files_[0].path().string() : dir_.string();
  return fmt::format("{}: tensor {}", place, stored_spelling(canonical_name, prefix_));
}

}  // namespace tandem::io
