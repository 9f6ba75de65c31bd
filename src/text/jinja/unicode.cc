#include "text/jinja/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

#include "text/jinja/case_table.h"
#include "text/utf8.h"

namespace tandem::text::jinja {
namespace {

utf8proc_int32_t as_utf8proc(char32_t code_point) {
  return static_cast<utf8proc_int32_t>(code_point);
}

const SpecialCase* find_special_case(char32_t code_point) {
  const auto* entry =
      std::lower_bound(std::begin(kSpecialCases), std::end(kSpecialCases), code_point,
                       [](const SpecialCase& a, char32_t wanted) { return a.code_point < wanted; });
  return entry != std::end(kSpecialCases) && entry->code_point == code_point ? entry : nullptr;
}

void append_all(std::string& out, const std::array<char32_t, 3>& code_points) {
  for (const char32_t code_point : code_points) {
    if (code_point != 0) append_scalar(out, code_point);
  }
}

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

}  // namespace

char32_t next_code_point(std::string_view text, size_t& position) {
  const auto lead = static_cast<unsigned char>(text[position++]);
  if (lead < 0x80) return lead;
  char32_t code_point = lead >= 0xF0 ? lead & 0x07U : lead >= 0xE0 ? lead & 0x0FU : lead & 0x1FU;
  while (position < text.size() && is_continuation(text[position])) {
    code_point = (code_point << 6U) | (static_cast<unsigned char>(text[position++]) & 0x3FU);
  }
  return code_point;
}

size_t count_code_points(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char byte) { return !is_continuation(byte); }));
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t position = 0;
  for (; position < text.size(); ++position) {
    if (!is_continuation(text[position]) && index-- == 0) return position;
  }
  return position;
}

bool is_space(char32_t c) {
  if (c < 0x80) return (c >= 9 && c <= 13) || (c >= 28 && c <= 32);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_printable(char32_t c) {
  if (c < 0x7F) return c >= 0x20;
  switch (utf8proc_category(as_utf8proc(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

bool is_upper(char32_t c) {
  return utf8proc_category(as_utf8proc(c)) == UTF8PROC_CATEGORY_LU ||
         (utf8proc_tolower(as_utf8proc(c)) != as_utf8proc(c) &&
          utf8proc_category(as_utf8proc(c)) != UTF8PROC_CATEGORY_LT);
}

bool is_lower(char32_t c) {
  return utf8proc_category(as_utf8proc(c)) == UTF8PROC_CATEGORY_LL ||
         (utf8proc_toupper(as_utf8proc(c)) != as_utf8proc(c) &&
          utf8proc_category(as_utf8proc(c)) != UTF8PROC_CATEGORY_LT);
}

bool is_cased(char32_t c) {
  return is_upper(c) || is_lower(c) || utf8proc_category(as_utf8proc(c)) == UTF8PROC_CATEGORY_LT;
}

bool is_case_ignorable(char32_t c) {
  constexpr char32_t kMidWord[] = {0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,
                                   0x5F4,  0x2018, 0x2019, 0x2024, 0x2027, 0xFE13,
                                   0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
  if (std::find(std::begin(kMidWord), std::end(kMidWord), c) != std::end(kMidWord)) return true;
  switch (utf8proc_category(as_utf8proc(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return false;
  }
}

void append_upper(std::string& out, char32_t c) {
  if (const SpecialCase* special = find_special_case(c)) return append_all(out, special->upper);
  append_scalar(out, static_cast<char32_t>(utf8proc_toupper(as_utf8proc(c))));
}

void append_lower(std::string& out, char32_t c) {
  if (c == 0x130) {  // capital I with dot: the one character whose lower case is two
    out.append("i");
    return append_scalar(out, 0x307);
  }
  append_scalar(out, static_cast<char32_t>(utf8proc_tolower(as_utf8proc(c))));
}

void append_title(std::string& out, char32_t c) {
  if (const SpecialCase* special = find_special_case(c)) return append_all(out, special->title);
  append_scalar(out, static_cast<char32_t>(utf8proc_totitle(as_utf8proc(c))));
}

}  // namespace tandem::text::jinja
