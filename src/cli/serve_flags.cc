#include "cli/serve_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/foreign_flags.h"
#include "cli/prompt_encoder.h"
#include "io/json.h"

namespace tandem::cli {
namespace {

constexpr int64_t kLongest = int64_t{1} << 30;

void add_network_flags(CLI::App& command, ServeFlags& flags) {
  command.add_option("--host", flags.host, "address to listen on; 0.0.0.0: all")
      ->capture_default_str();
  command.add_option("--port", flags.port, "0: a free one, which is printed")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command.add_option("--root-path", flags.root_path,
                     "folder that a proxy leaves in front of paths: /tandem");
  command
      .add_option(
          "--api-key", flags.api_keys,
          "key that clients must send; may be repeated (or TANDEM_API_KEY, which no list of "
          "processes shows)")
      ->allow_extra_args(false)
      ->envname("TANDEM_API_KEY");
  command
      .add_option("--max-num-queued-reqs", flags.max_num_queued,
                  "requests that wait; more are refused with 429")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  command.add_option("--http-threads", flags.http_threads, "threads for sockets, and for requests")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  command
      .add_option("--shutdown-timeout", flags.shutdown_seconds,
                  "seconds that requests have to end after SIGTERM")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  command
      .add_option("--step-timeout", flags.step_seconds,
                  "seconds a step may take before /health says 503")
      ->check(CLI::Range(1.0, 86400.0))
      ->capture_default_str();
  command
      .add_option("--response-store-mib", flags.response_store_mib,
                  "memory for answers of /v1/responses that clients come back to; 0: none is kept")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  command.add_flag("--enable-request-id-headers,!--no-enable-request-id-headers",
                   flags.request_id_headers, "X-Request-Id in replies");
}

void add_answer_flags(CLI::App& command, ServeFlags& flags) {
  command.add_option("--served-model-name", flags.served_model_names,
                     "names clients may use (default: the target as given)");
  command.add_option("--chat-template", flags.chat_template,
                     "Jinja file instead of the model folder's");
  command.add_option("--default-chat-template-kwargs", flags.chat_template_kwargs,
                     R"(JSON for the template: {"enable_thinking": true})");
  command.add_flag("--trust-request-chat-template,!--no-trust-request-chat-template",
                   flags.trust_chat_templates, "requests may bring a chat_template of their own");
  command
      .add_option("--generation-config", flags.generation_config,
                  "auto: sampling defaults from generation_config.json; vllm or none: neutral ones")
      ->check(CLI::IsMember({"auto", "vllm", "none"}))
      ->capture_default_str();
  command.add_option("--override-generation-config", flags.sampling_overrides,
                     R"(JSON of sampling defaults: {"temperature": 0.5})");
  command.add_option("--seed", flags.seed, "of requests that bring none")->capture_default_str();
  command.add_flag(
      "--per-request-spec-decode-metrics", flags.spec_metrics,
      "speculative statistics in answers, and in the last chunk of streams with usage");
  command.add_flag("--enable-log-requests,!--no-enable-log-requests", flags.log_requests,
                   "a line for each request that ends");
  command
      .add_option("--scheduling-policy", flags.scheduling_policy,
                  "priority: requests of lower \"priority\" go first; fcfs: as they come")
      ->check(CLI::IsMember({"fcfs", "priority"}))
      ->capture_default_str();
  command.add_flag("--enable-prompt-tokens-details,!--no-enable-prompt-tokens-details",
                   flags.prompt_details,
                   "usage tells how many tokens of the prompt came from the prefix cache");
  command
      .add_option("--stream-interval", flags.stream_interval,
                  "tokens that a chunk of a stream holds at least, the first and last aside")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command.add_flag("--disable-log-stats,!--no-disable-log-stats", flags.disable_log_stats,
                   "no line every 10 seconds");
}

// 8192, 8k (1000), 8K (1024), 1m, 1M; nothing for anything else.
std::optional<int64_t> parse_count(const std::string& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string suffix(end, text.data() + text.size());
  const int64_t factor = suffix.empty()  ? 1
                         : suffix == "k" ? 1000
                         : suffix == "K" ? 1024
                         : suffix == "m" ? 1'000'000
                         : suffix == "M" ? int64_t{1} << 20
                                         : 0;
  if (error != std::errc() || factor == 0 || number < 1 || number > kLongest / factor)
    return std::nullopt;
  return number * factor;
}

base::Status check_modalities(const std::string& text) {
  constexpr const char* kFlag = "serve: --limit-mm-per-prompt";
  if (text.empty()) return {};
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, io::parse_json(text, kFlag));
  if (!json.is_object())
    return base::invalid(R"({}: expected a JSON object such as {{"image": 0}}, got {})", kFlag,
                         io::describe_json(json));
  for (const auto& [key, value] : json.items())
    if (value != 0)
      return base::unsupported("{}: {}: expected 0, got {}; Tandem reads text only", kFlag,
                               key.substr(0, 40), io::describe_json(value));
  return {};
}

}  // namespace

void add_serve_flags(CLI::App& command, ServeFlags& flags) {
  flags.model.max_num_seqs = 16;
  flags.model.max_num_batched_tokens = 2048;
  add_model_flags(command, flags.model);
  // Here it may have a suffix.
  command.remove_option(command.get_option("--max-model-len"));
  command
      .add_option("--max-model-len", flags.max_model_len,
                  "tokens of prompt and answer together: 8192, 8k, auto")
      ->capture_default_str();
  command.get_option("--max-num-batched-tokens")->transform([](const std::string& text) {
    const auto count = parse_count(text);
    return count ? std::to_string(*count) : text;
  });
  command.add_option("--block-size", flags.block_size, "positions of a KV block")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->capture_default_str();
  command.add_option("--quantization", flags.quantization, "modelopt: the target must be that")
      ->check(CLI::IsMember({"modelopt", "compressed-tensors", "none"}));
  command.add_option("--spec-method", flags.spec_method, "method of --speculative-config: mtp");
  command.add_option("--spec-model", flags.spec_model, "model of --speculative-config");
  command.add_option("--spec-tokens", flags.spec_tokens,
                     "num_speculative_tokens of --speculative-config: 0 to 8 or auto");
  command.add_option("--limit-mm-per-prompt", flags.limit_mm_per_prompt,
                     R"(JSON; only 0 is possible: {"image": 0, "audio": 0})");
  add_network_flags(command, flags);
  add_answer_flags(command, flags);
  add_foreign_flags(command, flags.foreign);
  // As for vLLM: of a flag that is given twice, the last one counts.
  for (CLI::Option* option : command.get_options())
    if (option->get_expected_max() == 1 && option != command.get_help_ptr()) option->take_last();
  command.get_option("--api-key")->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

base::Status check_serve_flags(const ServeFlags& flags, std::vector<std::string>& notes) {
  TANDEM_RETURN_IF_ERROR(check_foreign_flags(flags.foreign, notes));
  TANDEM_RETURN_IF_ERROR(check_modalities(flags.limit_mm_per_prompt));
  TANDEM_RETURN_IF_ERROR(
      check_kwargs_flag("--default-chat-template-kwargs", flags.chat_template_kwargs));
  const std::string& root = flags.root_path;
  if (!root.empty() && (!root.starts_with('/') || root.ends_with('/')))
    return base::invalid("serve: --root-path: expected a path such as /tandem, got \"{}\"",
                         root.substr(0, 60));
  for (const std::string& key : flags.api_keys)
    if (key.empty()) return base::invalid("serve: --api-key: expected a key, got none");
  for (const std::string& name : flags.served_model_names)
    if (name.empty()) return base::invalid("serve: --served-model-name: expected a name, got none");
  if (const auto length = parse_model_len(flags.max_model_len); !length)
    return tl::unexpected<base::Error>(length.error());
  return {};
}

base::Result<std::string> speculative_config(const ServeFlags& flags) {
  const std::string& whole = flags.model.speculative_config;
  if (flags.spec_method.empty() && flags.spec_model.empty() && flags.spec_tokens.empty())
    return whole;
  nlohmann::json config = nlohmann::json::object();
  if (!whole.empty()) {
    TANDEM_ASSIGN_OR_RETURN(config, io::parse_json(whole, "--speculative-config"));
    if (!config.is_object())
      return base::invalid("--speculative-config: expected a JSON object, got {}",
                           io::describe_json(config));
  }
  const auto is_number = [](const std::string& text) {
    return !text.empty() && text.size() < 10 &&
           std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
  };
  const auto add = [&config](const char* flag, const char* key, nlohmann::json value) {
    if (config.contains(key))
      return base::Status(
          base::invalid("serve: {}: expected none beside {} in --speculative-config", flag, key));
    config[key] = std::move(value);
    return base::Status();
  };
  if (!flags.spec_method.empty())
    TANDEM_RETURN_IF_ERROR(add("--spec-method", "method", flags.spec_method));
  if (!flags.spec_model.empty())
    TANDEM_RETURN_IF_ERROR(add("--spec-model", "model", flags.spec_model));
  if (flags.spec_tokens.empty()) return config.dump();
  const std::string& count = flags.spec_tokens;
  TANDEM_RETURN_IF_ERROR(
      add("--spec-tokens", "num_speculative_tokens",
          is_number(count) ? nlohmann::json(std::stoi(count)) : nlohmann::json(count)));
  return config.dump();
}

base::Result<int64_t> parse_model_len(const std::string& text) {
  if (text == "auto" || text == "-1") return 0;
  if (const auto count = parse_count(text)) return *count;
  return base::invalid(
      "serve: --max-model-len: expected a number such as 8192, 8k or 8K, -1 or auto, got \"{}\"",
      text.substr(0, 60));
}

void accept_underscores(std::vector<std::string>& arguments) {
  if (arguments.empty() || arguments.front() != "serve") return;
  for (std::string& argument : arguments) {
    if (!argument.starts_with("--")) continue;
    const size_t end = std::min(argument.find('='), argument.size());
    std::replace(argument.begin(), argument.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  }
}

}  // namespace tandem::cli
