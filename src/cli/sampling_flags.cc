#include "cli/sampling_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/repetition_limits.h"
#include "io/json.h"

namespace tandem::cli {
namespace {

base::Status read_logit_bias(const std::string& text, sampling::SamplingParams& params) {
  constexpr const char* kFlag = "--logit-bias";
  TANDEM_RETURN_IF_ERROR(check_json_object(kFlag, text));
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, io::parse_json(text, kFlag));
  for (const auto& [key, bias] : json.items()) {
    int32_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || !bias.is_number())
      return base::invalid(R"({}: expected a JSON object such as {{"42": -100}}, got "{}": {})",
                           kFlag, key.substr(0, 40), io::describe_json(bias));
    params.logit_bias.emplace_back(id, bias.get<float>());
  }
  return {};
}

void add_distribution_flags(CLI::App& command, SamplingFlags& flags) {
  command.add_option("--temperature", flags.temperature,
                     "0: greedy (default: generation_config.json)");
  command.add_option("--top-k", flags.top_k, "likeliest tokens kept; 0: all");
  command.add_option("--top-p", flags.top_p, "share of probability kept");
  command.add_option("--min-p", flags.min_p, "least share of the likeliest token's probability");
  command.add_option("--presence-penalty", flags.presence_penalty, "-2 to 2");
  command.add_option("--frequency-penalty", flags.frequency_penalty, "-2 to 2");
  command.add_option("--repetition-penalty", flags.repetition_penalty, "above 0; 1: off");
  command.add_option("--logit-bias", flags.logit_bias, R"(JSON: {"TOKEN_ID": -100 to 100, ...})");
  command.add_option("--seed", flags.seed, "the same seed gives the same text");
  command
      .add_option("--generation-config", flags.generation_config,
                  "auto: defaults from generation_config.json; none: neutral ones")
      ->check(CLI::IsMember({"auto", "none"}))
      ->capture_default_str();
}

void add_length_flags(CLI::App& command, SamplingFlags& flags) {
  command.add_option("--max-tokens", flags.max_tokens, "most tokens of an answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30))
      ->capture_default_str();
  command.add_option("--min-tokens", flags.min_tokens, "no stop before this many tokens");
  command.add_option("--stop", flags.stop, "text that ends an answer; may be repeated")
      ->allow_extra_args(false);
  command.add_option("--stop-token-ids", flags.stop_token_ids, "ids that end an answer: 5,17")
      ->delimiter(',')
      ->allow_extra_args(false);
  command.add_flag("--include-stop-str-in-output", flags.include_stop_str_in_output,
                   "keep the text of --stop");
  command.add_flag("--ignore-eos", flags.ignore_eos, "go on to --max-tokens");
}

}  // namespace

base::Status check_json_object(const std::string& flag, const std::string& text) {
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, io::parse_json(text, flag));
  if (json.is_object()) return {};
  return base::invalid("{}: expected a JSON object, got {}", flag, io::describe_json(json));
}

base::Status read_sampling_overrides(const std::string& text, SamplingFlags& flags) {
  constexpr const char* kFlag = "--override-generation-config";
  constexpr std::array<std::string_view, 5> kKeys = {"temperature", "top_k", "top_p", "min_p",
                                                     "repetition_penalty"};
  constexpr double kMost = 1e30;
  if (text.empty()) return {};
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json json, io::parse_json(text, kFlag));
  TANDEM_ASSIGN_OR_RETURN(const io::JsonObject object, io::JsonObject::of(json, kFlag));
  for (const auto& [key, value] : json.items())
    if (std::ranges::find(kKeys, key) == kKeys.end())
      return base::unsupported("{}: expected {}, got \"{}\"", kFlag, fmt::join(kKeys, ", "),
                               key.substr(0, 60));
  for (auto [key, value] : {std::pair("temperature", &flags.temperature),
                            std::pair("top_p", &flags.top_p), std::pair("min_p", &flags.min_p)}) {
    if (!object.has(key)) continue;
    TANDEM_ASSIGN_OR_RETURN(*value, object.number_or(key, 0, 0, kMost));
  }
  if (object.has("top_k")) {
    TANDEM_ASSIGN_OR_RETURN(flags.top_k, object.integer("top_k", -1, INT32_MAX));
  }
  if (object.has("repetition_penalty")) {
    TANDEM_ASSIGN_OR_RETURN(flags.repetition_penalty,
                            object.number_or("repetition_penalty", 1.0, base::kMinRepetitionPenalty,
                                             base::kMaxRepetitionPenalty));
  }
  return {};
}

void add_sampling_flags(CLI::App& command, SamplingFlags& flags) {
  add_distribution_flags(command, flags);
  add_length_flags(command, flags);
}

base::Result<sampling::SamplingParams> sampling_params(const SamplingFlags& flags,
                                                       const io::GenerationConfig& defaults,
                                                       int64_t vocab_size) {
  sampling::SamplingParams params;
  if (flags.generation_config == "auto" && defaults.present) {
    params.temperature = defaults.do_sample ? defaults.temperature : 0.0;
    params.top_k = defaults.top_k;
    params.top_p = defaults.top_p;
    params.min_p = defaults.min_p;
    params.repetition_penalty = defaults.repetition_penalty;
  }
  params.temperature = flags.temperature.value_or(params.temperature);
  params.top_k = flags.top_k.value_or(params.top_k);
  params.top_p = flags.top_p.value_or(params.top_p);
  params.min_p = flags.min_p.value_or(params.min_p);
  params.presence_penalty = flags.presence_penalty;
  params.frequency_penalty = flags.frequency_penalty;
  params.repetition_penalty = flags.repetition_penalty.value_or(params.repetition_penalty);
  params.seed = flags.seed;
  params.min_tokens = flags.min_tokens;
  params.stop_token_ids = flags.stop_token_ids;
  params.ignore_eos = flags.ignore_eos;
  if (!flags.logit_bias.empty()) TANDEM_RETURN_IF_ERROR(read_logit_bias(flags.logit_bias, params));
  TANDEM_RETURN_IF_ERROR(sampling::validate(params, vocab_size));
  for (const std::string& stop : flags.stop)
    if (stop.empty()) return base::invalid("--stop: expected some text, got none");
  return params;
}

}  // namespace tandem::cli
