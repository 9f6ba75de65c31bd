#include "cli/foreign_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <memory>
#include <utility>

namespace tandem::cli {
namespace {

enum class Form { kSwitch, kValue };

struct ForeignFlag {
  std::string name;
  Form form;
  // kValue: what may follow; empty: anything.
  std::vector<std::string> values;
  // Why it is refused; empty: it is accepted.
  std::string refusal;
  std::string note;  // what is done instead, or anyway
};

constexpr const char* kUnlisted = "other flags of vllm serve";
constexpr const char* kOneProcess = "Tandem runs the pair on one device";
constexpr const char* kNoTls =
    "Tandem speaks plain HTTP; let a reverse proxy (nginx, HAProxy) in front of it speak TLS "
    "(docs/operations.md)";
constexpr const char* kAlways = "that is always so";
constexpr const char* kNoGraphs = "nothing is compiled while it runs";
constexpr const char* kTextOnly = "Tandem reads text only";
constexpr const char* kNoAdapters = "adapters are not available";
constexpr const char* kOwnPageOnly = "pages of other sites may not ask";
constexpr const char* kLocalFolder = "nothing is downloaded; name the model's folder";
constexpr const char* kNoWords = "words of requests are never logged";
constexpr const char* kOneServer = "there is one process";
constexpr const char* kLogLevel = "TANDEM_LOG sets the level";
constexpr const char* kCutAsFits = "prompts are cut as the budget of a step allows";
constexpr const char* kFixedLimits = "limits of HTTP are fixed (docs/user/server.md)";
constexpr const char* kUseCacheGib = "use --kv-cache-gib";
constexpr const char* kNoTransfer = "the KV cache stays on this machine";

ForeignFlag on(const char* name, const char* note) {
  return {name, Form::kSwitch, {}, "", note};
}
ForeignFlag value(const char* name, const char* note, std::vector<std::string> values = {}) {
  return {name, Form::kValue, std::move(values), "", note};
}
ForeignFlag refused(const char* name, const char* why, Form form = Form::kValue) {
  return {name, form, {}, why, ""};
}

// HTTP and what clients see.
void add_frontend(std::vector<ForeignFlag>& flags) {
  for (const char* name :
       {"--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-ciphers"})
    flags.push_back(refused(name, kNoTls));
  flags.push_back(refused("--enable-ssl-refresh", kNoTls, Form::kSwitch));
  for (const char* name : {"--allowed-origins", "--allowed-methods", "--allowed-headers"})
    flags.push_back(refused(name, kOwnPageOnly));
  flags.push_back(refused("--allow-credentials", kOwnPageOnly, Form::kSwitch));
  flags.push_back(refused("--middleware", "no code of others runs in the server"));
  flags.push_back(refused("--tool-parser-plugin", "no code of others runs in the server"));
  flags.push_back(refused("--tool-server", "this server runs no tools of its own"));
  flags.push_back(refused("--uds", "use --host and --port"));
  flags.push_back(refused("--config", "give the flags themselves"));
  flags.push_back(refused("--log-config-file", kLogLevel));
  flags.push_back(refused("--enable-log-outputs", kNoWords, Form::kSwitch));
  flags.push_back(refused("--h11-max-incomplete-event-size", kFixedLimits));
  flags.push_back(refused("--h11-max-header-count", kFixedLimits));
  flags.push_back(refused("--enable-force-include-usage",
                          "clients ask for it: \"stream_options\": {\"include_usage\": true}",
                          Form::kSwitch));
  flags.push_back(refused("--return-tokens-as-token-ids",
                          "clients ask for it: \"return_tokens_as_token_ids\": true",
                          Form::kSwitch));
  flags.push_back(refused("--headless", kOneServer, Form::kSwitch));
  flags.push_back(value("--api-server-count", kOneServer, {"1"}));
  flags.push_back(on("--disable-frontend-multiprocessing", kAlways));
  flags.push_back(on("--disable-log-requests", "so it is unless --enable-log-requests says else"));
  flags.push_back(on("--disable-uvicorn-access-log", kAlways));
  flags.push_back(value("--uvicorn-log-level", kLogLevel));
  flags.push_back(value("--max-log-len", kNoWords));
  flags.push_back(on("--enable-server-load-tracking", "GET /load always tells"));
  flags.push_back(on("--enable-auto-tool-choice", kAlways));
  flags.push_back(on("--exclude-tools-when-tool-choice-none", kAlways));
  flags.push_back(value("--tool-call-parser", kAlways, {"gemma4"}));
  flags.push_back(value("--reasoning-parser", kAlways, {"gemma4"}));
  flags.push_back(value("--response-role", kAlways, {"assistant"}));
  flags.push_back(value("--chat-template-content-format", "the template tells", {"auto"}));
  flags.push_back(value("--max-logprobs", "that is the limit", {"20"}));
  flags.push_back(value("--logprobs-mode", kAlways, {"raw_logprobs"}));
}

// The model and where it comes from.
void add_model(std::vector<ForeignFlag>& flags) {
  flags.push_back(refused("--model", "name the target's folder without a flag: tandem serve DIR"));
  flags.push_back(refused("--tokenizer", "the model folder's tokenizer is used"));
  for (const char* name : {"--revision", "--code-revision", "--tokenizer-revision"})
    flags.push_back(refused(name, "name the folder of the revision"));
  for (const char* name : {"--download-dir", "--hf-token", "--hf-config-path"})
    flags.push_back(refused(name, kLocalFolder));
  flags.push_back(refused("--skip-tokenizer-init", "text needs it", Form::kSwitch));
  for (const char* name : {"--enable-lora", "--enable-prompt-adapter"})
    flags.push_back(refused(name, kNoAdapters, Form::kSwitch));
  for (const char* name : {"--lora-modules", "--max-loras", "--max-lora-rank"})
    flags.push_back(refused(name, kNoAdapters));
  flags.push_back(refused("--enable-prompt-embeds", kTextOnly, Form::kSwitch));
  flags.push_back(
      refused("--disable-sliding-window", "the model was trained with it", Form::kSwitch));
  flags.push_back(value("--dtype", "--compute chooses another one", {"auto", "bfloat16"}));
  flags.push_back(value("--runner", kAlways, {"auto", "generate"}));
  flags.push_back(value("--task", kAlways, {"auto", "generate"}));
  flags.push_back(value("--tokenizer-mode", "tokenizer.json is read", {"auto", "hf"}));
  flags.push_back(value("--config-format", "config.json is read", {"auto", "hf"}));
  flags.push_back(value("--model-impl", "there is one"));
  flags.push_back(value("--model-loader-extra-config", "weights are mapped from the files"));
  flags.push_back(value("--max-parallel-loading-workers", "weights are mapped from the files"));
  flags.push_back(on("--use-tqdm-on-load", "a terminal sees the progress"));
  flags.push_back(on("--trust-remote-code", "no code of a model folder is ever run"));
  flags.push_back(on("--language-model-only", kAlways));
  for (const char* name :
       {"--mm-processor-kwargs", "--mm-processor-cache-gb", "--mm-encoder-tp-mode",
        "--media-io-kwargs", "--allowed-local-media-path", "--allowed-media-domains"})
    flags.push_back(value(name, kTextOnly));
  flags.push_back(on("--skip-mm-profiling", kTextOnly));
  flags.push_back(on("--disable-chunked-mm-input", kTextOnly));
  flags.push_back(on("--disable-mm-preprocessor-cache", kTextOnly));
}

// How it runs.
void add_engine(std::vector<ForeignFlag>& flags) {
  for (const char* name :
       {"--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size", "--nnodes"})
    flags.push_back(value(name, kOneProcess, {"1"}));
  flags.push_back(value("--distributed-executor-backend", kOneProcess, {"mp", "uni"}));
  flags.push_back(on("--disable-custom-all-reduce", kOneProcess));
  flags.push_back(refused("--enable-expert-parallel", kOneProcess, Form::kSwitch));
  flags.push_back(on("--enable-chunked-prefill", kAlways));
  flags.push_back(on("--async-scheduling", "steps follow each other"));
  for (const char* name : {"--max-num-partial-prefills", "--max-long-partial-prefills",
                           "--long-prefill-token-threshold"})
    flags.push_back(value(name, kCutAsFits));
  flags.push_back(refused("--scheduler-cls", "use --scheduling-policy"));
  for (const char* name : {"--compilation-config", "--optimization-level", "--performance-mode",
                           "--cudagraph-capture-sizes", "--max-cudagraph-capture-size",
                           "--cuda-graph-sizes", "--max-seq-len-to-capture"})
    flags.push_back(value(name, kNoGraphs));
  flags.push_back(value("--attention-backend", "there is one"));
  flags.push_back(on("--disable-cascade-attn", "there is none"));
  flags.push_back(value("--swap-space", "preempted requests are computed again"));
  flags.push_back(value("--cpu-offload-gb", "weights stay where they are", {"0"}));
  flags.push_back(value("--prefix-caching-hash-algo", "tokens are compared on every hit"));
  flags.push_back(on("--disable-hybrid-kv-cache-manager", "sliding layers always have rings"));
  flags.push_back(refused("--calculate-kv-scales", "tandem quantize writes them", Form::kSwitch));
  flags.push_back(refused("--kv-cache-memory-bytes", kUseCacheGib));
  flags.push_back(refused("--num-gpu-blocks-override", kUseCacheGib));
  for (const char* name : {"--kv-transfer-config", "--kv-events-config", "--kv-offloading-size"})
    flags.push_back(refused(name, kNoTransfer));
  flags.push_back(refused("--structured-outputs-config", "xgrammar does it, as requests say"));
  flags.push_back(value("--guided-decoding-backend", kAlways, {"auto", "xgrammar"}));
  for (const char* name : {"--otlp-traces-endpoint", "--collect-detailed-traces"})
    flags.push_back(refused(name, "traces are not available; see /metrics"));
  flags.push_back(value("--show-hidden-metrics-for-version", "no metric is hidden"));
}

// The name of the other form of a switch, which --NAME=false means as well.
std::string other_form(const std::string& name) {
  return name.starts_with("--no-") ? "--" + name.substr(5) : "--no-" + name.substr(2);
}

ForeignFlag negated(const ForeignFlag& flag) {
  ForeignFlag result{other_form(flag.name), Form::kSwitch, {}, "", flag.note};
  if (!flag.refusal.empty()) result.note = kAlways;
  if (flag.note == kAlways) result.refusal = "it cannot be switched off";
  return result;
}

// Leaves these flags out: each says what it does when it is given. (Options of no group are not
// listed either, but then errors do not name them.)
class Formatter : public CLI::Formatter {
 public:
  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override {
    return group == kUnlisted ? std::string()
                              : CLI::Formatter::make_group(group, is_positional, options);
  }
};

const std::vector<ForeignFlag>& foreign_flags() {
  static const std::vector<ForeignFlag> kFlags = [] {
    std::vector<ForeignFlag> flags;
    add_frontend(flags);
    add_model(flags);
    add_engine(flags);
    for (size_t i = 0, count = flags.size(); i < count; ++i)
      if (flags[i].form == Form::kSwitch) flags.push_back(negated(flags[i]));
    return flags;
  }();
  return kFlags;
}

}  // namespace

void add_foreign_flags(CLI::App& command, std::vector<ServeFlags::Foreign>& given) {
  for (const ForeignFlag& flag : foreign_flags()) {
    const std::string name = flag.name;
    CLI::Option* option =
        flag.form == Form::kSwitch
            ? command.add_flag_function(
                  name,
                  [&given, name](int64_t count) {
                    given.push_back({count > 0 ? name : other_form(name), ""});
                  })
            : command.add_option_function<std::string>(
                  name, [&given, name](const std::string& text) { given.push_back({name, text}); });
    option->group(kUnlisted);
  }
  command.formatter(std::make_shared<Formatter>());
  command.footer(
      "Other flags of vllm serve are known too: those that change nothing here are accepted with a "
      "note, the rest are refused with what to do instead.");
}

base::Status check_foreign_flags(const std::vector<ServeFlags::Foreign>& given,
                                 std::vector<std::string>& notes) {
  for (const ServeFlags::Foreign& one : given) {
    const auto& flags = foreign_flags();
    const auto flag = std::ranges::find_if(
        flags, [&](const ForeignFlag& known) { return one.flag == known.name; });
    if (!flag->refusal.empty())
      return base::unsupported("serve: {}: not supported: {}", one.flag, flag->refusal);
    const bool known =
        flag->values.empty() || std::ranges::find(flag->values, one.value) != flag->values.end();
    if (!known)
      return base::unsupported("serve: {}: expected {}, got \"{}\"; {}", one.flag,
                               fmt::join(flag->values, " or "), one.value.substr(0, 60),
                               flag->note);
    notes.push_back(fmt::format("{}{}{}: changes nothing: {}", one.flag,
                                one.value.empty() ? "" : " ", one.value.substr(0, 60), flag->note));
  }
  return {};
}

void accept_short_names(std::vector<std::string>& arguments) {
  constexpr std::array<std::pair<const char*, const char*>, 6> kNames = {{
      {"-tp", "--tensor-parallel-size"},
      {"-pp", "--pipeline-parallel-size"},
      {"-dp", "--data-parallel-size"},
      {"-q", "--quantization"},
      {"-sc", "--speculative-config"},
      {"-cc", "--compilation-config"},
  }};
  if (arguments.empty() || arguments.front() != "serve") return;
  for (std::string& argument : arguments) {
    for (const auto& [name, meaning] : kNames)
      if (argument == name) argument = meaning;
    if (argument.size() == 3 && argument.starts_with("-O"))
      argument = "--optimization-level=" + argument.substr(2);
  }
}

}  // namespace tandem::cli
