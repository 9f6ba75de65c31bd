#include "text/jinja/print.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

class Printer {
 public:
  Printer(Rope& out, Meter& meter) : out_(out), meter_(meter) {}

  void repr(const Value& value) {
    switch (value.kind()) {
      case Kind::kUndefined:
        return put("Undefined");
      case Kind::kNone:
        return put("None");
      case Kind::kBool:
        return put(value.boolean() ? "True" : "False");
      case Kind::kInt:
        return put(format_integer(value.integral()));
      case Kind::kFloat:
        return put(format_float(value.number()));
      case Kind::kString:
        return repr_string(value.rope());
      case Kind::kSequence:
        return repr_sequence(value.sequence());
      case Kind::kDict:
        return repr_dict(value.dict());
      default:
        throw TemplateError(fmt::format("a {} cannot be printed", type_name(value)));
    }
  }

 private:
  void put(std::string_view piece) { append_text(out_, piece, true, meter_); }

  void repr_items(const Sequence& sequence) {
    for (size_t i = 0; i < sequence.size(); ++i) {
      if (i > 0) put(", ");
      repr(sequence.at(i));
    }
  }

  void repr_sequence(const Sequence& sequence) {
    switch (sequence.kind) {
      case SequenceKind::kList:
        put("[");
        repr_items(sequence);
        return put("]");
      case SequenceKind::kTuple:
        put("(");
        repr_items(sequence);
        return put(sequence.size() == 1 ? ",)" : ")");
      case SequenceKind::kRange: {
        const int64_t stop = sequence.start + sequence.step * static_cast<int64_t>(sequence.length);
        if (sequence.step == 1) return put(fmt::format("range({}, {})", sequence.start, stop));
        return put(fmt::format("range({}, {}, {})", sequence.start, stop, sequence.step));
      }
      case SequenceKind::kView:
        put(sequence.python_name);
        put("([");
        repr_items(sequence);
        return put("])");
      case SequenceKind::kGenerator:
        throw TemplateError("a generator cannot be printed; add `| list` or `| join`");
    }
  }

  void repr_dict(const Dict& dict) {
    put("{");
    bool first = true;
    for (const auto& [key, value] : dict.entries) {
      if (!first) put(", ");
      first = false;
      repr(key);
      put(": ");
      repr(value);
    }
    put("}");
  }

  void repr_string(const Rope& rope) {
    const bool has_single = rope.text().find('\'') != std::string::npos;
    const bool has_double = rope.text().find('"') != std::string::npos;
    const char quote = has_single && !has_double ? '"' : '\'';
    put(std::string_view(&quote, 1));
    rope.for_each_run(0, rope.size(), [&](std::string_view piece, bool trusted) {
      append_text(out_, escape(piece, quote), trusted, meter_);
    });
    put(std::string_view(&quote, 1));
  }

  static std::string escape(std::string_view piece, char quote) {
    std::string out;
    for (size_t position = 0; position < piece.size();) {
      const size_t begin = position;
      const char32_t c = next_code_point(piece, position);
      if (c == static_cast<char32_t>(quote) || c == '\\') {
        out += '\\';
        out += static_cast<char>(c);
      } else if (c == '\n') {
        out += "\\n";
      } else if (c == '\r') {
        out += "\\r";
      } else if (c == '\t') {
        out += "\\t";
      } else if (is_printable(c)) {
        out.append(piece.substr(begin, position - begin));
      } else if (c < 0x100) {
        out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
      } else if (c < 0x10000) {
        out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
      } else {
        out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
      }
    }
    return out;
  }

  Rope& out_;
  Meter& meter_;
};

}  // namespace

void append_text(Rope& out, std::string_view piece, bool trusted, Meter& meter) {
  meter.spend(static_cast<int64_t>(piece.size() / kBytesPerFuel) + 1);
  if (out.size() + piece.size() > kMaxTextBytes) {
    throw TemplateError("the rendered text grows past 4 MiB");
  }
  out.append(piece, trusted);
}

void append_text(Rope& out, const Rope& piece, Meter& meter) {
  meter.spend(static_cast<int64_t>(piece.size() / kBytesPerFuel) + 1);
  if (out.size() + piece.size() > kMaxTextBytes) {
    throw TemplateError("the rendered text grows past 4 MiB");
  }
  out.append(piece);
}

std::string format_integer(Int number) {
  return fmt::format("{}", number);
}

std::string format_float(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t exponent_begin = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + exponent_begin, text.data() + text.size(), exponent);
  const bool negative = text[0] == '-';
  std::string digits(text.substr(negative ? 1 : 0, e - (negative ? 1 : 0)));
  std::erase(digits, '.');
  const auto count = static_cast<int>(digits.size());
  std::string result = negative ? "-" : "";
  if (exponent < -4 || exponent >= 16) {
    result += digits[0];
    if (count > 1) result.append(".").append(digits, 1);
    return result + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0)
    return result + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) {
    return result + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  }
  const auto point = static_cast<size_t>(exponent + 1);
  return result + digits.substr(0, point) + "." + digits.substr(point);
}

RopePtr to_text(const Value& value, Meter& meter) {
  static const RopePtr kEmpty = std::make_shared<const Rope>();
  if (value.is_string()) return value.rope_ptr();
  if (value.is_undefined()) return kEmpty;
  Rope out;
  Printer(out, meter).repr(value);
  return std::make_shared<const Rope>(std::move(out));
}

}  // namespace tandem::text::jinja
