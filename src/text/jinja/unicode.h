// What Python's str methods know about characters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::text::jinja {

// Decodes the character at position and moves past it; text must be valid UTF-8.
char32_t next_code_point(std::string_view text, size_t& position);

size_t count_code_points(std::string_view text);
// Byte offset of the index-th character; text.size() when there are fewer.
size_t byte_offset(std::string_view text, size_t index);

bool is_space(char32_t code_point);
bool is_printable(char32_t code_point);
bool is_cased(char32_t code_point);
bool is_case_ignorable(char32_t code_point);
bool is_upper(char32_t code_point);
bool is_lower(char32_t code_point);

// Full case mappings; one character may become up to three.
void append_upper(std::string& out, char32_t code_point);
void append_lower(std::string& out, char32_t code_point);
void append_title(std::string& out, char32_t code_point);

}  // namespace tandem::text::jinja
