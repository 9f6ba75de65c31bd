// The chat template of a model folder: messages to prompt text, each piece with its origin.
#pragma once

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/segment.h"

namespace tandem::text {

struct ChatTemplateState;

// What one chat is rendered from. The JSON values must live until render returns.
struct ChatRequest {
  const nlohmann::ordered_json* messages = nullptr;         // array of OpenAI messages
  const nlohmann::ordered_json* tools = nullptr;            // array of OpenAI tools; may be absent
  const nlohmann::ordered_json* template_kwargs = nullptr;  // object: enable_thinking, ...
  bool add_generation_prompt = true;
  // The last message is left open for the model to go on with; excludes add_generation_prompt.
  bool continue_final_message = false;
  std::optional<std::time_t> now;  // for strftime_now; the clock's when absent
};

// Immutable; copies share the template. Safe to use from many threads at once.
class ChatTemplate {
 public:
  // chat_template.jinja, else `chat_template` in tokenizer_config.json (one text, or a list of
  // named ones). Its bos_token, eos_token and other *_token entries become trusted variables.
  static base::Result<ChatTemplate> load_for_model(const std::filesystem::path& model_dir);
  // A template without a folder; `name` is how messages call it. It sees the family's special
  // tokens (<bos>, <eos>, <pad>, <unk>).
  static base::Result<ChatTemplate> parse(std::string_view source, std::string name);

  // Text out of messages, tools and kwargs is untrusted; what the template writes is trusted.
  base::Result<std::vector<TextSegment>> render(const ChatRequest& request) const;

 private:
  explicit ChatTemplate(std::shared_ptr<const ChatTemplateState> state)
      : state_(std::move(state)) {}

  std::shared_ptr<const ChatTemplateState> state_;
};

// Refuses names that a request sets elsewhere; `where` begins the error.
base::Status check_template_kwargs(const nlohmann::ordered_json& kwargs, std::string_view where);

// Whether the kwargs switch thinking on: all that a template takes for true does, 1 and "yes" too.
bool thinking_is_on(const nlohmann::ordered_json& kwargs);

// The text of all segments.
std::string join_segments(const std::vector<TextSegment>& segments);

}  // namespace tandem::text
