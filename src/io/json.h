// JSON from strangers: bounded in size, depth and count before anything is allocated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tandem::io {

struct JsonLimits {
  size_t max_bytes = size_t{8} << 20;
  size_t max_depth = 100;
  size_t max_values = 200'000;                // members and elements of all levels
  size_t max_string_bytes = size_t{4} << 20;  // also of numbers, words and runs of white space
};

// One JSON value and nothing after it. Refuses duplicate keys, invalid UTF-8, numbers that no
// double can hold and whatever goes past the limits. `where` begins the message:
// `WHERE: expected valid JSON, got broken JSON at byte N, near "..."`.
base::Result<nlohmann::json> parse_json(std::string_view text, const std::string& where,
                                        const JsonLimits& limits = {});

// The same for a file; a FIFO, directory, git-LFS pointer or HTML page is named as such.
base::Result<nlohmann::json> read_json_file(const std::filesystem::path& path,
                                            const JsonLimits& limits = {});

// Padding at the end is no content.
std::string_view without_trailing_space(std::string_view text);

// Checks the limits in one pass without allocating. parse_json does it first.
base::Status check_json_limits(std::string_view text, const std::string& where,
                               const JsonLimits& limits);

// With the keys in their order, in time that grows with the text alone. check_json_limits() goes
// first. Of a key that comes twice the last value counts. Nothing for broken JSON.
std::optional<nlohmann::ordered_json> parse_ordered_json(std::string_view text);

// `... got broken JSON at byte N, near "..."`, with the bytes made printable.
std::string describe_broken_json(std::string_view text, size_t byte);

// What a value is, short enough for a message: `2.5`, `"abc"`, `null`, `an array of 3`.
std::string describe_json(const nlohmann::json& value);

// Typed fields of one JSON object. A key that is absent or null counts as absent. Messages read
// `config.json: text_config: hidden_size: expected an integer from 1 to 9, got 2.5`.
class JsonObject {
 public:
  // `value` must outlive the view. Fails when it is no object.
  static base::Result<JsonObject> of(const nlohmann::json& value, std::string where);

  const std::string& where() const { return where_; }
  bool has(const char* key) const { return find(key) != nullptr; }
  // The value, or nullptr when absent or null.
  const nlohmann::json* find(const char* key) const;
  // Whether the key is written at all, null included.
  bool mentions(const char* key) const;

  base::Result<int64_t> integer(const char* key, int64_t min, int64_t max) const;
  base::Result<int64_t> integer_or(const char* key, int64_t fallback, int64_t min,
                                   int64_t max) const;
  // Finite numbers only; `min` itself is excluded when `above_min`.
  base::Result<double> number_or(const char* key, double fallback, double min, double max,
                                 bool above_min = false) const;
  base::Result<bool> boolean_or(const char* key, bool fallback) const;
  base::Result<std::string> string(const char* key) const;
  base::Result<std::string> string_or(const char* key, std::string fallback) const;
  base::Result<JsonObject> object(const char* key) const;
  base::Result<std::vector<std::string>> strings_or_empty(const char* key) const;
  // One id or a list of ids, each from 0 to limit - 1; empty when absent.
  base::Result<std::vector<int32_t>> ids_or_empty(const char* key, int64_t limit) const;

  // `WHERE: KEY: expected EXPECTED, got VALUE`
  tl::unexpected<base::Error> mismatch(const char* key, const std::string& expected) const;

 private:
  JsonObject(const nlohmann::json* value, std::string where)
      : value_(value), where_(std::move(where)) {}

  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace tandem::io
