// JsonObject: typed fields with messages that name the key, the expectation and the value.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::io {
namespace {

using nlohmann::json;

// Whole numbers as Python may also write them: 4 and 4.0 are both four; 2.5 is none.
std::optional<int64_t> as_integer(const json& value) {
  constexpr double kExact = 9007199254740992.0;  // 2^53
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (std::floor(number) == number && std::abs(number) <= kExact)
      return static_cast<int64_t>(number);
  }
  return std::nullopt;
}

}  // namespace

base::Result<JsonObject> JsonObject::of(const json& value, std::string where) {
  if (!value.is_object())
    return base::invalid("{}: expected a JSON object, got {}", where, describe_json(value));
  return JsonObject(&value, std::move(where));
}

const json* JsonObject::find(const char* key) const {
  const auto found = value_->find(key);
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

bool JsonObject::mentions(const char* key) const {
  return value_->contains(key);
}

tl::unexpected<base::Error> JsonObject::mismatch(const char* key,
                                                 const std::string& expected) const {
  const json* value = find(key);
  const std::string got = value != nullptr ? describe_json(*value)
                          : mentions(key)  ? "null"
                                           : "no such key";
  return base::invalid("{}: {}: expected {}, got {}", where_, key, expected, got);
}

base::Result<int64_t> JsonObject::integer(const char* key, int64_t min, int64_t max) const {
  const json* value = find(key);
  const std::optional<int64_t> number = value == nullptr ? std::nullopt : as_integer(*value);
  if (!number || *number < min || *number > max)
    return mismatch(key, fmt::format("an integer from {} to {}", min, max));
  return *number;
}

base::Result<int64_t> JsonObject::integer_or(const char* key, int64_t fallback, int64_t min,
                                             int64_t max) const {
  if (!has(key)) return fallback;
  return integer(key, min, max);
}

base::Result<double> JsonObject::number_or(const char* key, double fallback, double min, double max,
                                           bool above_min) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  const bool fits =
      std::isfinite(number) && number <= max && (above_min ? number > min : number >= min);
  if (!fits)
    return mismatch(
        key, fmt::format("a number {} {} and at most {}", above_min ? "above" : "from", min, max));
  return number;
}

base::Result<bool> JsonObject::boolean_or(const char* key, bool fallback) const {
  const json* value = find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return mismatch(key, "true or false");
  return value->get<bool>();
}

base::Result<std::string> JsonObject::string(const char* key) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_string()) return mismatch(key, "a string");
  return value->get<std::string>();
}

base::Result<std::string> JsonObject::string_or(const char* key, std::string fallback) const {
  if (!has(key)) return fallback;
  return string(key);
}

base::Result<JsonObject> JsonObject::object(const char* key) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_object()) return mismatch(key, "an object");
  return JsonObject(value, fmt::format("{}: {}", where_, key));
}

base::Result<std::vector<std::string>> JsonObject::strings_or_empty(const char* key) const {
  std::vector<std::string> result;
  const json* value = find(key);
  if (value == nullptr) return result;
  if (!value->is_array()) return mismatch(key, "a list of strings");
  for (size_t i = 0; i < value->size(); ++i) {
    const json& element = (*value)[i];
    if (!element.is_string())
      return base::invalid("{}: {}[{}]: expected a string, got {}", where_, key, i,
                           describe_json(element));
    result.push_back(element.get<std::string>());
  }
  return result;
}

base::Result<std::vector<int32_t>> JsonObject::ids_or_empty(const char* key, int64_t limit) const {
  std::vector<int32_t> ids;
  const json* value = find(key);
  if (value == nullptr) return ids;
  const std::string expected = fmt::format("a token id from 0 to {}", limit - 1);
  const auto add = [&](const json& element) {
    const std::optional<int64_t> id = as_integer(element);
    const bool fits = id && *id >= 0 && *id < limit;
    if (fits) ids.push_back(static_cast<int32_t>(*id));
    return fits;
  };
  if (!value->is_array()) {
    if (!add(*value)) return mismatch(key, expected + ", or a list of such ids");
    return ids;
  }
  for (size_t i = 0; i < value->size(); ++i)
    if (!add((*value)[i]))
      return base::invalid("{}: {}[{}]: expected {}, got {}", where_, key, i, expected,
                           describe_json((*value)[i]));
  return ids;
}

}  // namespace tandem::io
