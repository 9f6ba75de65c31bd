#include "cli/foreign_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>

namespace tandem::cli {
namespace {

enum class Form { kSwitch, kValue };

struct ForeignFlag {
  const char* name;
  Form form;
  // kValue: what may follow; empty: anything.
  std::vector<std::string> values;
  // Why it is refused; empty: it is accepted.
  const char* refusal;
  const char* note;  // what is done instead, or anyway
};

constexpr const char* kOneProcess = "Tandem runs the pair on one device";
constexpr const char* kNoTls = "TLS is not available yet; put a proxy in front";
constexpr const char* kUseConfig = R"(use --speculative-config '{"model": DIR, ...}')";
constexpr const char* kAlways = "that is always so";
constexpr const char* kNoGraphs = "nothing is compiled while it runs";

const std::vector<ForeignFlag>& foreign_flags() {
  static const std::vector<ForeignFlag> kFlags = {
      {"--enable-chunked-prefill", Form::kSwitch, {}, "", kAlways},
      {"--async-scheduling", Form::kSwitch, {}, "", "steps follow each other"},
      {"--no-async-scheduling", Form::kSwitch, {}, "", kAlways},
      {"--compilation-config", Form::kValue, {}, "", kNoGraphs},
      {"--optimization-level", Form::kValue, {}, "", kNoGraphs},
      {"--performance-mode", Form::kValue, {}, "", kNoGraphs},
      {"--attention-backend", Form::kValue, {}, "", "there is one"},
      {"--trust-remote-code", Form::kSwitch, {}, "", "no code of a model folder is ever run"},
      {"--language-model-only", Form::kSwitch, {}, "", kAlways},
      {"--enable-auto-tool-choice", Form::kSwitch, {}, "", kAlways},
      {"--tool-call-parser", Form::kValue, {"gemma4"}, "", kAlways},
      {"--reasoning-parser", Form::kValue, {"gemma4"}, "", kAlways},
      {"--tensor-parallel-size", Form::kValue, {"1"}, "", kOneProcess},
      {"--pipeline-parallel-size", Form::kValue, {"1"}, "", kOneProcess},
      {"--data-parallel-size", Form::kValue, {"1"}, "", kOneProcess},
      {"--dtype", Form::kValue, {"auto", "bfloat16"}, "", "--compute chooses another one"},
      {"--stream-interval", Form::kValue, {"1"}, "", kAlways},
      {"--swap-space", Form::kValue, {}, "", "preempted requests are computed again"},
      {"--disable-log-requests", Form::kSwitch, {}, "", kAlways},
      {"--disable-uvicorn-access-log", Form::kSwitch, {}, "", kAlways},
      {"--uvicorn-log-level", Form::kValue, {}, "", "TANDEM_LOG sets the level"},
      {"--ssl-keyfile", Form::kValue, {}, kNoTls, ""},
      {"--ssl-certfile", Form::kValue, {}, kNoTls, ""},
      {"--ssl-ca-certs", Form::kValue, {}, kNoTls, ""},
      {"--ssl-cert-reqs", Form::kValue, {}, kNoTls, ""},
      {"--spec-method", Form::kValue, {}, kUseConfig, ""},
      {"--spec-model", Form::kValue, {}, kUseConfig, ""},
      {"--spec-tokens", Form::kValue, {}, kUseConfig, ""},
      {"--tokenizer", Form::kValue, {}, "the model folder's tokenizer is used", ""},
      {"--revision", Form::kValue, {}, "name the folder of the revision", ""},
      {"--enable-lora", Form::kSwitch, {}, "adapters are not available", ""},
      {"--lora-modules", Form::kValue, {}, "adapters are not available", ""},
      {"--root-path", Form::kValue, {}, "let the proxy remove the prefix", ""},
      {"--otlp-traces-endpoint", Form::kValue, {}, "traces are not available; see /metrics", ""},
      {"--allowed-origins", Form::kValue, {}, "pages of other sites may not ask", ""},
  };
  return kFlags;
}

}  // namespace

void add_foreign_flags(CLI::App& command, std::vector<ServeFlags::Foreign>& given) {
  for (const ForeignFlag& flag : foreign_flags()) {
    const std::string name = flag.name;
    CLI::Option* option =
        flag.form == Form::kSwitch
            ? command.add_flag_callback(name, [&given, name] { given.push_back({name, ""}); })
            : command.add_option_function<std::string>(
                  name,
                  [&given, name](const std::string& value) { given.push_back({name, value}); });
    option->group("Flags of vLLM that change nothing, or are refused");
  }
}

base::Status check_foreign_flags(const std::vector<ServeFlags::Foreign>& given,
                                 std::vector<std::string>& notes) {
  for (const ServeFlags::Foreign& one : given) {
    const auto& flags = foreign_flags();
    const auto flag = std::ranges::find_if(
        flags, [&](const ForeignFlag& known) { return one.flag == known.name; });
    if (flag->refusal[0] != '\0')
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

}  // namespace tandem::cli
