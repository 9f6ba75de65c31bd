// The text of HTTP replies.
#pragma once

#include <string>
#include <string_view>

#include "server/http_types.h"

namespace tandem::server {

enum class BodyFraming { kLength, kChunked, kUntilClose };

std::string_view reason_phrase(int status);
// %2F and its like as the bytes they stand for; what is no such thing stays.
std::string percent_decoded(std::string_view text);
// The path and query of a request's target; of the absolute form, http://HOST/PATH, which proxies
// send, as of /PATH. Empty: neither.
std::string origin_form(std::string_view target);
// Status line and headers, the empty line included.
std::string head_text(const ReplyHead& head, BodyFraming framing, size_t length, bool keep_alive);
std::string chunk_text(std::string_view data);  // data is not empty
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace tandem::server
