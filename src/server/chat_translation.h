// Other APIs' chats, brought into the body of /v1/chat/completions: that route checks the values,
// and what it learns, they know.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/fields.h"
#include "server/request.h"

namespace tandem::server {

// A chat's field and what the client calls it.
using FieldNames = std::span<const std::pair<std::string_view, std::string_view>>;

// The refusal of a chat field as one of the client's field.
ApiError renamed(ApiError error, FieldNames names);

// Copies fields that mean the same in a chat, null ones aside.
void copy_fields(Fields& fields, const nlohmann::ordered_json& body,
                 std::span<const std::string_view> names, nlohmann::ordered_json& chat);

// What vLLM's users add to any request: sampling beyond the API, and the template's arguments.
std::span<const std::string_view> common_fields();

// A string, or a list of text parts of one of the given types, as the content of a chat message.
// Other parts are refused by name. Nothing after a mistake.
nlohmann::ordered_json text_content(Fields& fields, const std::string& key,
                                    std::span<const std::string_view> part_types);
// The text of one such part.
std::string part_text(Fields& part, std::span<const std::string_view> part_types);

// `where[index]`
std::string element_path(const std::string& where, size_t index);

}  // namespace tandem::server
