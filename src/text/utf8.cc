#include "text/utf8.h"

#include <algorithm>

#include <cstring>

namespace tandem::text {
namespace {

// What a lead byte allows: sequence length and the range of the second byte (Unicode table 3-7).
struct LeadByte {
  uint32_t length;
  uint8_t second_min;
  uint8_t second_max;
};

LeadByte classify_lead(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Scalar decode_scalar(std::string_view text, size_t position) {
  const auto byte_at = [&](size_t i) { return static_cast<uint8_t>(text[position + i]); };
  const uint8_t first = byte_at(0);
  if (first < 0x80) return {first, 1, true};
  const LeadByte lead = classify_lead(first);
  if (lead.length == 0) return {0xFFFD, 1, false};
  uint32_t value = first & (0xFFu >> (lead.length + 1));
  for (uint32_t i = 1; i < lead.length; ++i) {
    if (position + i >= text.size()) return {0xFFFD, i, false};
    const uint8_t byte = byte_at(i);
    const uint8_t low = i == 1 ? lead.second_min : uint8_t{0x80};
    const uint8_t high = i == 1 ? lead.second_max : uint8_t{0xBF};
    if (byte < low || byte > high) return {0xFFFD, i, false};
    value = value << 6 | (byte & 0x3Fu);
  }
  return {value, lead.length, true};
}

bool is_valid_utf8(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    uint64_t block = 0;
    if (position + sizeof(block) <= text.size()) {
      std::memcpy(&block, text.data() + position, sizeof(block));
      if ((block & 0x8080808080808080u) == 0) {
        position += sizeof(block);
        continue;
      }
    }
    const Utf8Scalar scalar = decode_scalar(text, position);
    if (!scalar.valid) return false;
    position += scalar.length;
  }
  return true;
}

int64_t num_characters(std::string_view text) {
  // Every byte but the continuations begins a character.
  return std::ranges::count_if(
      text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const Utf8Scalar scalar = decode_scalar(text, position);
    out += scalar.valid ? text.substr(position, scalar.length) : kReplacementCharacter;
    position += scalar.length;
  }
  return out;
}

void append_scalar(std::string& out, uint32_t scalar) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (scalar < 0x80) {
    put(scalar);
  } else if (scalar < 0x800) {
    put(0xC0 | scalar >> 6);
    put(0x80 | (scalar & 0x3F));
  } else if (scalar < 0x10000) {
    put(0xE0 | scalar >> 12);
    put(0x80 | (scalar >> 6 & 0x3F));
    put(0x80 | (scalar & 0x3F));
  } else {
    put(0xF0 | scalar >> 18);
    put(0x80 | (scalar >> 12 & 0x3F));
    put(0x80 | (scalar >> 6 & 0x3F));
    put(0x80 | (scalar & 0x3F));
  }
}

bool is_partial_scalar(std::string_view bytes) {
  if (bytes.empty() || classify_lead(static_cast<uint8_t>(bytes[0])).length == 0) return false;
  const Utf8Scalar scalar = decode_scalar(bytes, 0);
  return !scalar.valid && scalar.length == bytes.size();
}

}  // namespace tandem::text
