// A piece of a rendered prompt and where it came from.
#pragma once

#include <string>

namespace tandem::text {

// Trusted text was written by the template: special tokens in it are matched. Untrusted text came
// from message fields: the same spelling there encodes as ordinary characters.
struct TextSegment {
  std::string text;
  bool trusted = false;

  bool operator==(const TextSegment&) const = default;
};

}  // namespace tandem::text
