// UTF-8 by hand: strict (no surrogates, no overlong forms), never reads past the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::text {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

struct Utf8Scalar {
  uint32_t value = 0;
  uint32_t length = 0;  // bytes taken, at least 1; of an invalid sequence: its maximal subpart
  bool valid = false;
};

// The scalar that starts at `position`, which must be inside the text.
Utf8Scalar decode_scalar(std::string_view text, size_t position);

bool is_valid_utf8(std::string_view text);

// Of valid text.
int64_t num_characters(std::string_view text);

// Invalid sequences become one U+FFFD per maximal subpart: what a Python program would hand to a
// tokenizer after bytes.decode("utf-8", "replace").
std::string replace_invalid_utf8(std::string_view text);

void append_scalar(std::string& out, uint32_t scalar);

// True if the bytes could still become one valid scalar by adding more bytes.
bool is_partial_scalar(std::string_view bytes);

}  // namespace tandem::text
