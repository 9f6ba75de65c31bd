// Typed reading of a request's JSON object: the first mistake is kept, unknown names are mistakes.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/api_error.h"

namespace tandem::server {

// A field that is null counts as absent. After a mistake every getter gives nothing; check error()
// or finish() at the end.
class Fields {
 public:
  // `object` must be an object that outlives this. `where`: `stream_options` for messages such as
  // `stream_options.include_usage: expected true or false, got 3`; empty at the top.
  explicit Fields(const nlohmann::json& object, std::string where = {});

  std::optional<bool> boolean(const std::string& key);
  std::optional<int64_t> integer(const std::string& key, int64_t min, int64_t max);
  std::optional<double> number(const std::string& key, double min, double max);
  std::optional<std::string> string(const std::string& key, size_t max_bytes);
  // A string or a list of strings.
  std::vector<std::string> strings(const std::string& key, size_t max_count);
  std::vector<int32_t> ids(const std::string& key, int64_t vocab_size, size_t max_count);
  const nlohmann::json* object(const std::string& key);
  const nlohmann::json* array(const std::string& key);
  const nlohmann::json* any(const std::string& key);

  // Fields that are accepted and change nothing.
  void ignore(std::initializer_list<const char*> keys);
  // A field that must be absent, or have the value that means what is done anyway.
  void refuse(const std::string& key, const std::string& why);
  void fail(const std::string& key, const std::string& message);

  // Keeps the first mistake of an inner object; false after any mistake.
  bool take(const Fields& inner);
  std::string path_of(const std::string& key) const;

  const std::optional<ApiError>& error() const { return error_; }
  // Also refuses whatever nobody asked for.
  std::optional<ApiError> finish();

 private:
  const nlohmann::json* find(const std::string& key);
  void mismatch(const std::string& key, const std::string& expected, const nlohmann::json& got);

  const nlohmann::json& object_;
  std::string where_;
  std::set<std::string> known_;
  std::optional<ApiError> error_;
};

}  // namespace tandem::server
