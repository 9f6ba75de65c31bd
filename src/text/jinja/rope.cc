#include "text/jinja/rope.h"

#include <algorithm>

namespace tandem::text::jinja {

bool Rope::trusted_at(size_t position) const {
  const auto cut = std::upper_bound(cuts_.begin(), cuts_.end(), position);
  const bool flipped = ((cut - cuts_.begin()) & 1) != 0;
  return first_trusted_ != flipped;
}

void Rope::append(std::string_view piece, bool trusted) {
  if (piece.empty()) return;
  if (text_.empty()) {
    first_trusted_ = trusted;
  } else {
    const bool last_trusted = first_trusted_ != ((cuts_.size() & 1) != 0);
    if (last_trusted != trusted) cuts_.push_back(text_.size());
  }
  text_.append(piece);
}

void Rope::append(const Rope& other, size_t begin, size_t end) {
  if (other.cuts_.empty()) {
    append(std::string_view(other.text_).substr(begin, end - begin), other.first_trusted_);
    return;
  }
  other.for_each_run(begin, end,
                     [this](std::string_view piece, bool trusted) { append(piece, trusted); });
}

Rope Rope::slice(size_t begin, size_t end) const {
  Rope result;
  result.append(*this, begin, end);
  return result;
}

}  // namespace tandem::text::jinja
