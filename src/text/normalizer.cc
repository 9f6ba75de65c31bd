#include "text/normalizer.h"

#include <utility>

#include "base/check.h"

namespace tandem::text {

std::string replace_all(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t copied = 0;
  for (size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, copied)) {
    out.append(text.substr(copied, at - copied)).append(content);
    copied = at + pattern.size();
  }
  return out.append(text.substr(copied));
}

void Normalizer::add_replace(std::string pattern, std::string content) {
  TANDEM_CHECK(!pattern.empty());
  steps_.push_back({std::move(pattern), std::move(content)});
}

void Normalizer::add_prepend(std::string content) {
  steps_.push_back({"", std::move(content)});
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) {
    if (!step.pattern.empty()) {
      out = replace_all(out, step.pattern, step.content);
    } else if (!out.empty()) {
      out.insert(0, step.content);
    }
  }
  return out;
}

// Conservative: one character that a step replaces and that no step from there on writes.
bool Normalizer::removes(std::string_view pattern) const {
  bool removed = false;
  for (const Step& step : steps_) {
    if (step.pattern == pattern && pattern.size() == 1) removed = true;
    if (step.content.find(pattern) != std::string::npos) removed = false;
  }
  return removed;
}

}  // namespace tandem::text
