// Replies of /v1/messages, in Anthropic's form.
#pragma once

#include <memory>
#include <string>

#include "server/format.h"

namespace tandem::server {

// The code of a refused `thread`: Anthropic's helpers look for it, and then send the whole
// conversation themselves.
inline constexpr const char* kNoThreads = "thread_unsupported_request";

// {"type": "error", "error": {"type", "message"}}
std::string messages_error_json(const ApiError& error);
Reply messages_error_reply(const ApiError& error);

std::unique_ptr<ReplyFormat> make_messages_format(ReplyNames names);

}  // namespace tandem::server
