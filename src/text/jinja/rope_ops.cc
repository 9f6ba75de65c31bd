#include "text/jinja/rope_ops.h"

#include <algorithm>
#include <cstring>

#include "text/jinja/print.h"
#include "text/jinja/unicode.h"

namespace tandem::text::jinja {
namespace {

constexpr int64_t kFuelPerPart = 4;  // a part is an allocation or two

// Start of the character that ends at `end`.
size_t previous_character(std::string_view text, size_t end) {
  do {
    --end;
  } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U);
  return end;
}

class Stripped {
 public:
  explicit Stripped(const Rope* characters) {
    if (characters == nullptr) return;
    spaces_ = false;
    for (size_t position = 0; position < characters->size();) {
      set_.push_back(next_code_point(characters->text(), position));
    }
    std::sort(set_.begin(), set_.end());
  }
  bool operator()(char32_t c) const {
    return spaces_ ? is_space(c) : std::binary_search(set_.begin(), set_.end(), c);
  }

 private:
  bool spaces_ = true;
  std::vector<char32_t> set_;
};

std::vector<Rope> split_at_spaces(const Rope& rope, int64_t max_splits, Meter& meter) {
  std::vector<Rope> parts;
  const std::string& text = rope.text();
  size_t position = 0;
  while (true) {
    size_t begin = position;
    while (begin < text.size()) {
      size_t next = begin;
      if (!is_space(next_code_point(text, next))) break;
      begin = next;
    }
    if (begin == text.size()) return parts;
    size_t end = begin;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      end = text.size();
    }
    while (end < text.size()) {
      size_t next = end;
      if (is_space(next_code_point(text, next))) break;
      end = next;
    }
    meter.spend(kFuelPerPart);
    parts.push_back(rope.slice(begin, end));
    position = end;
  }
}

std::vector<Rope> rsplit_at_spaces(const Rope& rope, int64_t max_splits, Meter& meter) {
  std::vector<Rope> parts;
  const std::string& text = rope.text();
  size_t position = text.size();
  while (true) {
    size_t end = position;
    while (end > 0) {
      size_t next = previous_character(text, end);
      const size_t begin = next;
      if (!is_space(next_code_point(text, next))) break;
      end = begin;
    }
    if (end == 0) break;
    size_t begin = end;
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) begin = 0;
    while (begin > 0) {
      size_t next = previous_character(text, begin);
      const size_t candidate = next;
      if (is_space(next_code_point(text, next))) break;
      begin = candidate;
    }
    meter.spend(kFuelPerPart);
    parts.push_back(rope.slice(begin, end));
    position = begin;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

void require_separator(const Rope& separator) {
  if (separator.empty()) throw TemplateError("empty separator");
}

}  // namespace

size_t find_text(std::string_view text, std::string_view wanted, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* found = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t rfind_text(std::string_view text, std::string_view wanted) {
  const std::string reversed(text.rbegin(), text.rend());
  const size_t found = find_text(reversed, std::string(wanted.rbegin(), wanted.rend()));
  return found == std::string_view::npos ? found : text.size() - found - wanted.size();
}

Rope reverse_text(const Rope& rope, Meter& meter) {
  meter.spend_text(rope.size());
  meter.spend_items(rope.size() / 4);
  Rope result;
  for (size_t end = rope.size(); end > 0;) {
    const size_t begin = previous_character(rope.text(), end);
    result.append(rope, begin, end);
    end = begin;
  }
  return result;
}

Rope strip(const Rope& rope, const Rope* characters, Side side, Meter& meter) {
  meter.spend_text(rope.size());
  const Stripped stripped(characters);
  const std::string& text = rope.text();
  size_t begin = 0;
  size_t end = text.size();
  while (side != Side::kRight && begin < end) {
    size_t next = begin;
    if (!stripped(next_code_point(text, next))) break;
    begin = next;
  }
  while (side != Side::kLeft && end > begin) {
    const size_t last = previous_character(text, end);
    size_t next = last;
    if (!stripped(next_code_point(text, next))) break;
    end = last;
  }
  return begin == 0 && end == text.size() ? rope : rope.slice(begin, end);
}

std::vector<Rope> split(const Rope& rope, const Rope* separator, int64_t max_splits, Meter& meter) {
  meter.spend_text(rope.size());
  std::vector<Rope> parts;
  if (separator == nullptr) {
    parts = split_at_spaces(rope, max_splits, meter);
  } else {
    require_separator(*separator);
    size_t begin = 0;
    while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
      const size_t end = find_text(rope.text(), separator->text(), begin);
      if (end == std::string::npos) break;
      meter.spend(kFuelPerPart);
      parts.push_back(rope.slice(begin, end));
      begin = end + separator->size();
    }
    meter.spend(kFuelPerPart);
    parts.push_back(rope.slice(begin, rope.size()));
  }
  return parts;
}

std::vector<Rope> rsplit(const Rope& rope, const Rope* separator, int64_t max_splits,
                         Meter& meter) {
  meter.spend_text(rope.size());
  std::vector<Rope> parts;
  if (separator == nullptr) {
    parts = rsplit_at_spaces(rope, max_splits, meter);
  } else {
    require_separator(*separator);
    // Matches are sought from the right, in the reversed text.
    const std::string reversed(rope.text().rbegin(), rope.text().rend());
    const std::string wanted(separator->text().rbegin(), separator->text().rend());
    size_t end = rope.size();
    while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
      const size_t match = find_text(reversed, wanted, rope.size() - end);
      if (match == std::string::npos) break;
      const size_t behind = rope.size() - match;
      meter.spend(kFuelPerPart);
      parts.push_back(rope.slice(behind, end));
      end = behind - separator->size();
    }
    meter.spend(kFuelPerPart);
    parts.push_back(rope.slice(0, end));
    std::reverse(parts.begin(), parts.end());
  }
  return parts;
}

std::vector<Rope> split_lines(const Rope& rope, bool keep_ends, Meter& meter) {
  meter.spend_text(rope.size());
  std::vector<Rope> lines;
  const std::string& text = rope.text();
  size_t begin = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t end = position;
    const char32_t c = next_code_point(text, position);
    const bool ends_line = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                           c == 0x2028 || c == 0x2029;
    if (!ends_line) continue;
    if (c == '\r' && position < text.size() && text[position] == '\n') ++position;
    meter.spend(kFuelPerPart);
    lines.push_back(rope.slice(begin, keep_ends ? position : end));
    begin = position;
  }
  if (begin < text.size()) {
    meter.spend(kFuelPerPart);
    lines.push_back(rope.slice(begin, text.size()));
  }
  return lines;
}

Rope replace(const Rope& rope, const Rope& old_text, const Rope& new_text, int64_t count,
             Meter& meter) {
  meter.spend_text(rope.size());
  Rope result;
  size_t begin = 0;
  const std::string& text = rope.text();
  for (int64_t done = 0; count < 0 || done < count; ++done) {
    // An empty old text stands before every character and at the end.
    size_t match = begin;
    if (!old_text.empty()) {
      match = find_text(text, old_text.text(), begin);
    } else if (done > 0) {
      if (begin == text.size()) break;
      next_code_point(text, match);
    }
    if (match == std::string::npos) break;
    append_text(result, rope.slice(begin, match), meter);
    append_text(result, new_text, meter);
    begin = match + old_text.size();
  }
  append_text(result, rope.slice(begin, text.size()), meter);
  return result;
}

Rope join(const std::vector<const Rope*>& pieces, const Rope& separator, Meter& meter) {
  Rope result;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (i > 0) append_text(result, separator, meter);
    append_text(result, *pieces[i], meter);
  }
  return result;
}

}  // namespace tandem::text::jinja
