// The tensors of all files of a checkpoint under their canonical names, and which of them the
// loader has asked for.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/buffer.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"

namespace tandem::io {

// A tensor that is in no file.
struct NamedBuffer {
  std::string canonical_name;
  core::Buffer buffer;
};

class TensorTable {
 public:
  // Two stored names for one canonical name are refused. With `skip_media`, vision and audio
  // tensors get no canonical name.
  static base::Result<TensorTable> build(const std::filesystem::path& dir,
                                         std::vector<SafetensorsFile> files, bool skip_media);
  // Tensors that were made, under their canonical names.
  static TensorTable of_buffers(const std::filesystem::path& dir, std::vector<NamedBuffer> buffers);

  const std::vector<Checkpoint::StoredTensor>& stored() const { return stored_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  const Checkpoint::StoredTensor* find(std::string_view canonical_name) const;
  // find(), and remembers that the tensor has a use.
  const Checkpoint::StoredTensor* take(std::string_view canonical_name);
  // The first tensor in file order that nobody took, or nullptr.
  const Checkpoint::StoredTensor* first_unused() const;

  // Copies the named tensors of the files into one area of memory and lets their pages in the files
  // go. Returns its bytes: 0 where there are no files.
  int64_t copy_into_memory();

  // `FILE: tensor NAME` for messages; with the file's spelling also when the tensor is missing.
  std::string where(std::string_view canonical_name) const;

 private:
  base::Status add(const SafetensorsFile& file, const SafetensorsEntry& entry, bool skip_media);

  std::filesystem::path dir_;
  std::vector<SafetensorsFile> files_;
  std::vector<Checkpoint::StoredTensor> stored_;
  std::vector<bool> used_;
  std::unordered_map<std::string, size_t> index_;
  std::vector<core::Buffer> owned_;  // copies of unaligned tensors, or all tensors
  std::string prefix_;  // how this checkpoint spells the text tower, for missing tensors
};

}  // namespace tandem::io
