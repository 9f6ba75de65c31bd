#include "server/request.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "io/json.h"

namespace tandem::server {
namespace {

using nlohmann::json;

constexpr size_t kMaxJsonValues = 1'000'000;
constexpr size_t kMaxIds = 100'000;
constexpr size_t kMaxSaltBytes = 1024;
constexpr int64_t kMaxTokens = int64_t{1} << 40;

void read_logit_bias(Fields& fields, sampling::SamplingParams& params) {
  const json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  if (bias->size() > kMaxIds)
    return fields.fail("logit_bias", fmt::format("expected at most {} entries", kMaxIds));
  for (const auto& [key, value] : bias->items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || !value.is_number())
      return fields.fail("logit_bias", "expected token ids and numbers such as {\"42\": -100}");
    params.logit_bias.emplace_back(id, static_cast<float>(value.get<double>()));
  }
}

void read_sampling(Fields& fields, const ServedModel& model, sampling::SamplingParams& params) {
  constexpr double kAny = 1e30;
  params.temperature = fields.number("temperature", 0, kAny).value_or(params.temperature);
  params.top_p = fields.number("top_p", 0, 1).value_or(params.top_p);
  params.top_k = fields.integer("top_k", -1, INT32_MAX).value_or(params.top_k);
  params.min_p = fields.number("min_p", 0, 1).value_or(params.min_p);
  params.presence_penalty =
      fields.number("presence_penalty", -2, 2).value_or(params.presence_penalty);
  params.frequency_penalty =
      fields.number("frequency_penalty", -2, 2).value_or(params.frequency_penalty);
  params.repetition_penalty =
      fields.number("repetition_penalty", 0, kAny).value_or(params.repetition_penalty);
  params.min_tokens = fields.integer("min_tokens", 0, kMaxTokens).value_or(0);
  params.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  params.stop_token_ids = fields.ids("stop_token_ids", model.vocab_size, kMaxIds);
  params.allowed_token_ids = fields.ids("allowed_token_ids", model.vocab_size, kMaxIds);
  const auto seed = fields.integer("seed", INT64_MIN, INT64_MAX);
  if (seed) params.seed = static_cast<uint64_t>(*seed);
  read_logit_bias(fields, params);
  if (fields.error()) return;
  const base::Status status = sampling::validate(params, model.vocab_size);
  if (status) return;
  const ApiError error = from_error(status.error());
  const std::string& message = error.message;
  const size_t colon = message.find(": ");
  fields.fail(error.param.value_or("sampling"),
              colon == std::string::npos ? message : message.substr(colon + 2));
}

void read_stream(Fields& fields, GenerationParams& params) {
  params.stream = fields.boolean("stream").value_or(false);
  const json* options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!params.stream)
    return fields.fail("stream_options", "expected none without \"stream\": true");
  Fields inner(*options, "stream_options");
  params.include_usage = inner.boolean("include_usage").value_or(false);
  params.continuous_usage = inner.boolean("continuous_usage_stats").value_or(false);
  inner.ignore({"include_obfuscation"});
  const auto error = inner.finish();
  if (!error) return;
  const size_t dot = error->message.find('.');
  fields.fail("stream_options",
              dot == std::string::npos ? error->message : error->message.substr(dot + 1));
}

void read_prompt_logprobs(Fields& fields, GenerationParams& params) {
  const auto count = fields.integer("prompt_logprobs", 0, 20);
  if (!count) return;
  if (params.stream) return fields.fail("prompt_logprobs", "expected none with \"stream\": true");
  params.sampling.num_prompt_logprobs = static_cast<int32_t>(*count);
  params.prompt_logprobs = true;
}

void read_priority(Fields& fields, const ServedModel& model, GenerationParams& params) {
  params.priority = fields.integer("priority", INT32_MIN, INT32_MAX).value_or(0);
  if (params.priority != 0 && !model.priorities)
    fields.fail("priority", "expected 0; others count with --scheduling-policy priority alone");
}

void read_cache_salt(Fields& fields, GenerationParams& params) {
  const auto salt = fields.string("cache_salt", kMaxSaltBytes);
  if (!salt) return;
  if (salt->empty()) return fields.fail("cache_salt", "expected some text, got an empty string");
  params.cache_salt = *salt;
}

void read_truncation(Fields& fields, GenerationParams& params) {
  params.truncate_prompt = fields.integer("truncate_prompt_tokens", -1, kMaxTokens);
  if (params.truncate_prompt == 0)
    fields.fail("truncate_prompt_tokens", "expected at least 1, or -1 for what fits, got 0");
  const std::string side = fields.string("truncation_side", 16).value_or("left");
  if (side != "left" && side != "right")
    fields.fail("truncation_side", "expected left or right, got " + io::describe_json(side));
  params.truncate_right = side == "right";
}

// What other servers take and this one does not: named, so that nobody waits for an effect.
void refuse_unsupported(Fields& fields) {
  for (const char* key :
       {"use_beam_search", "suffix", "kv_transfer_params", "prediction", "modalities", "audio"})
    fields.refuse(key, "leave it out");
  if (fields.integer("best_of", 1, 1) && fields.error()) return;
  fields.ignore({"user", "store", "metadata", "service_tier", "safety_identifier",
                 "prompt_cache_key", "prompt_cache_retention", "spaces_between_special_tokens"});
}

}  // namespace

ApiResult<json> parse_body(std::string_view body) {
  const io::JsonLimits limits{.max_bytes = kMaxBodyBytes,
                              .max_depth = kMaxJsonDepth,
                              .max_values = kMaxJsonValues,
                              .max_string_bytes = kMaxBodyBytes};
  auto parsed = io::parse_json(body, "body", limits);
  if (!parsed) return api_error(400, parsed.error().message);
  if (!parsed->is_object())
    return api_error(400, "body: expected a JSON object, got " + io::describe_json(*parsed));
  return std::move(*parsed);
}

GenerationParams read_params(Fields& fields, const ServedModel& model) {
  GenerationParams params;
  params.sampling = model.sampling;
  read_stream(fields, params);
  params.n = fields.integer("n", 1, kMaxChoices).value_or(1);
  params.stop = fields.strings("stop", kMaxStopStrings);
  for (const std::string& stop : params.stop)
    if (stop.empty() || stop.size() > kMaxStopBytes)
      fields.fail("stop", fmt::format("expected texts of 1 to {} bytes, got one of {}",
                                      kMaxStopBytes, stop.size()));
  params.include_stop = fields.boolean("include_stop_str_in_output").value_or(false);
  params.skip_special_tokens = fields.boolean("skip_special_tokens").value_or(true);
  params.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  params.return_draft_info = fields.boolean("return_draft_info").value_or(false);
  params.max_tokens = fields.integer("max_tokens", 0, kMaxTokens);
  read_priority(fields, model, params);
  read_cache_salt(fields, params);
  params.tokens_as_ids = fields.boolean("return_tokens_as_token_ids").value_or(false);
  params.request_id = fields.string("request_id", 128).value_or("");
  read_prompt_logprobs(fields, params);
  read_truncation(fields, params);
  read_extras(fields, model, params);
  read_sampling(fields, model, params.sampling);
  refuse_unsupported(fields);
  return params;
}

std::optional<ApiError> check_model(Fields& fields, const ServedModel& model) {
  const auto name = fields.string("model", 4096);
  if (fields.error()) return fields.error();
  if (!name || std::ranges::find(model.names, *name) != model.names.end()) return {};
  return ApiError{404,
                  fmt::format("model: expected {}, got {}", fmt::join(model.names, " or "),
                              io::describe_json(*name)),
                  "model", "model_not_found"};
}

std::optional<ApiError> check_prompt(const std::vector<int32_t>& ids, const ServedModel& model,
                                     std::optional<int64_t> max_tokens) {
  const auto refused = [](std::string message, std::optional<std::string> code = {}) {
    return ApiError{400, std::move(message), "prompt", std::move(code)};
  };
  if (ids.empty()) return refused("prompt: expected at least one token, got none");
  for (const int32_t id : ids) {
    if (std::ranges::find(model.modality_ids, id) == model.modality_ids.end()) continue;
    return refused(fmt::format(
        "prompt: expected text tokens, got {}, a place for an image or sound; this server reads "
        "text only",
        id));
  }
  const auto length = static_cast<int64_t>(ids.size());
  const int64_t wanted = max_tokens.value_or(1);
  if (length < model.max_request_tokens && wanted <= model.max_request_tokens - length) return {};
  const char* const limit = model.max_request_tokens < model.max_model_len
                                ? "what the KV cache holds"
                                : "the maximum context length";
  return refused(fmt::format("prompt: expected at most {} tokens with the answer ({}), got {} in "
                             "the prompt and {} for the answer",
                             model.max_request_tokens, limit, length, wanted),
                 "context_length_exceeded");
}

bool truncate_prompt(std::vector<int32_t>& ids, const GenerationParams& params,
                     const ServedModel& model) {
  if (!params.truncate_prompt) return false;
  const int64_t fits = model.max_request_tokens - params.max_tokens.value_or(1);
  const int64_t most = *params.truncate_prompt < 0 ? fits : *params.truncate_prompt;
  const auto length = static_cast<int64_t>(ids.size());
  if (length <= most || most < 1) return false;
  if (params.truncate_right)
    ids.resize(static_cast<size_t>(most));
  else
    ids.erase(ids.begin(), ids.end() - most);
  return true;
}

std::vector<int32_t> encode_text(const std::string& text, const ServedModel& model,
                                 bool add_special_tokens) {
  std::vector<int32_t> ids = model.tokenizer.encode(text, text::SpecialTokens::kDisabled);
  const auto bos = model.tokenizer.bos_id();
  if (!add_special_tokens || !bos) return ids;
  // A prompt that spells it out has it already.
  const std::string_view spelling = model.tokenizer.id_to_token(*bos);
  if (text.starts_with(spelling))
    ids = model.tokenizer.encode(text.substr(spelling.size()), text::SpecialTokens::kDisabled);
  ids.insert(ids.begin(), *bos);
  return ids;
}

}  // namespace tandem::server
