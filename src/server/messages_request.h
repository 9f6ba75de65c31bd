// Requests of /v1/messages, Anthropic's form of a chat.
#pragma once

#include <string_view>

#include "server/request.h"

namespace tandem::server {

// `/v1/messages`. Tool calls are looked for when there are tools; thinking is shown unless it is
// switched off.
ApiResult<ChatRequest> parse_messages(std::string_view body, const ServedModel& model);

// `/v1/messages/count_tokens`: the tokens the prompt would have.
ApiResult<int64_t> count_messages(std::string_view body, const ServedModel& model);

}  // namespace tandem::server
