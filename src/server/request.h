// Requests of the generating routes, checked.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/params.h"
#include "server/answer_form.h"
#include "server/api_error.h"
#include "server/fields.h"
#include "server/format.h"
#include "server/served_model.h"
#include "text/grammar/thought_budget.h"
#include "text/tool_schema.h"

namespace tandem::server {

inline constexpr size_t kMaxBodyBytes = size_t{64} << 20;
inline constexpr size_t kMaxJsonDepth = 100;
inline constexpr int64_t kMaxChoices = 128;
inline constexpr size_t kMaxPrompts = 1024;
inline constexpr size_t kMaxStopStrings = 16;
inline constexpr size_t kMaxStopBytes = 1024;  // of each: its automaton takes a hundredfold

// What chat and completions have in common.
struct GenerationParams {
  sampling::SamplingParams sampling;
  std::optional<int64_t> max_tokens;
  int64_t n = 1;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special_tokens = true;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool return_token_ids = false;
  bool tokens_as_ids = false;              // log-probabilities name tokens `token_id:42`
  std::optional<int64_t> truncate_prompt;  // most tokens of a prompt; -1: what fits
  bool truncate_right = false;             // what is left out: the end, else the beginning
  std::string request_id;                  // the client's; empty: the header's, or a random one
  bool prompt_logprobs = false;            // are shown
  bool only_prompt = false;                // max_tokens 0: nothing of the answer is shown
  bool return_draft_info = false;          // which text came from accepted drafts
  int64_t priority = 0;                    // lower ones are served first
  std::string cache_salt;                  // requests of different salts share no cached prefix
  std::optional<int> num_draft_tokens;     // K of this request; absent: the server's
  int64_t stream_interval = 1;             // tokens of a chunk, the first and last aside
  std::optional<int64_t> thinking_budget;  // most tokens of thoughts
  bool in_thought = false;                 // the prompt has begun one
  FormGrammar grammar;                     // what the answer may be; null: anything
};

struct CompletionRequest {
  GenerationParams params;
  std::vector<std::vector<int32_t>> prompts;
  std::vector<Echo> echoes;  // of each prompt; empty without echo
};

struct ChatRequest {
  GenerationParams params;
  std::vector<int32_t> prompt;
  std::shared_ptr<const text::ToolSchemas> tools;  // null: tool calls are not looked for
  bool include_reasoning = true;
};

// The JSON object of a body, with bounds on depth and count.
ApiResult<nlohmann::json> parse_body(std::string_view body);

ApiResult<CompletionRequest> parse_completion(std::string_view body, const ServedModel& model);
ApiResult<ChatRequest> parse_chat(std::string_view body, const ServedModel& model);

// The prompt of a chat as ids, for chat and /tokenize: reads messages, tools and template fields.
struct ChatPrompt {
  std::vector<int32_t> ids;
  std::shared_ptr<const text::ToolSchemas> tools;
  ToolChoice tool_choice;
  text::Thought thought = text::Thought::kNone;
};
ApiResult<ChatPrompt> encode_chat(std::string_view body, Fields& fields, const ServedModel& model);

// Fields every generating route knows.
GenerationParams read_params(Fields& fields, const ServedModel& model);
// request_extras.cc
void read_extras(Fields& fields, const ServedModel& model, GenerationParams& params);
void read_thinking_budget(Fields& fields, const text::Tokenizer& tokenizer,
                          GenerationParams& params);
// 404 for a model that is not served; absent means the one that is.
std::optional<ApiError> check_model(Fields& fields, const ServedModel& model);
// Ids that are places for images or sound, and prompts that can never fit.
std::optional<ApiError> check_prompt(const std::vector<int32_t>& ids, const ServedModel& model,
                                     std::optional<int64_t> max_tokens);
// Leaves out what the request wants left out; true when something was.
bool truncate_prompt(std::vector<int32_t>& ids, const GenerationParams& params,
                     const ServedModel& model);
// Text of a prompt as ids: special spellings stay text, <bos> goes in front.
std::vector<int32_t> encode_text(const std::string& text, const ServedModel& model,
                                 bool add_special_tokens);

}  // namespace tandem::server
