#include "io/tensor_table.h"

#include <algorithm>
#include <cstring>

#include "core/thread_pool.h"
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

int64_t TensorTable::copy_into_memory() {
  constexpr size_t kAlignment = 64;  // a cache line
  constexpr size_t kPiece = size_t{16} << 20;
  struct Piece {
    const char* from;
    size_t to, size;
  };
  if (files_.empty()) return 0;
  std::vector<Piece> pieces;
  std::vector<size_t> places(stored_.size());
  size_t total = 0;
  for (size_t i = 0; i < stored_.size(); ++i) {
    const core::TensorView& view = stored_[i].view;
    if (stored_[i].canonical_name.empty()) continue;
    const size_t size =
        static_cast<size_t>(view.shape.num_elements()) * core::dtype_bytes(view.dtype);
    for (size_t at = 0; at < size; at += kPiece)
      pieces.push_back(
          {static_cast<const char*>(view.data) + at, total + at, std::min(kPiece, size - at)});
    places[i] = total;
    total += (size + kAlignment - 1) / kAlignment * kAlignment;
  }
  core::Buffer area(core::DType::kU8, core::Shape{static_cast<int64_t>(total)});
  auto* const bytes = static_cast<char*>(area.data());
  core::ThreadPool pool(0);
  pool.parallel_for(static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<size_t>(i)];
      std::memcpy(bytes + piece.to, piece.from, piece.size);
      for (const SafetensorsFile& file : files_) file.release_pages(piece.from, piece.size);
    }
  });
  for (size_t i = 0; i < stored_.size(); ++i)
    if (!stored_[i].canonical_name.empty()) stored_[i].view.data = bytes + places[i];
  owned_.clear();
  owned_.push_back(std::move(area));
  return static_cast<int64_t>(total);
}

std::string TensorTable::where(std::string_view canonical_name) const {
  if (const Checkpoint::StoredTensor* tensor = find(canonical_name))
    return fmt::format("{}: tensor {}", tensor->file, tensor->stored_name);
  const std::string place = files_.size() == 1 ? files_[0].path().string() : dir_.string();
  return fmt::format("{}: tensor {}", place, stored_spelling(canonical_name, prefix_));
}

}  // namespace tandem::io
