#include "cli/files.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::cli {
namespace {

constexpr size_t kMaxTokenFileBytes = 64 << 20;

}  // namespace

base::Result<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return base::make_error(base::ErrorCode::kNotFound,
                            fmt::format("{}: expected a file, got {}", path.string(),
                                        error ? error.message() : "something else"));
  const auto size = std::filesystem::file_size(path, error);
  if (error || size > max_bytes)
    return base::invalid("{}: expected a file of at most {} bytes, got {}", path.string(),
                         max_bytes, error ? error.message() : std::to_string(size));
  std::ifstream file(path, std::ios::binary);
  std::string text(size, '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(size)))
    return base::invalid("{}: expected a readable file, got: {}", path.string(),
                         std::strerror(errno));
  return text;
}

base::Result<std::vector<int32_t>> read_token_ids(const std::filesystem::path& path,
                                                  int64_t vocab_size, int64_t max_tokens) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxTokenFileBytes));
  io::JsonLimits limits;
  limits.max_bytes = kMaxTokenFileBytes;
  limits.max_values = kMaxTokenFileBytes;
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, io::parse_json(text, path.string(), limits));
  if (!json.is_array() || json.empty())
    return base::invalid("{}: expected a JSON list of token ids such as [2, 105], got {}",
                         path.string(), io::describe_json(json));
  if (json.size() > static_cast<size_t>(max_tokens))
    return base::invalid("{}: expected at most {} token ids (max_position_embeddings), got {}",
                         path.string(), max_tokens, json.size());
  std::vector<int32_t> ids;
  for (const auto& entry : json) {
    const int64_t id = entry.is_number_integer() ? entry.get<int64_t>() : -1;
    if (id < 0 || id >= vocab_size)
      return base::invalid("{}: entry {}: expected a token id in [0, {}), got {}", path.string(),
                           ids.size(), vocab_size, io::describe_json(entry));
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

}  // namespace tandem::cli
