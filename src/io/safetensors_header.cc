// The JSON header of a safetensors file, read event by event: a hostile header of 100 MB must not
// become a tree of a gigabyte.
#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "io/safetensors.h"

namespace tandem::io {
namespace {

using nlohmann::json;

constexpr size_t kMaxTensors = 100'000;
constexpr size_t kMaxNameBytes = 4096;
constexpr size_t kMaxMetadata = 10'000;

// The header is {NAME: {"dtype": S, "shape": [N...], "data_offsets": [B, E]}...} and a string map
// __metadata__. Any other event is refused where it happens.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  bool null() override { return value("null"); }
  bool boolean(bool value_in) override { return value(value_in ? "true" : "false"); }
  bool number_integer(number_integer_t number) override { return value(fmt::format("{}", number)); }
  bool number_float(number_float_t, const string_t& text) override { return value(text); }
  bool binary(binary_t&) override { return false; }

  bool number_unsigned(number_unsigned_t number) override {
    if (place_ == Place::kShape || place_ == Place::kOffsets) {
      if (numbers_.size() > core::kMaxRank) return true;  // reported with the whole list
      numbers_.push_back(number);
      return true;
    }
    return value(fmt::format("{}", number));
  }

  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) {
      metadata_.emplace_back(std::move(key_), std::move(text));
      return metadata_.size() <= kMaxMetadata ||
             fail(fmt::format("expected at most {} entries, got more", kMaxMetadata));
    }
    if (place_ == Place::kTensor && key_ == "dtype") {
      const auto dtype = core::dtype_from_name(text);
      if (!dtype)
        return fail(fmt::format("dtype: expected one of BF16, F8_E4M3, F32, ..., got {}",
                                describe_json(text)));
      entry_.dtype = *dtype;
      has_dtype_ = true;
      return true;
    }
    return value(describe_json(text));
  }

  bool start_object(size_t) override {
    switch (place_) {
      case Place::kStart:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
        begin_tensor();
        return true;
      default:
        return value("an object");
    }
  }

  bool key(string_t& name) override {
    key_ = std::move(name);
    if (place_ == Place::kTop) name_ = key_;
    if (place_ != Place::kTensor) return true;
    if (key_ != "dtype" && key_ != "shape" && key_ != "data_offsets")
      return fail(fmt::format("expected the keys dtype, shape and data_offsets, got {}",
                              describe_json(key_)));
    const bool seen = key_ == "dtype" ? has_dtype_ : key_ == "shape" ? has_shape_ : has_offsets_;
    return !seen || fail(fmt::format("expected each key once, got {} twice", key_));
  }

  bool start_array(size_t) override {
    numbers_.clear();
    if (place_ != Place::kTensor || key_ == "dtype") return value("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    const bool is_shape = place_ == Place::kShape;
    place_ = Place::kTensor;
    return is_shape ? take_shape() : take_offsets();
  }

  bool end_object() override {
    if (place_ == Place::kTop) return true;
    const bool was_tensor = place_ == Place::kTensor;
    place_ = Place::kTop;
    return !was_tensor || finish_tensor();
  }

  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    error_byte_ = position == 0 ? 0 : position - 1;
    return false;
  }

  const std::string& failure() const { return failure_; }
  size_t error_byte() const { return error_byte_; }
  std::vector<SafetensorsEntry>& entries() { return entries_; }
  std::vector<std::pair<std::string, std::string>>& metadata() { return metadata_; }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool fail(const std::string& message) {
    failure_ = place_ == Place::kStart      ? message
               : place_ == Place::kMetadata ? "__metadata__: " + message
                                            : fmt::format("tensor {}: {}", shown_name(), message);
    return false;
  }

  std::string shown_name() const {
    return name_.size() <= 200 ? name_ : name_.substr(0, 200) + "...";
  }

  // A value where none of its kind belongs.
  bool value(const std::string& got) {
    switch (place_) {
      case Place::kStart:
        return fail(fmt::format("expected a JSON object as header, got {}", got));
      case Place::kTop:
        if (key_ == "__metadata__") {
          place_ = Place::kMetadata;
          return fail(fmt::format("expected a map of strings, got {}", got));
        }
        return fail(fmt::format("expected an object, got {}", got));
      case Place::kMetadata:
        return fail(fmt::format("{}: expected a string, got {}", key_, got));
      case Place::kTensor:
        return fail(fmt::format("{}: expected {}, got {}", key_,
                                key_ == "dtype" ? "a string" : "a list of integers", got));
      case Place::kShape:
      case Place::kOffsets:
        return fail(fmt::format("{}: expected only integers of 0 or more, got {}", key_, got));
    }
    return false;
  }

  void begin_tensor() {
    entry_ = SafetensorsEntry{};
    has_dtype_ = has_shape_ = has_offsets_ = false;
  }

  bool take_shape() {
    if (numbers_.size() > core::kMaxRank)
      return fail(fmt::format("shape: expected at most {} dimensions, got more", core::kMaxRank));
    std::vector<int64_t> dims;
    for (const uint64_t number : numbers_) {
      if (number > uint64_t{1} << 48)
        return fail(fmt::format("shape: expected dimensions up to 2^48, got {}", number));
      dims.push_back(static_cast<int64_t>(number));
    }
    entry_.shape = core::Shape(std::span<const int64_t>(dims));
    has_shape_ = true;
    return true;
  }

  bool take_offsets() {
    if (numbers_.size() != 2)
      return fail(fmt::format("data_offsets: expected two integers, got {}{}", numbers_.size(),
                              numbers_.size() > core::kMaxRank ? " or more" : ""));
    entry_.begin = numbers_[0];
    entry_.end = numbers_[1];
    has_offsets_ = true;
    return true;
  }

  bool finish_tensor() {
    const char* missing = !has_dtype_     ? "dtype"
                          : !has_shape_   ? "shape"
                          : !has_offsets_ ? "data_offsets"
                                          : nullptr;
    if (missing != nullptr) {
      place_ = Place::kTensor;
      return fail(fmt::format("expected the key {}, got none", missing));
    }
    entry_.name = name_;
    entries_.push_back(std::move(entry_));
    if (entries_.size() > kMaxTensors) {
      place_ = Place::kStart;
      return fail(fmt::format("expected at most {} tensors, got more", kMaxTensors));
    }
    return true;
  }

  Place place_ = Place::kStart;
  std::string key_;
  std::string name_;
  SafetensorsEntry entry_;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
  std::vector<uint64_t> numbers_;
  std::vector<SafetensorsEntry> entries_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::string failure_;
  size_t error_byte_ = 0;
};

// Bytes that dtype and shape ask for; nothing when the product overflows.
std::optional<uint64_t> needed_bytes(const SafetensorsEntry& entry) {
  uint64_t bytes = core::dtype_bytes(entry.dtype);
  for (size_t i = 0; i < entry.shape.rank(); ++i)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(entry.shape[i]), &bytes))
      return std::nullopt;
  if (bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return bytes;
}

base::Status check_entry(const SafetensorsEntry& entry, uint64_t payload_bytes,
                         const std::string& where) {
  if (entry.begin > entry.end)
    return base::invalid("{}: tensor {}: data_offsets: expected begin <= end, got [{}, {}]", where,
                         entry.name, entry.begin, entry.end);
  if (entry.end > payload_bytes)
    return base::invalid(
        "{}: tensor {}: data_offsets: expected an end within the {} bytes of payload, got {}; the "
        "file is truncated or its header is wrong",
        where, entry.name, payload_bytes, entry.end);
  const auto needed = needed_bytes(entry);
  if (!needed)
    return base::invalid("{}: tensor {}: shape: expected a size below 2^63 bytes, got {}", where,
                         entry.name, core::to_string(entry.shape));
  if (*needed != entry.end - entry.begin)
    return base::invalid("{}: tensor {}: expected {} bytes for {} {}, got data_offsets of {} bytes",
                         where, entry.name, *needed, core::dtype_name(entry.dtype),
                         core::to_string(entry.shape), entry.end - entry.begin);
  return {};
}

base::Status check_unique_names(const std::vector<SafetensorsEntry>& entries,
                                const std::string& where) {
  std::vector<std::string_view> names;
  for (const SafetensorsEntry& entry : entries) names.push_back(entry.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end())
    return base::invalid("{}: tensor {}: expected each name once, got it twice", where, *twice);
  return {};
}

// Sorts by place and checks that the tensors follow each other and fill the payload.
base::Status check_contiguous(std::vector<SafetensorsEntry>& entries, uint64_t payload_bytes,
                              const std::string& where) {
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t next = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != next)
      return base::invalid("{}: tensor {}: expected to begin at byte {}, got {}: the tensors {}",
                           where, entry.name, next, entry.begin,
                           entry.begin < next ? "overlap" : "leave a gap");
    next = entry.end;
  }
  if (next != payload_bytes)
    return base::invalid(
        "{}: expected the payload to end with its last tensor at byte {}, got {} "
        "more bytes",
        where, next, payload_bytes - next);
  return {};
}

}  // namespace

base::Result<SafetensorsHeader> parse_safetensors_header(std::string_view header,
                                                         uint64_t payload_bytes,
                                                         const std::string& where) {
  const JsonLimits limits{.max_bytes = kMaxSafetensorsHeaderBytes,
                          .max_depth = 3,
                          .max_values = kMaxTensors * 16,
                          .max_string_bytes = size_t{1} << 20};
  const std::string where_header = where + ": header";
  header = without_trailing_space(header);
  TANDEM_RETURN_IF_ERROR(check_json_limits(header, where_header, limits));
  HeaderReader reader;
  if (!json::sax_parse(header.begin(), header.end(), &reader)) {
    if (!reader.failure().empty()) return base::invalid("{}: {}", where, reader.failure());
    return base::invalid("{}: expected valid JSON, got {}", where_header,
                         describe_broken_json(header, reader.error_byte()));
  }
  SafetensorsHeader result;
  for (auto& [key, value] : reader.metadata())
    if (!result.metadata.emplace(key, std::move(value)).second)
      return base::invalid("{}: __metadata__: expected each key once, got {} twice", where,
                           describe_json(key));
  result.entries = std::move(reader.entries());
  for (const SafetensorsEntry& entry : result.entries) {
    if (entry.name.empty() || entry.name.size() > kMaxNameBytes)
      return base::invalid("{}: expected tensor names of 1 to {} bytes, got one of {}", where,
                           kMaxNameBytes, entry.name.size());
    TANDEM_RETURN_IF_ERROR(check_entry(entry, payload_bytes, where));
  }
  TANDEM_RETURN_IF_ERROR(check_unique_names(result.entries, where));
  TANDEM_RETURN_IF_ERROR(check_contiguous(result.entries, payload_bytes, where));
  return result;
}

}  // namespace tandem::io
