// /v1/completions: prompts as text or ids, one or many.
#include <nlohmann/json.hpp>

#include "io/json.h"
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
    add(encode_text(text.get_ref<const std::string&>(), model_, add_special_tokens_),
        text.get_ref<const std::string&>());
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
    add(std::move(ids), std::move(text));
  }

  void add(std::vector<int32_t> ids, std::string text) {
    request_.prompts.push_back(std::move(ids));
    if (echo_) request_.prompt_texts.push_back(std::move(text));
  }

  Fields& fields_;
  const ServedModel& model_;
  bool add_special_tokens_;
  bool echo_;
  CompletionRequest& request_;
};

}  // namespace

ApiResult<CompletionRequest> parse_completion(std::string_view body, const ServedModel& model) {
  auto parsed = parse_body(body);
  if (!parsed) return tl::unexpected<ApiError>(std::move(parsed.error()));
  Fields fields(*parsed);
  if (auto error = check_model(fields, model)) return tl::unexpected<ApiError>(*error);
  CompletionRequest request;
  request.params = read_params(fields, model);
  request.params.max_tokens = request.params.max_tokens.value_or(kDefaultMaxTokens);
  const auto logprobs = fields.integer("logprobs", 0, 20);
  if (logprobs) request.params.sampling.num_logprobs = static_cast<int32_t>(*logprobs);
  request.echo = fields.boolean("echo").value_or(false);
  if (request.echo && logprobs)
    fields.fail("echo",
                "log-probabilities of the prompt are not available; leave out one of "
                "echo and logprobs");
  const bool add_special_tokens = fields.boolean("add_special_tokens").value_or(true);
  const json* prompt = fields.any("prompt");
  if (auto error = fields.finish()) return tl::unexpected<ApiError>(*error);
  if (prompt == nullptr)
    return api_error(400, "prompt: expected a string or token ids, got none", "prompt");
  PromptReader(fields, model, add_special_tokens, request.echo, request).read(*prompt);
  if (fields.error()) return tl::unexpected<ApiError>(*fields.error());
  for (const auto& ids : request.prompts)
    if (auto error = check_prompt(ids, model, request.params.max_tokens))
      return tl::unexpected<ApiError>(*error);
  return request;
}

}  // namespace tandem::server
