// Requests of /v1/responses.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "server/request.h"
#include "server/response_store.h"

namespace tandem::server {

struct ResponsesRequest {
  ChatRequest chat;
  // What the reply repeats of the request, in the order of OpenAI's object.
  std::shared_ptr<nlohmann::ordered_json> reply;
  std::shared_ptr<nlohmann::ordered_json> input;  // items; those of earlier responses first
  bool store = false;
};

// `store` is asked for previous_response_id.
ApiResult<ResponsesRequest> parse_responses(std::string_view body, const ServedModel& model,
                                            ResponseStore& store);

// The items of a conversation as messages of a chat; mistakes are told of `fields`. The first
// `num_earlier` are no part of this request's input.
void add_item_messages(Fields& fields, const nlohmann::ordered_json& items, size_t num_earlier,
                       nlohmann::ordered_json& messages);

}  // namespace tandem::server
