// OpenAI chat messages, checked and brought into the form chat templates expect.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "base/status.h"

namespace tandem::text {

// What the template at hand can take.
struct MessageForm {
  bool content_parts = true;   // iterates over lists of parts; else their texts are joined by "\n"
  bool developer_role = true;  // knows the role developer; else it becomes system
};

// Checks every message, and:
// - parses string arguments of tool calls to mappings ("" and null become {});
// - turns plain strings in a list of parts into text parts;
// - refuses image, audio, video and file parts by name, since Tandem reads text only.
// Unknown fields are kept. Errors read `messages[2].content: expected X, got Y`.
base::Result<nlohmann::ordered_json> normalize_messages(const nlohmann::ordered_json& messages,
                                                        const MessageForm& form);

// Whether a checked message is gone on with where it is the last: an answer of the assistant
// without a word, a thought or a call is not, the model begins it.
bool is_begun(const nlohmann::ordered_json& message);

// An array of {"type": "function", "function": {"name": ...}}.
base::Status check_tools(const nlohmann::ordered_json& tools);

}  // namespace tandem::text
