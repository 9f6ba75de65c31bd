// /v1/completions: prompts as text or ids, one or many.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "server/answer_form.h"
#include "server/request.h"

namespace tandem::server {
namespace {

using nlohmann::json;

constexpr int64_t kDefaultMaxTokens = 16;

class PromptReader {
 public:
  PromptReader(Fields& fields, const ServedModel& model, bool add_special_tokens, bool echo,
               CompletionRequest& request)
      : fields_(fields),
        model_(model),
        add_special_tokens_(add_special_tokens),
        echo_(echo),
        request_(request) {}

  void read(const json& prompt) {
    if (prompt.is_string()) return add_text(prompt);
    if (!prompt.is_array() || prompt.empty()) return refuse(prompt);
    if (prompt.front().is_number()) return add_ids(prompt);
    if (prompt.size() > kMaxPrompts)
      return fields_.fail(
          "prompt", fmt::format("expected at most {} prompts, got {}", kMaxPrompts, prompt.size()));
    for (const json& element : prompt) {
      if (element.is_string())
        add_text(element);
      else if (element.is_array())
        add_ids(element);
      else
        return refuse(element);
      if (fields_.error()) return;
    }
  }

 private:
  void refuse(const json& got) {
    fields_.fail("prompt",
                 "expected a string, a list of strings, a list of token ids or a list "
                 "of such lists, got " +
                     io::describe_json(got));
  }

  void add_text(const json& text) {
    const auto& string = text.get_ref<const std::string&>();
    const auto bos = model_.tokenizer.bos_id();
    const bool hides_bos =
        add_special_tokens_ && bos && !string.starts_with(model_.tokenizer.id_to_token(*bos));
    add(encode_text(string, model_, add_special_tokens_), string, hides_bos);
  }

  void add_ids(const json& list) {
    std::vector<int32_t> ids;
    for (const json& element : list) {
      const bool good =
          element.is_number_integer() &&
          (element.is_number_unsigned()
               ? element.get<uint64_t>() < static_cast<uint64_t>(model_.vocab_size)
               : element.get<int64_t>() >= 0 && element.get<int64_t>() < model_.vocab_size);
      if (!good)
        return fields_.fail(
            "prompt", fmt::format("expected token ids from 0 to {}, got {}", model_.vocab_size - 1,
                                  io::describe_json(element)));
      ids.push_back(element.get<int32_t>());
    }
    std::string text = echo_ ? model_.tokenizer.decode(ids, false) : std::string();
    add(std::move(ids), std::move(text), false);
  }

  void add(std::vector<int32_t> ids, std::string text, bool hides_bos) {
    // What is left of a text is what its tokens say.
    if (truncate_prompt(ids, request_.params, model_) && echo_) {
      text = model_.tokenizer.decode(ids, false);
      hides_bos = false;
    }
    if (echo_) request_.echoes.push_back({std::move(text), ids, hides_bos});
    request_.prompts.push_back(std::move(ids));
  }

  Fields& fields_;
  const ServedModel& model_;
  bool add_special_tokens_;
  bool echo_;
  CompletionRequest& request_;
};

// Log-probabilities of an echoed prompt come with those of the answer. A prompt may also be all
// that is wanted.
void read_lengths(Fields& fields, bool echo, GenerationParams& params) {
  sampling::SamplingParams& sampling = params.sampling;
  const auto logprobs = fields.integer("logprobs", 0, 20);
  if (logprobs) sampling.num_logprobs = static_cast<int32_t>(*logprobs);
  if (logprobs && echo)
    sampling.num_prompt_logprobs = std::max(sampling.num_prompt_logprobs, sampling.num_logprobs);
  if (!logprobs && !sampling.logprob_token_ids.empty())
    fields.fail("logprob_token_ids", "expected none without logprobs");
  params.max_tokens = params.max_tokens.value_or(kDefaultMaxTokens);
  if (*params.max_tokens > 0) return;
  if (!echo && !params.prompt_logprobs)
    fields.fail("max_tokens", "expected an integer of at least 1 without echo, got 0");
  params.only_prompt = true;
  params.max_tokens = 1;
}

}  // namespace

ApiResult<CompletionRequest> parse_completion(std::string_view body, const ServedModel& model) {
  auto parsed = parse_body(body);
  if (!parsed) return tl::unexpected<ApiError>(std::move(parsed.error()));
  Fields fields(*parsed);
  if (auto error = check_model(fields, model)) return tl::unexpected<ApiError>(*error);
  CompletionRequest request;
  request.params = read_params(fields, model);
  const bool echo = fields.boolean("echo").value_or(false);
  read_lengths(fields, echo, request.params);
  const bool add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  fields.refuse("thinking_token_budget", "thoughts belong to chats");
  auto form = read_content_form(fields, body);
  const json* prompt = fields.any("prompt");
  if (auto error = fields.finish()) return tl::unexpected<ApiError>(*error);
  if (!form) return tl::unexpected<ApiError>(std::move(form.error()));
  if (prompt == nullptr)
    return api_error(400, "prompt: expected a string or token ids, got none", "prompt");
  PromptReader(fields, model, add_special_tokens, echo, request).read(*prompt);
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  for (const auto& ids : request.prompts)
    if (auto error = check_prompt(ids, model, request.params.max_tokens))
      return tl::unexpected<ApiError>(*error);
  auto grammar = compile_form(fields, std::move(*form), nullptr, text::Thought::kNone,
                              request.params.sampling, model);
  if (!grammar) return tl::unexpected<ApiError>(std::move(grammar.error()));
  request.params.grammar = std::move(*grammar);
  return request;
}

}  // namespace tandem::server
