// Writes safetensors in bounded memory: declare all tensors, then append their bytes in order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "core/tensor_view.h"
#include "io/atomic_file.h"

namespace tandem::io {

struct TensorDeclaration {
  std::string name;
  core::DType dtype = core::DType::kF32;
  core::Shape shape;
};

// Largest elements first, then by name: every tensor lies aligned to its element.
void sort_for_alignment(std::vector<TensorDeclaration>& tensors);

struct SafetensorsWriterOptions {
  // A model folder's payload is split into shards of at most this size (a larger single tensor
  // gets a shard of its own).
  uint64_t max_shard_bytes = uint64_t{5} << 30;
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
};

class SafetensorsWriter {
 public:
  using Options = SafetensorsWriterOptions;

  // model.safetensors in an existing folder, or shards and an index. A folder that has a model
  // already is refused: new shards beside an old index could load as a mixture.
  static base::Result<SafetensorsWriter> create_model(const std::filesystem::path& dir,
                                                      std::vector<TensorDeclaration> tensors,
                                                      Options options = {});
  // One file of any name; one of that name is replaced when finish() succeeds.
  static base::Result<SafetensorsWriter> create_file(const std::filesystem::path& path,
                                                     std::vector<TensorDeclaration> tensors,
                                                     Options options = {});

  // The next bytes of the tensor `name`, which must be the declared one whose turn it is; a tensor
  // may come in several pieces. CHECKs order and sizes.
  base::Status append(std::string_view name, const void* bytes, size_t count);
  base::Status append(std::string_view name, const core::TensorView& tensor);

  // CHECKs that everything came; syncs, renames, and writes the index last. Before it returns,
  // nothing in the folder loads; if it never runs, the temporary files are removed.
  base::Status finish();

 private:
  struct Shard {
    size_t first = 0;  // tensors [first, last)
    size_t last = 0;
    std::filesystem::path path;
  };

  SafetensorsWriter() = default;
  static base::Status check_declarations(const std::vector<TensorDeclaration>& tensors);
  void plan_shards(const std::filesystem::path& dir);
  base::Status begin_shard();
  base::Status skip_finished_tensors();
  std::string header_of(const Shard& shard) const;
  std::string index_json() const;

  std::vector<TensorDeclaration> tensors_;
  Options options_;
  std::vector<Shard> shards_;
  std::vector<AtomicFile> files_;  // one per begun shard
  size_t tensor_ = 0;              // whose turn it is
  uint64_t tensor_done_ = 0;       // bytes of it that came
  std::optional<std::filesystem::path> index_path_;
};

}  // namespace tandem::io
