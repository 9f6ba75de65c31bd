// What one event of an answer's stream holds, for chat and completions alike.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::bench {

struct StreamEvent {
  bool has_content = false;  // text, reasoning, a tool call, token ids, or a reason to end
  bool done = false;         // [DONE]
  std::string text;
  std::vector<int32_t> token_ids;
  std::string error;  // the server gave up
  std::optional<int64_t> num_prompt_tokens;
  std::optional<int64_t> num_output_tokens;
};

// `data` of one event. What is no JSON is an error in the event.
StreamEvent read_event(std::string_view data);

// "message" of an error reply, or the beginning of the body.
std::string error_message(std::string_view body);

}  // namespace tandem::bench
