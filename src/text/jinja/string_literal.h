// Escapes inside a template's string literals, as Python reads them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tandem::text::jinja {

// `body` is what stands between the quotes. Throws SyntaxError.
std::string unescape_string(std::string_view body, uint32_t line);

}  // namespace tandem::text::jinja
