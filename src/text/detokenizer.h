// Token ids to text, a few at a time.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "text/tokenizer.h"

namespace tandem::text {

// The pieces that push() and finish() return, joined, equal Tokenizer::decode of all ids. A piece
// is always whole characters: the bytes of byte tokens wait until they form one, and no longer.
// Bytes that can no longer form one become U+FFFD, one for each byte. (Hugging Face's decoder sees
// a whole run of byte tokens at once, and where one byte is bad it replaces the good characters of
// the run too; a stream cannot take those back.)
class Detokenizer {
 public:
  // The tokenizer must outlive this object. Copies are independent and cost a few bytes.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens)
      : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

  std::string push(std::span<const int32_t> ids);
  std::string push(int32_t id) { return push(std::span<const int32_t>(&id, 1)); }
  // The end of the text, or of a part that the next ids must not complete.
  std::string finish();

  // With how many U+FFFD the text of the last id begins: bytes of the ids before it that waited for
  // their character in vain.
  int num_broken() const { return num_broken_; }
  // Whether bytes are waiting for the rest of their character.
  bool has_pending() const { return num_pending_ > 0; }

 private:
  void push_byte(uint8_t byte, std::string& out);
  void flush(std::string& out);

  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  uint8_t num_pending_ = 0;
  uint8_t num_broken_ = 0;
  std::array<char, 4> pending_ = {};
};

}  // namespace tandem::text
