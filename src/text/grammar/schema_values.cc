#include "text/grammar/schema_values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "text/grammar/number_pattern.h"

namespace tandem::text {
namespace {

using nlohmann::ordered_json;

// Numbers of a grammar have at most 18 digits before the point.
constexpr double kLargest = 1e18;

struct NamedFormat {
  std::string_view name;
  StringFormat format;
};
constexpr std::array<NamedFormat, 10> kFormats = {{{"date", StringFormat::kDate},
                                                   {"time", StringFormat::kTime},
                                                   {"date-time", StringFormat::kDateTime},
                                                   {"duration", StringFormat::kDuration},
                                                   {"email", StringFormat::kEmail},
                                                   {"hostname", StringFormat::kHostname},
                                                   {"ipv4", StringFormat::kIpv4},
                                                   {"ipv6", StringFormat::kIpv6},
                                                   {"uri", StringFormat::kUri},
                                                   {"uuid", StringFormat::kUuid}}};

struct NamedKind {
  std::string_view name;
  uint8_t kind;
};
constexpr std::array<NamedKind, 7> kKinds = {{{"null", kNullKind},
                                              {"boolean", kBooleanKind},
                                              {"number", kNumberKind},
                                              {"integer", kNumberKind},
                                              {"string", kStringKind},
                                              {"array", kArrayKind},
                                              {"object", kObjectKind}}};

std::string decimal(const ordered_json& number) {
  if (number.is_number_integer()) return number.dump();
  std::array<char, 400> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(),
                                          number.get<double>(), std::chars_format::fixed);
  return error == std::errc() ? std::string(buffer.data(), end) : "0";
}

struct Bound {
  ordered_json number;
  bool exclusive = false;
};

// The stricter of an inclusive and an exclusive bound.
std::optional<Bound> stricter(const ordered_json& schema, const char* inclusive,
                              const char* exclusive, bool upper) {
  std::optional<Bound> bound;
  if (schema.contains(inclusive)) bound = Bound{schema[inclusive], false};
  if (!schema.contains(exclusive)) return bound;
  const ordered_json& other = schema[exclusive];
  if (!bound || (upper ? other <= bound->number : other >= bound->number))
    bound = Bound{other, true};
  return bound;
}

}  // namespace

bool Types::allow(const ordered_json& value) const {
  if ((kinds & kind_of(value)) == 0) return false;
  if (!value.is_number() || !integers_only || value.is_number_integer()) return true;
  const double number = value.get<double>();
  return std::floor(number) == number;
}

base::Result<Types> read_types(const ordered_json& schema, const std::string& where) {
  Types types;
  if (!schema.contains("type")) return types;
  const ordered_json& given = schema["type"];
  const ordered_json list = given.is_array() ? given : ordered_json::array({given});
  types.kinds = 0;
  bool number = false, integer = false;
  for (const ordered_json& item : list) {
    const std::string name = item.get<std::string>();
    const auto found = std::ranges::find(kKinds, name, &NamedKind::name);
    if (found == kKinds.end())
      return base::invalid(
          "{}/type: expected string, number, integer, boolean, null, array or object, got {}",
          where, io::describe_json(name));
    types.kinds |= found->kind;
    number |= name == "number";
    integer |= name == "integer";
  }
  types.integers_only = integer && !number;
  return types;
}

uint8_t kinds_spoken_of(const ordered_json& schema) {
  uint8_t kinds = 0;
  for (const auto& [keyword, value] : schema.items()) {
    if (keyword == "pattern" || keyword == "format" || keyword.ends_with("Length"))
      kinds |= kStringKind;
    else if (keyword.ends_with("imum") || keyword == "multipleOf")
      kinds |= kNumberKind;
    else if (keyword.ends_with("Items") || keyword == "items")
      kinds |= kArrayKind;
    else
      kinds |= kObjectKind;
  }
  return kinds;
}

base::Result<ShapeForm> read_number(const ordered_json& schema, bool integers_only,
                                    const std::string& where) {
  NumberShape shape;
  shape.integer = integers_only || schema.contains("multipleOf");
  const auto min = stricter(schema, "minimum", "exclusiveMinimum", false);
  const auto max = stricter(schema, "maximum", "exclusiveMaximum", true);
  const double low = min ? min->number.get<double>() : -kLargest;
  const double high = max ? max->number.get<double>() : kLargest;
  if (low >= kLargest || high <= -kLargest)
    return base::unsupported("{}: expected bounds between -1e18 and 1e18", where);
  if (min && low > -kLargest) shape.min = NumberBound{decimal(min->number), min->exclusive};
  if (max && high < kLargest) shape.max = NumberBound{decimal(max->number), max->exclusive};
  if (!number_pattern(shape)) return NothingShape{};
  return shape;
}

base::Result<ShapeForm> read_string(const ordered_json& schema, int64_t max_min_length,
                                    const std::string& where) {
  StringShape shape;
  shape.min_length = count_of(schema, "minLength").value_or(0);
  shape.max_length = count_of(schema, "maxLength").value_or(-1);
  const bool measured = shape.min_length > 0 || shape.max_length >= 0;
  if (schema.contains("format")) {
    const std::string name = schema["format"].get<std::string>();
    const auto found = std::ranges::find(kFormats, name, &NamedFormat::name);
    if (found == kFormats.end()) {
      std::vector<std::string_view> names;
      for (const NamedFormat& format : kFormats) names.push_back(format.name);
      return base::unsupported("{}/format: expected one of {}, got {}", where,
                               fmt::join(names, ", "), io::describe_json(name));
    }
    shape.format = found->format;
  }
  if (schema.contains("pattern")) {
    shape.where = where + "/pattern";
    TANDEM_ASSIGN_OR_RETURN(Regex regex,
                            parse_regex(schema["pattern"].get<std::string>(), shape.where));
    shape.pattern = std::make_shared<const Regex>(std::move(regex));
  }
  const int num_rules =
      int{measured} + int{shape.format.has_value()} + int{shape.pattern != nullptr};
  if (num_rules > 1)
    return base::unsupported(
        "{}: expected one of a length, a pattern and a format: answers cannot be held to two of "
        "them at once",
        where);
  if (shape.min_length > max_min_length)
    return base::unsupported("{}/minLength: expected at most {}, got {}", where, max_min_length,
                             shape.min_length);
  if (shape.max_length >= 0 && shape.max_length < shape.min_length) return NothingShape{};
  return shape;
}

base::Status check_property_counts(const ordered_json& schema, const ObjectShape& object,
                                   const std::string& where) {
  const auto required = std::ranges::count_if(object.properties, &ObjectShape::Property::required);
  const auto all = static_cast<int64_t>(object.properties.size());
  const auto min = count_of(schema, "minProperties");
  const auto max = count_of(schema, "maxProperties");
  if (min && *min > required)
    return base::unsupported(
        "{}/minProperties: expected at most the {} required properties, got {}", where, required,
        *min);
  if (max && (object.others.has_value() || *max < all))
    return base::unsupported(
        "{}/maxProperties: expected at least the number of properties, and no others allowed",
        where);
  return {};
}

std::optional<int64_t> count_of(const ordered_json& schema, const char* keyword) {
  if (!schema.contains(keyword)) return std::nullopt;
  return static_cast<int64_t>(schema[keyword].get<double>());
}

std::string escape_pointer(std::string_view name) {
  std::string result;
  for (const char c : name) {
    if (c == '~')
      result += "~0";
    else if (c == '/')
      result += "~1";
    else
      result += c;
  }
  return result;
}

std::optional<std::vector<std::string>> reference_path(std::string_view reference) {
  if (reference == "#") return std::vector<std::string>();
  if (!reference.starts_with("#/")) return std::nullopt;
  std::vector<std::string> path;
  for (size_t i = 1; i < reference.size(); ++i) {
    const char c = reference[i];
    if (c == '/') {
      path.emplace_back();
    } else if (c == '~' && i + 1 < reference.size() &&
               (reference[i + 1] == '0' || reference[i + 1] == '1')) {
      path.back() += reference[++i] == '0' ? '~' : '/';
    } else if (c == '%' && i + 2 < reference.size()) {
      int value = 0;
      const auto [end, error] =
          std::from_chars(&reference[i + 1], &reference[i + 1] + 2, value, 16);
      if (error != std::errc() || end != &reference[i + 1] + 2) return std::nullopt;
      path.back() += static_cast<char>(value);
      i += 2;
    } else {
      path.back() += c;
    }
  }
  return path;
}

const ordered_json* find_path(const ordered_json& root, const std::vector<std::string>& path) {
  const ordered_json* place = &root;
  for (const std::string& name : path) {
    if (place->is_object()) {
      const auto found = place->find(name);
      if (found == place->end()) return nullptr;
      place = &*found;
    } else if (place->is_array()) {
      size_t index = 0;
      const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
      if (error != std::errc() || end != name.data() + name.size() || index >= place->size())
        return nullptr;
      place = &(*place)[index];
    } else {
      return nullptr;
    }
  }
  return place;
}

}  // namespace tandem::text
