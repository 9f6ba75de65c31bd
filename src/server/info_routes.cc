// Routes that need no engine step: health, names, numbers, tokens.
#include <nlohmann/json.hpp>

#include "io/json.h"
#include "server/http_text.h"
#include "server/json_text.h"
#include "server/service.h"

namespace tandem::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMaxIds = 1'000'000;

Reply json_reply(const ordered_json& value) {
  Reply reply;
  reply.body = json_text(value);
  return reply;
}

ordered_json model_json(const ServedModel& model, const std::string& name) {
  return {{"id", name},
          {"object", "model"},
          {"created", static_cast<int64_t>(model.started)},
          {"owned_by", "tandem"},
          {"root", model.root},
          {"parent", nullptr},
          {"max_model_len", model.max_model_len}};
}

}  // namespace

Reply Service::health(const HttpRequest&) {
  if (draining_.load()) return error_reply({503, "the server is shutting down"});
  if (parts_.engine.failed()) return error_reply({503, "a step of the engine failed"});
  if (!parts_.engine.healthy())
    return error_reply({503, "a step of the engine takes longer than it should"});
  return json_reply({{"status", "ok"}});
}

Reply Service::version(const HttpRequest&) {
  return json_reply({{"version", parts_.model.version}});
}

Reply Service::load(const HttpRequest&) {
  return json_reply({{"server_load", parts_.engine.num_admitted()}});
}

Reply Service::models(const HttpRequest& request) {
  const std::string_view wanted =
      std::string_view(request.path).substr(std::string_view("/v1/models").size());
  const std::string decoded = percent_decoded(wanted);  // clients write / as %2F
  ordered_json list = ordered_json::array();
  for (const std::string& name : parts_.model.names) {
    if (wanted.size() > 1 && (wanted.substr(1) == name || decoded.substr(1) == name))
      return json_reply(model_json(parts_.model, name));
    list.push_back(model_json(parts_.model, name));
  }
  if (!wanted.empty())
    return error_reply({404,
                        fmt::format("model: expected {}", fmt::join(parts_.model.names, " or ")),
                        "model", "model_not_found"});
  return json_reply({{"object", "list"}, {"data", list}});
}

Reply Service::metrics(const HttpRequest&) {
  Reply reply;
  reply.head.content_type = "text/plain; version=0.0.4; charset=utf-8";
  reply.body = parts_.metrics.text({.engine = parts_.engine.stats(),
                                    .num_admitted = parts_.engine.num_admitted(),
                                    .block_size = parts_.model.block_size,
                                    .num_draft_tokens = parts_.model.num_draft_tokens,
                                    .dummy_weights = parts_.model.dummy_weights,
                                    .synthetic_acceptance = parts_.model.synthetic_acceptance,
                                    .healthy = parts_.engine.healthy()});
  return reply;
}

// A chat ({"messages": ...}) or a text ({"prompt": ...}).
Reply Service::tokenize(const HttpRequest& request) {
  const ServedModel& model = parts_.model;
  auto parsed = parse_body(request.body);
  if (!parsed) return refused(parsed.error(), request);
  Fields fields(*parsed);
  if (auto error = check_model(fields, model)) return refused(*error, request);
  const bool strings = fields.boolean("return_token_strs").value_or(false);
  std::vector<int32_t> ids;
  if (parsed->contains("messages")) {
    fields.refuse("add_special_tokens", "the template writes them");
    auto prompt = encode_chat(request.body, fields, model);
    if (!prompt) return refused(prompt.error(), request);
    ids = std::move(prompt->ids);
  } else if (const auto text = fields.string("prompt", kMaxBodyBytes)) {
    ids = encode_text(*text, model, fields.boolean("add_special_tokens").value_or(true));
  } else {
    fields.fail("prompt", "expected a string, or messages");
  }
  // Each takes a hundredfold in the reply's JSON.
  if (ids.size() > kMaxIds)
    fields.fail(
        parsed->contains("messages") ? "messages" : "prompt",
        fmt::format("expected at most {} tokens, got {}; send it in parts", kMaxIds, ids.size()));
  if (auto error = fields.finish()) return refused(*error, request);
  ordered_json reply = {{"count", ids.size()}, {"max_model_len", model.max_model_len}};
  reply["tokens"] = ids;
  reply["token_strs"] = nullptr;
  if (strings) {
    reply["token_strs"] = ordered_json::array();
    for (const int32_t id : ids) reply["token_strs"].push_back(model.tokenizer.id_to_token(id));
  }
  return json_reply(reply);
}

Reply Service::detokenize(const HttpRequest& request) {
  auto parsed = parse_body(request.body);
  if (!parsed) return refused(parsed.error(), request);
  Fields fields(*parsed);
  if (auto error = check_model(fields, parts_.model)) return refused(*error, request);
  if (fields.any("tokens") == nullptr) fields.fail("tokens", "expected a list of token ids");
  const std::vector<int32_t> ids = fields.ids("tokens", parts_.model.vocab_size, kMaxIds);
  if (auto error = fields.finish()) return refused(*error, request);
  return json_reply({{"prompt", parts_.model.tokenizer.decode(ids, false)}});
}

}  // namespace tandem::server
