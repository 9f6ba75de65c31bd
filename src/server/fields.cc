#include "server/fields.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::server {

using nlohmann::json;

Fields::Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object_.is_object())
    error_ = ApiError{.message = fmt::format("{}: expected a JSON object, got {}",
                                             where_.empty() ? "body" : where_,
                                             io::describe_json(object_))};
}

std::string Fields::path_of(const std::string& key) const {
  return where_.empty() ? key : where_ + "." + key;
}

void Fields::fail(const std::string& key, const std::string& message) {
  if (error_) return;
  const std::string path = path_of(key);
  error_ = ApiError{.message = path + ": " + message, .param = path};
}

bool Fields::take(const Fields& inner) {
  if (!error_) error_ = inner.error_;
  return !error_;
}

void Fields::mismatch(const std::string& key, const std::string& expected, const json& got) {
  fail(key, fmt::format("expected {}, got {}", expected, io::describe_json(got)));
}

const json* Fields::find(const std::string& key) {
  known_.insert(key);
  if (error_) return nullptr;
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const json* Fields::any(const std::string& key) {
  return find(key);
}

std::optional<bool> Fields::boolean(const std::string& key) {
  const json* value = find(key);
  if (value == nullptr) return {};
  if (value->is_boolean()) return value->get<bool>();
  mismatch(key, "true or false", *value);
  return {};
}

std::optional<int64_t> Fields::integer(const std::string& key, int64_t min, int64_t max) {
  const json* value = find(key);
  if (value == nullptr) return {};
  // 3.0 is an integer in JSON; unsigned numbers past int64 are not.
  std::optional<int64_t> number;
  if (value->is_number_unsigned()) {
    if (value->get<uint64_t>() <= uint64_t{INT64_MAX}) number = value->get<int64_t>();
  } else if (value->is_number_integer()) {
    number = value->get<int64_t>();
  } else if (value->is_number_float()) {
    const double real = value->get<double>();
    if (std::abs(real) < 0x1p53 && real == std::floor(real)) number = static_cast<int64_t>(real);
  }
  if (number && *number >= min && *number <= max) return number;
  mismatch(key, fmt::format("an integer from {} to {}", min, max), *value);
  return {};
}

std::optional<double> Fields::number(const std::string& key, double min, double max) {
  const json* value = find(key);
  if (value == nullptr) return {};
  if (value->is_number()) {
    const auto number = value->get<double>();
    if (std::isfinite(number) && number >= min && number <= max) return number;
  }
  mismatch(key, fmt::format("a number from {} to {}", min, max), *value);
  return {};
}

std::optional<std::string> Fields::string(const std::string& key, size_t max_bytes) {
  const json* value = find(key);
  if (value == nullptr) return {};
  if (value->is_string() && value->get_ref<const std::string&>().size() <= max_bytes)
    return value->get<std::string>();
  mismatch(key, fmt::format("a string of at most {} bytes", max_bytes), *value);
  return {};
}

std::vector<std::string> Fields::strings(const std::string& key, size_t max_count) {
  const json* value = find(key);
  if (value == nullptr) return {};
  if (value->is_string()) return {value->get<std::string>()};
  std::vector<std::string> result;
  if (value->is_array() && value->size() <= max_count) {
    for (const json& element : *value)
      if (element.is_string()) result.push_back(element.get<std::string>());
    if (result.size() == value->size()) return result;
  }
  mismatch(key, fmt::format("a string or a list of at most {} strings", max_count), *value);
  return {};
}

std::vector<int32_t> Fields::ids(const std::string& key, int64_t vocab_size, size_t max_count) {
  const json* value = find(key);
  if (value == nullptr) return {};
  std::vector<int32_t> result;
  if (value->is_array() && value->size() <= max_count) {
    for (const json& element : *value) {
      if (!element.is_number_integer()) break;
      const auto id = element.get<int64_t>();
      const bool wraps = element.is_number_unsigned() && element.get<uint64_t>() > INT64_MAX;
      if (wraps || id < 0 || id >= vocab_size) {
        mismatch(key, fmt::format("token ids from 0 to {}", vocab_size - 1), element);
        return {};
      }
      result.push_back(static_cast<int32_t>(id));
    }
    if (result.size() == value->size()) return result;
  }
  mismatch(key, fmt::format("a list of at most {} token ids", max_count), *value);
  return {};
}

const json* Fields::object(const std::string& key) {
  const json* value = find(key);
  if (value == nullptr || value->is_object()) return value;
  mismatch(key, "an object", *value);
  return nullptr;
}

const json* Fields::array(const std::string& key) {
  const json* value = find(key);
  if (value == nullptr || value->is_array()) return value;
  mismatch(key, "a list", *value);
  return nullptr;
}

void Fields::ignore(std::initializer_list<const char*> keys) {
  known_.insert(keys.begin(), keys.end());
}

void Fields::refuse(const std::string& key, const std::string& why) {
  const json* value = find(key);
  if (value == nullptr) return;
  const bool off = (value->is_boolean() && !value->get<bool>()) ||
                   ((value->is_array() || value->is_object()) && value->empty());
  if (!off) fail(key, "not supported: " + why);
}

std::optional<ApiError> Fields::finish() {
  if (error_) return error_;
  for (const auto& [key, value] : object_.items()) {
    // Clients send back what they were given with all the fields they know, null where unset.
    if (known_.contains(key) || value.is_null()) continue;
    fail(key.substr(0, 80), "expected a known field, got this one; the documentation lists them");
    break;
  }
  return error_;
}

}  // namespace tandem::server
