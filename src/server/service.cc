#include "server/service.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <random>

#include "base/ascii.h"
#include "base/log.h"
#include "server/api_error.h"
#include "server/json_text.h"
#include "server/messages_format.h"
#include "server/messages_request.h"
#include "server/responses_format.h"
#include "server/responses_request.h"

namespace tandem::server {
namespace {

constexpr std::string_view kBearer = "bearer ";
constexpr std::string_view kResponses = "/v1/responses/";
constexpr std::string_view kCancel = "/cancel";
constexpr size_t kMaxIdBytes = 128;
constexpr size_t kMaxLoggedField = 40;

GenerationJob chat_job(ChatRequest request, std::unique_ptr<ReplyFormat> format, std::string id) {
  GenerationJob job{.format = std::move(format),
                    .chat = true,
                    .params = std::move(request.params),
                    .tools = std::move(request.tools),
                    .include_reasoning = request.include_reasoning,
                    .request_id = std::move(id)};
  job.prompts.push_back(std::move(request.prompt));
  return job;
}

// The field that is wrong, for the log. Names may be the client's own words: only what looks like
// one.
std::string reason(const Reply& reply) {
  const std::string& field = reply.field;
  const bool is_name =
      !field.empty() && field.size() <= kMaxLoggedField && std::ranges::all_of(field, [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '_' || c == '.' ||
               c == '[' || c == ']';
      });
  return is_name ? " for " + field : std::string();
}

std::string chosen_id(const HttpRequest& request, const GenerationParams& params) {
  const std::string_view header = request.header("x-request-id");
  return request_id(params.request_id.empty() ? header : std::string_view(params.request_id));
}

// Whether a query has stream=true among its fields.
bool asks_for_stream(std::string_view query) {
  const std::string fields = fmt::format("&{}&", query);
  return fields.find("&stream=true&") != std::string::npos;
}

// In the form that clients of the route know.
Reply error_reply_for(const HttpRequest& request, const ApiError& error) {
  const bool anthropic = request.path.starts_with("/v1/messages");
  return anthropic ? messages_error_reply(error) : error_reply(error);
}

}  // namespace

struct Service::Route {
  std::string_view path;
  std::vector<std::string_view> methods;
  Reply (Service::*handler)(const HttpRequest&);
};

const std::vector<Service::Route>& Service::routes() {
  static const std::vector<Route> kRoutes = {
      {"/health", {"GET"}, &Service::health},
      {"/ping", {"GET", "POST"}, &Service::health},
      {"/version", {"GET"}, &Service::version},
      {"/load", {"GET"}, &Service::load},
      {"/openapi.json", {"GET"}, &Service::openapi},
      {"/metrics", {"GET"}, &Service::metrics},
      {"/v1/models", {"GET"}, &Service::models},
      {"/tokenize", {"POST"}, &Service::tokenize},
      {"/detokenize", {"POST"}, &Service::detokenize},
      {"/invocations", {"POST"}, &Service::invocations},
      {"/v1/completions", {"POST"}, &Service::completions},
      {"/v1/chat/completions", {"POST"}, &Service::chat_completions},
      {"/v1/messages", {"POST"}, &Service::messages},
      {"/v1/messages/count_tokens", {"POST"}, &Service::count_tokens},
      {"/v1/responses", {"POST"}, &Service::responses},
      {"/v1/responses/{id}", {"GET", "DELETE"}, &Service::stored_response},
      {"/v1/responses/{id}/cancel", {"POST"}, &Service::stored_response},
  };
  return kRoutes;
}

const Service::Route* Service::find_route(std::string_view path) {
  if (path.starts_with("/v1/models/")) path = "/v1/models";
  if (path.starts_with(kResponses))
    path = path.substr(kResponses.size()).ends_with(kCancel) ? "/v1/responses/{id}/cancel"
                                                             : "/v1/responses/{id}";
  for (const Route& route : routes())
    if (route.path == path) return &route;
  return nullptr;
}

bool matches_key(std::string_view given, const std::vector<std::string>& keys) {
  bool found = false;
  for (const std::string& key : keys) {
    // Every byte of the key is compared, whatever the length of what is given.
    auto difference = static_cast<unsigned>(key.size() != given.size());
    for (size_t i = 0; i < key.size(); ++i) {
      const char other = given.empty() ? '\0' : given[i % given.size()];
      difference |= static_cast<unsigned>(static_cast<unsigned char>(key[i]) ^
                                          static_cast<unsigned char>(other));
    }
    found |= difference == 0;
  }
  return found;
}

std::string request_id(std::string_view header) {
  const bool good =
      !header.empty() && header.size() <= kMaxIdBytes && std::ranges::all_of(header, [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
               c == '-' || c == '_' || c == '.';
      });
  if (good) return std::string(header);
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq seeds{device(), device(), device(), device()};
    return std::mt19937_64(seeds);
  }();
  return fmt::format("{:016x}{:016x}", generator(), generator());
}

Service::Service(const ServerParts& parts, ServiceOptions options)
    : parts_(parts), options_(std::move(options)), store_(options_.response_store_bytes) {}

bool Service::authorized(const HttpRequest& request) const {
  if (options_.api_keys.empty() || request.path == "/health") return true;
  const std::string_view header = request.header("authorization");
  if (base::lower_case(header.substr(0, kBearer.size())) == kBearer)
    return matches_key(header.substr(kBearer.size()), options_.api_keys);
  // How Anthropic's clients send it.
  return matches_key(request.header("x-api-key"), options_.api_keys);
}

Reply Service::handle(const HttpRequest& request) {
  Reply reply = dispatch(request);
  if (reply.source) return reply;
  const bool logs = parts_.model.log_requests && reply.head.status >= 400;
  if (!logs && !options_.request_id_headers) return reply;
  const std::string id = request_id(request.header("x-request-id"));
  if (logs) base::log_info("request {}: refused with {}{}", id, reply.head.status, reason(reply));
  if (options_.request_id_headers) reply.head.headers.emplace_back("X-Request-Id", id);
  return reply;
}

std::optional<Reply> Service::refuse_head(const HttpRequest& request) {
  if (authorized(request)) return std::nullopt;
  parts_.metrics.add_refusal("unauthorized");
  return error_reply_for(
      request,
      {401, "Authorization: expected \"Bearer KEY\" with a valid key", {}, "invalid_api_key"});
}

Reply Service::dispatch(const HttpRequest& request) {
  if (std::optional<Reply> refusal = refuse_head(request)) return std::move(*refusal);
  const Route* route = find_route(request.path);
  if (route == nullptr)
    return error_reply_for(request, {404, "path: expected a known route; GET /v1/models is one"});
  if (std::ranges::find(route->methods, request.method) == route->methods.end()) {
    Reply reply = error_reply_for(request, {405, fmt::format("{}: expected {}", route->path,
                                                             fmt::join(route->methods, " or "))});
    reply.head.headers.emplace_back("Allow", fmt::format("{}", fmt::join(route->methods, ", ")));
    return reply;
  }
  if (request.method == "POST" && route->path != "/ping") {
    const std::string encoding = base::lower_case(request.header("content-encoding"));
    if (!encoding.empty() && encoding != "identity")
      return error_reply_for(request, {415, "Content-Encoding: expected none"});
    // Web pages of others can send anything but JSON without asking first.
    const std::string type = base::lower_case(request.header("content-type"));
    if (!type.empty() && !type.starts_with("application/json"))
      return error_reply_for(request, {415, "Content-Type: expected \"application/json\""});
  }
  return (this->*route->handler)(request);
}

Reply Service::refuse(int status, const std::string& message) {
  return error_reply({status, message});
}

void Service::count(const HttpRequest& request, int status, double seconds) {
  // Only known names become labels: a stranger's paths would fill the memory.
  const Route* route = find_route(request.path);
  const bool known =
      route != nullptr && std::ranges::find(route->methods, request.method) != route->methods.end();
  parts_.metrics.add_http(known ? request.method : "other",
                          route != nullptr ? std::string(route->path) : "other", status, seconds);
}

Reply Service::refused(const ApiError& error, const HttpRequest& request) {
  parts_.metrics.add_refusal(error.status == 429   ? "queue_full"
                             : error.status == 503 ? "draining"
                                                   : "invalid");
  return error_reply_for(request, error);
}

ApiResult<Admission> Service::enter() {
  if (draining_.load()) return api_error(503, "the server is shutting down");
  auto admission = parts_.engine.admit(1);
  if (admission) return std::move(*admission);
  return api_error(429, fmt::format("queue: expected fewer than {} requests at once; try again",
                                    parts_.engine.options().max_requests));
}

Reply Service::generate(GenerationJob job, Admission first, const HttpRequest& request) {
  const int64_t num_choices = static_cast<int64_t>(job.prompts.size()) * job.params.n;
  const int64_t most = parts_.engine.options().max_requests;
  if (num_choices > most)
    return refused(
        {400, fmt::format("n: expected at most {} answers at once, got {}", most, num_choices),
         "n"},
        request);
  for (const auto& prompt : job.prompts) {
    const int64_t room = parts_.model.max_request_tokens - static_cast<int64_t>(prompt.size());
    const int64_t max_tokens = job.params.max_tokens.value_or(room);
    if (job.params.sampling.min_tokens > max_tokens)
      return refused({400,
                      fmt::format("min_tokens: expected at most {}, got {}", max_tokens,
                                  job.params.sampling.min_tokens),
                      "min_tokens"},
                     request);
  }
  std::vector<Admission> admissions;
  admissions.push_back(std::move(first));
  while (static_cast<int64_t>(admissions.size()) < num_choices) {
    auto admission = enter();
    if (!admission) return refused(admission.error(), request);
    admissions.push_back(std::move(*admission));
  }
  job.show_request_id = options_.request_id_headers;
  Reply reply;
  reply.source = std::make_shared<Generation>(parts_, std::move(job), std::move(admissions));
  return reply;
}

ReplyNames Service::names(const char* prefix, const std::string& id) const {
  return {.id = prefix + id,
          .created = static_cast<int64_t>(std::time(nullptr)),
          .model = parts_.model.names.front()};
}

ReplyExtras Service::extras(const GenerationParams& params) const {
  return {.logprobs = params.sampling.num_logprobs >= 0,
          .token_ids = params.return_token_ids,
          .tokens_as_ids = params.tokens_as_ids,
          .draft_info = params.return_draft_info,
          .prompt_logprobs = params.prompt_logprobs,
          .usage_chunk = params.include_usage,
          .usage_in_chunks = params.continuous_usage,
          .prompt_details = parts_.model.prompt_details};
}

Reply Service::completions(const HttpRequest& request) {
  auto admission = enter();
  if (!admission) return refused(admission.error(), request);
  auto parsed = parse_completion(request.body, parts_.model);
  if (!parsed) return refused(parsed.error(), request);
  std::string id = chosen_id(request, parsed->params);
  std::vector<Echo> echoes;
  for (const Echo& echo : parsed->echoes)
    echoes.insert(echoes.end(), static_cast<size_t>(parsed->params.n), echo);
  GenerationJob job{.format = make_completion_format(parts_.model.tokenizer, names("cmpl-", id),
                                                     extras(parsed->params), std::move(echoes)),
                    .params = std::move(parsed->params),
                    .prompts = std::move(parsed->prompts),
                    .request_id = std::move(id)};
  return generate(std::move(job), std::move(*admission), request);
}

Reply Service::chat_completions(const HttpRequest& request) {
  auto admission = enter();
  if (!admission) return refused(admission.error(), request);
  auto parsed = parse_chat(request.body, parts_.model);
  if (!parsed) return refused(parsed.error(), request);
  std::string id = chosen_id(request, parsed->params);
  auto format =
      make_chat_format(parts_.model.tokenizer, names("chatcmpl-", id), extras(parsed->params));
  return generate(chat_job(std::move(*parsed), std::move(format), std::move(id)),
                  std::move(*admission), request);
}

// One route for all forms, as SageMaker asks: the body tells which it is.
Reply Service::invocations(const HttpRequest& request) {
  if (const auto place = enter(); !place) return refused(place.error(), request);
  const auto body = parse_body(request.body);
  if (!body) return refused(body.error(), request);
  if (body->contains("messages")) return chat_completions(request);
  if (body->contains("prompt")) return completions(request);
  if (body->contains("input")) return responses(request);
  return refused({400, "body: expected messages, prompt or input, got none of them"}, request);
}

Reply Service::messages(const HttpRequest& request) {
  auto admission = enter();
  if (!admission) return refused(admission.error(), request);
  auto parsed = parse_messages(request.body, parts_.model);
  if (!parsed) return refused(parsed.error(), request);
  std::string id = chosen_id(request, parsed->params);
  auto format = make_messages_format(names("msg_", id));
  GenerationJob job = chat_job(std::move(*parsed), std::move(format), std::move(id));
  job.call_id_prefix = "toolu_";
  return generate(std::move(job), std::move(*admission), request);
}

Reply Service::count_tokens(const HttpRequest& request) {
  const auto count = count_messages(request.body, parts_.model);
  if (!count) return refused(count.error(), request);
  Reply reply;
  reply.body = json_text({{"input_tokens", *count}});
  return reply;
}

Reply Service::responses(const HttpRequest& request) {
  auto admission = enter();
  if (!admission) return refused(admission.error(), request);
  auto parsed = parse_responses(request.body, parts_.model, store_);
  if (!parsed) return refused(parsed.error(), request);
  // Not the client's: it must not take another response's place in the store.
  std::string id = request_id({});
  auto format = make_responses_format(names("resp_", id), parsed->reply, std::move(parsed->input),
                                      parsed->store ? &store_ : nullptr);
  return generate(chat_job(std::move(parsed->chat), std::move(format), std::move(id)),
                  std::move(*admission), request);
}

// Reads, forgets or (never) cancels a response that has been kept.
Reply Service::stored_response(const HttpRequest& request) {
  std::string_view id = std::string_view(request.path).substr(kResponses.size());
  const bool cancels = request.method == "POST";
  if (cancels) id.remove_suffix(kCancel.size());
  if (request.method == "GET" && asks_for_stream(request.query))
    return refused(
        {400, "stream: expected none, got true; a finished response is read whole", "stream"},
        request);
  const auto stored = store_.get(std::string(id));
  if (!stored)
    return refused({404, "response_id: expected a response that this server keeps", "response_id"},
                   request);
  if (cancels)
    return refused({400,
                    "response_id: expected a response in the background, got a finished one; close "
                    "the connection to cancel one that is being made",
                    "response_id"},
                   request);
  Reply reply;
  reply.body = stored->reply;
  if (request.method != "DELETE") return reply;
  store_.erase(std::string(id));
  reply.body = json_text({{"id", id}, {"object", "response"}, {"deleted", true}});
  return reply;
}

}  // namespace tandem::server
