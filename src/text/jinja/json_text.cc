// The tojson filter, formatted as Python's json.dumps does.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

std::string float_text(double number) {
  if (std::isnan(number)) return "NaN";
  if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
  return format_float(number);
}

void append_unicode_escape(std::string& out, char32_t c) {
  if (c >= 0x10000) {
    const uint32_t offset = static_cast<uint32_t>(c) - 0x10000;
    out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (offset >> 10U), 0xDC00 + (offset & 0x3FFU));
  } else {
    out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
  }
}

std::string escape(std::string_view piece, bool ensure_ascii) {
  std::string out;
  for (size_t position = 0; position < piece.size();) {
    const size_t begin = position;
    const char32_t c = next_code_point(piece, position);
    constexpr std::string_view kEscaped = "\"\\\n\r\t\b\f";
    constexpr std::string_view kLetters = "\"\\nrtbf";
    const size_t index = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (index != std::string_view::npos) {
      out += '\\';
      out += kLetters[index];
    } else if (c < 0x20 || (ensure_ascii && c > 0x7E)) {
      append_unicode_escape(out, c);
    } else {
      out.append(piece.substr(begin, position - begin));
    }
  }
  return out;
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Meter& meter) : style_(style), meter_(meter) {}

  Rope run(const Value& value) {
    write(value);
    return std::move(out_);
  }

 private:
  void put(std::string_view piece) { append_text(out_, piece, true, meter_); }
  void new_line() {
    if (!style_.multiline) return;
    put("\n");
    for (int i = 0; i < level_; ++i) put(style_.indent);
  }

  void write(const Value& value) {
    switch (value.kind()) {
      case Kind::kNone:
        return put("null");
      case Kind::kBool:
        return put(value.boolean() ? "true" : "false");
      case Kind::kInt:
        return put(format_integer(value.integral()));
      case Kind::kFloat:
        return put(float_text(value.number()));
      case Kind::kString:
        return write_string(value.rope());
      case Kind::kDict:
        return write_dict(value.dict());
      case Kind::kSequence:
        if (value.sequence().kind <= SequenceKind::kTuple) return write_list(value.sequence());
        break;
      default:
        break;
    }
    require_defined(value);
    throw TemplateError(
        fmt::format("Object of type {} is not JSON serializable", type_name(value)));
  }

  void write_string(const Rope& rope) {
    put("\"");
    rope.for_each_run(0, rope.size(), [&](std::string_view piece, bool trusted) {
      append_text(out_, escape(piece, style_.ensure_ascii), trusted, meter_);
    });
    put("\"");
  }

  void write_list(const Sequence& list) {
    if (list.items.empty()) return put("[]");
    put("[");
    ++level_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) append_text(out_, style_.item_separator, meter_);
      new_line();
      write(list.items[i]);
    }
    --level_;
    new_line();
    put("]");
  }

  void write_key(const Value& key) {
    if (key.is_string()) return write_string(key.rope());
    put("\"");
    write(key);  // numbers, booleans and None become their JSON text
    put("\"");
  }

  void write_dict(const Dict& dict) {
    if (dict.entries.empty()) return put("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    entries.reserve(dict.entries.size());
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [this](const auto* a, const auto* b) {
        return compare(Op::kLess, a->first, b->first, meter_);
      });
    }
    put("{");
    ++level_;
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) append_text(out_, style_.item_separator, meter_);
      new_line();
      write_key(entries[i]->first);
      append_text(out_, style_.key_separator, meter_);
      write(entries[i]->second);
    }
    --level_;
    new_line();
    put("}");
  }

  const JsonStyle& style_;
  Meter& meter_;
  Rope out_;
  int level_ = 0;
};

}  // namespace

Rope to_json_text(const Value& value, const JsonStyle& style, Meter& meter) {
  return JsonWriter(style, meter).run(value);
}

}  // namespace tandem::text::jinja
