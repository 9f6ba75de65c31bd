#include "io/json.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "io/mapped_file.h"

namespace tandem::io {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// A value from parser events. Where its parts go is for those who build it.
template <typename Json>
class Events : public nlohmann::json_sax<Json> {
  using Sax = nlohmann::json_sax<Json>;

 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(typename Sax::number_integer_t value) override { return add(value); }
  bool number_unsigned(typename Sax::number_unsigned_t value) override { return add(value); }
  bool number_float(typename Sax::number_float_t value, const std::string&) override {
    return add(value);
  }
  bool string(std::string& value) override { return add(std::move(value)); }
  bool binary(typename Sax::binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

 protected:
  virtual Json* place(Json value) = 0;
  virtual void open_at(Json* value) = 0;
  virtual bool close() = 0;

 private:
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    open_at(place(std::move(value)));
    return true;
  }
};

// Unlike the library's own builder it refuses duplicate keys.
class Builder : public Events<json> {
 public:
  bool key(string_t& name) override {
    if (stack_.back()->contains(name)) {
      duplicate_ = std::move(name);
      return false;
    }
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t position, const std::string&, const json::exception& error) override {
    error_byte_ = position == 0 ? 0 : position - 1;
    out_of_range_ = error.id == 406;
    return false;
  }

  json take() { return std::move(root_); }
  size_t error_byte() const { return error_byte_; }
  bool out_of_range() const { return out_of_range_; }
  const std::optional<std::string>& duplicate() const { return duplicate_; }

 private:
  json* place(json value) override {
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    return &(parent[key_] = std::move(value));
  }
  void open_at(json* value) override { stack_.push_back(value); }
  bool close() override {
    stack_.pop_back();
    return true;
  }

  json root_;
  std::vector<json*> stack_;
  std::string key_;
  size_t error_byte_ = 0;
  bool out_of_range_ = false;
  std::optional<std::string> duplicate_;
};

// Keeps the order of keys. The library's own builder looks through all keys of an object for each.
class OrderedBuilder : public Events<ordered_json> {
 public:
  bool key(string_t& name) override {
    key_ = std::move(name);
    return true;
  }
  bool parse_error(size_t, const std::string&, const json::exception&) override { return false; }

  ordered_json take() { return std::move(root_); }

 private:
  using Object = ordered_json::object_t;
  struct Open {
    ordered_json* value;
    std::unordered_map<std::string, size_t> places = {};  // of an object's keys
  };

  ordered_json* place(ordered_json value) override {
    if (stack_.empty()) return &(root_ = std::move(value));
    auto& [parent, places] = stack_.back();
    if (parent->is_array()) return &parent->emplace_back(std::move(value));
    auto& members = static_cast<Object::Container&>(parent->get_ref<Object&>());
    const auto [found, is_new] = places.try_emplace(key_, members.size());
    if (!is_new) return &(members[found->second].second = std::move(value));
    return &members.emplace_back(std::move(key_), std::move(value)).second;
  }
  void open_at(ordered_json* value) override { stack_.push_back({value}); }
  bool close() override {
    stack_.pop_back();
    return true;
  }

  ordered_json root_;
  std::vector<Open> stack_;
  std::string key_;
};

std::string printable(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f)
      text += fmt::format("\\x{:02x}", byte);
    else if (c == '"' || c == '\\')
      text += std::string("\\") + c;
    else
      text += c;
  }
  return text;
}

}  // namespace

std::string_view without_trailing_space(std::string_view text) {
  size_t size = text.size();
  while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\n' || text[size - 1] == '\r' ||
                      text[size - 1] == '\t'))
    --size;
  return text.substr(0, size);
}

std::string describe_broken_json(std::string_view text, size_t byte) {
  constexpr size_t kBefore = 8;
  constexpr size_t kLength = 24;
  const size_t begin = std::min(text.size(), byte > kBefore ? byte - kBefore : 0);
  return fmt::format("broken JSON at byte {}, near \"{}\"", byte,
                     printable(text.substr(begin, kLength)));
}

base::Status check_json_limits(std::string_view text, const std::string& where,
                               const JsonLimits& limits) {
  if (text.size() > limits.max_bytes)
    return base::invalid("{}: expected at most {} bytes of JSON, got {}", where, limits.max_bytes,
                         text.size());
  size_t depth = 0;
  size_t values = 0;
  size_t token_begin = 0;  // of the string, number, word or white space under way
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (i - token_begin > limits.max_string_bytes)
      return base::invalid("{}: expected strings of at most {} bytes, got a longer one at byte {}",
                           where, limits.max_string_bytes, token_begin);
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') {
        in_string = false;
        token_begin = i;
      }
      continue;
    }
    const bool structural = c == '"' || c == '[' || c == '{' || c == ']' || c == '}' || c == ',';
    if (!structural) continue;
    token_begin = i;
    if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      ++values;
      if (++depth > limits.max_depth)
        return base::invalid("{}: expected at most {} nested levels of JSON, got more at byte {}",
                             where, limits.max_depth, i);
    } else if (c == ',') {
      ++values;
    } else {
      depth -= depth > 0 ? 1 : 0;
    }
    if (values > limits.max_values)
      return base::invalid("{}: expected at most {} JSON values, got more at byte {}", where,
                           limits.max_values, i);
  }
  return {};
}

base::Result<json> parse_json(std::string_view text, const std::string& where,
                              const JsonLimits& limits) {
  text = without_trailing_space(text);
  TANDEM_RETURN_IF_ERROR(check_json_limits(text, where, limits));
  Builder builder;
  if (json::sax_parse(text.begin(), text.end(), &builder)) return builder.take();
  if (builder.duplicate())
    return base::invalid("{}: expected each key once, got the key \"{}\" twice in one object",
                         where, printable(builder.duplicate()->substr(0, 100)));
  if (builder.out_of_range())
    return base::invalid("{}: expected numbers that fit a double, got {}", where,
                         describe_broken_json(text, builder.error_byte()));
  return base::invalid("{}: expected valid JSON, got {}", where,
                       describe_broken_json(text, builder.error_byte()));
}

std::optional<ordered_json> parse_ordered_json(std::string_view text) {
  OrderedBuilder builder;
  if (!ordered_json::sax_parse(text.begin(), text.end(), &builder)) return std::nullopt;
  return builder.take();
}

base::Result<json> read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  TANDEM_ASSIGN_OR_RETURN(const std::string text, read_whole_file(path, limits.max_bytes));
  return parse_json(text, path.string(), limits);
}

std::string describe_json(const json& value) {
  constexpr size_t kLongest = 60;
  if (value.is_array()) return fmt::format("an array of {}", value.size());
  if (value.is_object()) return fmt::format("an object of {}", value.size());
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return fmt::format("\"{}\"{}", printable(std::string_view(text).substr(0, kLongest)),
                       text.size() > kLongest ? "..." : "");
  }
  return value.dump();
}

}  // namespace tandem::io
