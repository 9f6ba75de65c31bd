#include "io/safetensors_index.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "io/json.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr size_t kMaxShards = 4096;

struct Index {
  std::string where;
  std::map<std::string, std::string> shard_of;  // tensor name -> file name
  std::set<std::string> shards;
  std::optional<int64_t> total_size;
};

// A shard lies directly in the model folder: no path, no parent, nothing absolute or hidden.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.size() <= 255 && name[0] != '.' &&
         name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
         name.find('\0') == std::string::npos && name.ends_with(".safetensors");
}

base::Result<Index> read_index(const fs::path& path) {
  TANDEM_ASSIGN_OR_RETURN(const json root, read_json_file(path));
  Index index;
  index.where = path.string();
  TANDEM_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::of(root, index.where));
  TANDEM_RETURN_IF_ERROR(object.object("weight_map"));
  for (const auto& [tensor, shard] : object.find("weight_map")->items()) {
    if (!shard.is_string() || !is_plain_name(shard.get_ref<const std::string&>()))
      return base::invalid(
          "{}: weight_map: {}: expected the name of a .safetensors file in this folder, got {}",
          index.where, tensor, describe_json(shard));
    index.shard_of[tensor] = shard.get<std::string>();
    index.shards.insert(shard.get<std::string>());
  }
  if (index.shards.empty() || index.shards.size() > kMaxShards)
    return base::invalid("{}: weight_map: expected 1 to {} shards, got {}", index.where, kMaxShards,
                         index.shards.size());
  if (object.has("metadata")) {
    TANDEM_ASSIGN_OR_RETURN(const JsonObject metadata, object.object("metadata"));
    if (metadata.has("total_size")) {
      TANDEM_ASSIGN_OR_RETURN(index.total_size,
                              metadata.integer("total_size", 0, int64_t{1} << 50));
    }
  }
  return index;
}

// A file that looks like a shard of this model but is not in the index: a mixed-up folder.
base::Status check_no_extra_shards(const fs::path& dir, const Index& index) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(dir, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("model-") && name.ends_with(".safetensors") &&
        !index.shards.contains(name))
      return base::invalid("{}: expected only shards that the index lists, got {} too", index.where,
                           name);
  }
  return {};
}

base::Status check_shard(const Index& index, const SafetensorsFile& file,
                         std::map<std::string, std::string>& seen) {
  const std::string shard = file.path().filename().string();
  for (const SafetensorsEntry& entry : file.entries()) {
    const auto [earlier, is_new] = seen.emplace(entry.name, shard);
    if (!is_new)
      return base::invalid("{}: tensor {}: expected in one shard, got it in {} and {}", index.where,
                           entry.name, earlier->second, shard);
    const auto listed = index.shard_of.find(entry.name);
    if (listed == index.shard_of.end())
      return base::invalid(
          "{}: tensor {}: expected an entry in weight_map, got none though {} has "
          "the tensor",
          index.where, entry.name, shard);
    if (listed->second != shard)
      return base::invalid("{}: tensor {}: expected in {} as weight_map says, got it in {}",
                           index.where, entry.name, listed->second, shard);
  }
  return {};
}

base::Result<std::vector<SafetensorsFile>> open_shards(const fs::path& dir, const Index& index) {
  std::vector<SafetensorsFile> files;
  std::map<std::string, std::string> seen;
  uint64_t payload_bytes = 0;
  for (const std::string& shard : index.shards) {
    std::error_code error;
    if (!fs::exists(fs::symlink_status(dir / shard, error)))
      return base::make_error(
          base::ErrorCode::kNotFound,
          fmt::format("{}: expected the shard {} in this folder, got no such file", index.where,
                      shard));
    TANDEM_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(dir / shard));
    TANDEM_RETURN_IF_ERROR(check_shard(index, file, seen));
    payload_bytes += file.payload_bytes();
    files.push_back(std::move(file));
  }
  for (const auto& [tensor, shard] : index.shard_of)
    if (!seen.contains(tensor))
      return base::invalid("{}: tensor {}: expected in {} as weight_map says, got no such tensor",
                           index.where, tensor, shard);
  if (index.total_size && static_cast<uint64_t>(*index.total_size) != payload_bytes)
    return base::invalid("{}: metadata: total_size: expected {}, the sum of the shards, got {}",
                         index.where, payload_bytes, *index.total_size);
  return files;
}

}  // namespace

base::Result<std::vector<SafetensorsFile>> open_model_files(const fs::path& dir) {
  std::error_code error;
  // symlink_status: a broken link or a loop counts as present and is then named by the open.
  const bool has_single = fs::exists(fs::symlink_status(dir / kSingleFileName, error));
  const bool has_index = fs::exists(fs::symlink_status(dir / kIndexFileName, error));
  if (has_single && has_index)
    return base::invalid("{}: expected either {} or {}, got both; remove the one that is stale",
                         dir.string(), kSingleFileName, kIndexFileName);
  if (!has_single && !has_index)
    return base::make_error(
        base::ErrorCode::kNotFound,
        fmt::format("{}: expected {} or {}, got neither; is this a model folder with weights?",
                    dir.string(), kSingleFileName, kIndexFileName));
  if (has_single) {
    std::vector<SafetensorsFile> files;
    TANDEM_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::open(dir / kSingleFileName));
    files.push_back(std::move(file));
    return files;
  }
  TANDEM_ASSIGN_OR_RETURN(const Index index, read_index(dir / kIndexFileName));
  TANDEM_RETURN_IF_ERROR(check_no_extra_shards(dir, index));
  return open_shards(dir, index);
}

}  // namespace tandem::io
