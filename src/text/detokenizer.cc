#include "text/detokenizer.h"

#include "text/utf8.h"

namespace tandem::text {

std::string Detokenizer::push(std::span<const int32_t> ids) {
  std::string out;
  for (const int32_t id : ids) {
    num_broken_ = 0;
    if (skip_special_tokens_ && tokenizer_->is_special(id)) continue;
    const int byte = tokenizer_->byte_value(id);
    if (byte >= 0) {
      push_byte(static_cast<uint8_t>(byte), out);
      continue;
    }
    if (tokenizer_->id_to_token(id).empty()) continue;
    num_broken_ = num_pending_;
    flush(out);
    out += tokenizer_->piece(id);
  }
  return out;
}

std::string Detokenizer::finish() {
  std::string out;
  flush(out);
  return out;
}

void Detokenizer::push_byte(uint8_t byte, std::string& out) {
  pending_[num_pending_++] = static_cast<char>(byte);
  std::string_view pending(pending_.data(), num_pending_);
  if (!is_partial_scalar(pending) && !decode_scalar(pending, 0).valid && num_pending_ > 1) {
    // The new byte does not go on with what waits, but may start a character of its own.
    num_broken_ = --num_pending_;
    flush(out);
    pending_[num_pending_++] = static_cast<char>(byte);
    pending = std::string_view(pending_.data(), num_pending_);
  }
  if (is_partial_scalar(pending)) return;
  if (decode_scalar(pending, 0).valid) {
    out += pending;
    num_pending_ = 0;
  } else {
    flush(out);
  }
}

void Detokenizer::flush(std::string& out) {
  for (; num_pending_ > 0; --num_pending_) out += kReplacementCharacter;
}

}  // namespace tandem::text
