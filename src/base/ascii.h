// Text whose letters are those of ASCII: headers, flags, names of types.
#pragma once

#include <string>
#include <string_view>

namespace tandem::base {

// Bytes that are no such letters stay.
inline std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

}  // namespace tandem::base
