// A string that remembers, for every byte, whether the template or a user wrote it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::text::jinja {

class Rope {
 public:
  Rope() = default;
  Rope(std::string text, bool trusted) : text_(std::move(text)), first_trusted_(trusted) {}

  const std::string& text() const { return text_; }
  size_t size() const { return text_.size(); }
  bool empty() const { return text_.empty(); }
  bool trusted_at(size_t position) const;

  void append(std::string_view piece, bool trusted);
  void append(const Rope& other) { append(other, 0, other.size()); }
  // Appends bytes [begin, end) of other.
  void append(const Rope& other, size_t begin, size_t end);
  Rope slice(size_t begin, size_t end) const;

  // Calls visit(piece, trusted) for every maximal run of equal trust inside [begin, end).
  template <typename Visit>
  void for_each_run(size_t begin, size_t end, Visit visit) const {
    bool trusted = first_trusted_;
    size_t run_begin = 0;
    for (size_t i = 0; i <= cuts_.size() && run_begin < end; ++i, trusted = !trusted) {
      const size_t run_end = i < cuts_.size() ? cuts_[i] : text_.size();
      const size_t from = run_begin > begin ? run_begin : begin;
      const size_t to = run_end < end ? run_end : end;
      if (from < to) visit(std::string_view(text_).substr(from, to - from), trusted);
      run_begin = run_end;
    }
  }

 private:
  std::string text_;
  bool first_trusted_ = true;
  std::vector<size_t> cuts_;  // ascending byte offsets where trust flips
};

}  // namespace tandem::text::jinja
