#include <string>

#include "text/jinja/print.h"
#include "text/jinja/rope_ops.h"
#include "text/jinja/unicode.h"
#include "text/utf8.h"

namespace tandem::text::jinja {
namespace {

constexpr char32_t kCapitalSigma = 0x3A3;
constexpr char32_t kFinalSigma = 0x3C2;
constexpr char32_t kSigma = 0x3C3;

// Whether the sigma in [begin, end) ends a word: a letter before it and none behind.
bool is_final_sigma(std::string_view text, size_t begin, size_t end) {
  bool letter_before = false;
  for (size_t position = begin; position > 0;) {
    do {
      --position;
    } while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xC0U) == 0x80U);
    size_t next = position;
    const char32_t c = next_code_point(text, next);
    if (is_case_ignorable(c)) continue;
    letter_before = is_cased(c);
    break;
  }
  if (!letter_before) return false;
  for (size_t position = end; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (!is_case_ignorable(c)) return !is_cased(c);
  }
  return true;
}

// Appends map(out, character, begin, end) for every character, with its origin.
template <typename Map>
Rope map_characters(const Rope& rope, Meter& meter, Map map) {
  meter.spend_text(rope.size());
  meter.spend_items(rope.size() / 8);
  Rope result;
  size_t run_begin = 0;
  rope.for_each_run(0, rope.size(), [&](std::string_view piece, bool trusted) {
    std::string mapped;
    for (size_t position = 0; position < piece.size();) {
      const size_t begin = position;
      const char32_t c = next_code_point(piece, position);
      map(mapped, c, run_begin + begin, run_begin + position);
    }
    append_text(result, mapped, trusted, meter);
    run_begin += piece.size();
  });
  return result;
}

class LowerMap {
 public:
  LowerMap(const Rope& rope, Meter& meter) : rope_(rope), meter_(meter) {}
  // Characters before this byte are no context, as if the text began here.
  void start_at(size_t begin) { start_ = begin; }
  void operator()(std::string& out, char32_t c, size_t begin, size_t end) {
    if (c == kCapitalSigma) {
      meter_.spend_items(1 + rope_.size() / kBytesPerFuel);  // it looks around
      return append_scalar(out, is_final_sigma(std::string_view(rope_.text()).substr(start_),
                                               begin - start_, end - start_)
                                    ? kFinalSigma
                                    : kSigma);
    }
    append_lower(out, c);
  }

 private:
  const Rope& rope_;
  Meter& meter_;
  size_t start_ = 0;
};

}  // namespace

Rope to_upper(const Rope& rope, Meter& meter) {
  return map_characters(rope, meter,
                        [](std::string& out, char32_t c, size_t, size_t) { append_upper(out, c); });
}

Rope to_lower(const Rope& rope, Meter& meter) {
  return map_characters(rope, meter, LowerMap(rope, meter));
}

Rope capitalize(const Rope& rope, Meter& meter) {
  LowerMap lower(rope, meter);
  return map_characters(rope, meter, [&](std::string& out, char32_t c, size_t begin, size_t end) {
    if (begin == 0) return append_title(out, c);
    lower(out, c, begin, end);
  });
}

Rope title_case(const Rope& rope, Meter& meter) {
  LowerMap lower(rope, meter);
  bool in_word = false;
  return map_characters(rope, meter, [&](std::string& out, char32_t c, size_t begin, size_t end) {
    if (in_word) {
      lower(out, c, begin, end);
    } else {
      append_title(out, c);
    }
    in_word = is_cased(c);
  });
}

Rope title_words(const Rope& rope, Meter& meter) {
  LowerMap lower(rope, meter);
  bool in_word = false;
  return map_characters(rope, meter, [&](std::string& out, char32_t c, size_t begin, size_t end) {
    const bool separates = is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
    if (in_word || separates) {
      lower(out, c, begin, end);
    } else {
      append_upper(out, c);
      lower.start_at(end);
    }
    in_word = !separates;
  });
}

Rope escape_html(const Rope& rope, Meter& meter) {
  return map_characters(rope, meter, [](std::string& out, char32_t c, size_t, size_t) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        append_scalar(out, c);
    }
  });
}

}  // namespace tandem::text::jinja
