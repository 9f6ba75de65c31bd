// tandem eval: what a checkpoint lost against the one it was made from, in accepted tokens and KL.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/eval_inputs.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/progress.h"
#include "cli/terminal.h"
#include "io/atomic_file.h"
#include "model/kv_format.h"
#include "quantize/eval_html.h"
#include "quantize/eval_json.h"
#include "quantize/eval_refusal.h"
#include "quantize/eval_run.h"
#include "quantize/eval_summary.h"

namespace tandem::cli {
namespace {

constexpr int kGateFailed = 3;
constexpr int64_t kTextPiece = 512;

struct EvalFlags {
  std::string target, speculative_config, reference, reference_assistant;
  std::string compute = "native", fp8 = "checkpoint", kv_cache_dtype = "auto";
  std::string draft_head = "checkpoint";
  std::string prompts, text, out_json, out_html;
  int64_t limit = 0;
  int threads = 0;
  bool gate = false;
  quantize::EvalOptions options;
  PromptFlags prompt;
};

using PairPaths = model::PairOptions;

base::Result<quantize::EvalOptions> make_options(const EvalFlags& flags, PairPaths& candidate) {
  quantize::EvalOptions options = flags.options;
  ModelFlags model;
  model.target = flags.target;
  model.speculative_config = flags.speculative_config;
  model.compute = flags.compute;
  model.fp8_arithmetic = flags.fp8;
  model.draft_head = flags.draft_head;
  TANDEM_ASSIGN_OR_RETURN(engine::RuntimeOptions runtime, runtime_options(model));
  if (runtime.synthetic)
    return base::invalid(
        "eval: expected measured acceptance, got a synthetic one in "
        "--speculative-config");
  if (runtime.auto_drafts)
    return base::invalid(
        "eval: num_speculative_tokens: expected a number, as acceptance depends on it, got "
        "\"auto\"");
  if (!runtime.drafts_from.empty())
    return base::invalid(
        "eval: num_speculative_tokens_per_batch_size: expected none, as acceptance depends on one "
        "number, got ranges; give num_speculative_tokens alone");
  candidate = std::move(runtime.pair);
  options.num_draft_tokens = runtime.num_draft_tokens;
  options.draft_position_offset = runtime.draft_position_offset;
  if (flags.kv_cache_dtype == "fp8" || flags.kv_cache_dtype == "bfloat16")
    options.kv_fp8 = flags.kv_cache_dtype == "fp8";
  else if (flags.kv_cache_dtype != "auto")
    return base::invalid("--kv-cache-dtype: expected auto, bfloat16 or fp8, got {}",
                         flags.kv_cache_dtype);
  if (flags.reference.empty() && !flags.reference_assistant.empty())
    return base::invalid("--reference-assistant: expected --reference DIR with it, got none");
  if (!flags.reference_assistant.empty() && !candidate.assistant)
    return base::invalid(
        "--reference-assistant: expected --speculative-config with the candidate's assistant as "
        "well, got none: nothing is drafted");
  if (flags.reference.empty() && flags.gate)
    return base::invalid("--gate: expected --reference DIR to compare with, got none");
  return options;
}

base::Result<model::Pair> load(PairPaths options) {
  std::unique_ptr<Progress> bar;
  std::filesystem::path shown;
  options.progress = [&](const std::filesystem::path& dir, int64_t done, int64_t total) {
    if (!bar || dir != shown) bar = std::make_unique<Progress>("loading " + dir.string());
    shown = dir;
    bar->update(done, total, describe_bytes(static_cast<double>(total)));
  };
  return model::load_pair(options);
}

base::Result<quantize::EvalInputs> read_inputs(const EvalFlags& flags, const PairPaths& paths,
                                               model::Pair candidate,
                                               const PromptEncoder& encoder) {
  quantize::EvalInputs inputs;
  inputs.candidate = std::move(candidate);
  inputs.tokenizer = encoder.tokenizer();
  if (!flags.reference.empty()) {
    PairPaths reference = paths;
    reference.target = flags.reference;
    reference.model.draft_head = model::DraftHeadFormat::kCheckpoint;
    if (!flags.reference_assistant.empty()) reference.assistant = flags.reference_assistant;
    TANDEM_ASSIGN_OR_RETURN(inputs.reference, load(reference));
  }
  TANDEM_ASSIGN_OR_RETURN(inputs.prompts, read_eval_prompts(flags.prompts, flags.limit, encoder));
  if (!flags.text.empty()) {
    const int64_t longest = inputs.candidate.target->config().max_position_embeddings;
    TANDEM_ASSIGN_OR_RETURN(inputs.texts, read_eval_text(flags.text, std::min(kTextPiece, longest),
                                                         *encoder.tokenizer()));
  }
  return inputs;
}

// The bars of the work's phases, one after the other.
quantize::Progress phase_bars() {
  struct Bar {
    std::string phase;
    std::unique_ptr<Progress> shown;
  };
  return [bar = std::make_shared<Bar>()](std::string_view phase, int64_t done, int64_t total) {
    if (!bar->shown || bar->phase != phase) {
      bar->phase = phase;
      bar->shown.reset();
      bar->shown = std::make_unique<Progress>(bar->phase);
    }
    bar->shown->update(done, total);
    return !InterruptGuard::interrupted();
  };
}

// A candidate that cannot even be loaded fails the gate when the reason is in its export.
base::Result<int> refuse(const EvalFlags& flags, const PairPaths& paths, const base::Error& error) {
  std::string cause;
  if (flags.gate) cause = quantize::explain_refusal(paths.target, error.message);
  if (flags.gate && cause.empty() && paths.assistant)
    cause = quantize::explain_refusal(*paths.assistant, error.message);
  if (cause.empty()) return tl::unexpected<base::Error>(error);
  Output(1).write(
      fmt::format("gate        FAILED\n  cause: {}\n  loader: {}\n", cause, error.message));
  return kGateFailed;
}

// Both are written where they can be, but for one file that would keep the second alone.
base::Status check_outputs(const EvalFlags& flags) {
  for (const std::string& out : {flags.out_json, flags.out_html})
    if (!out.empty()) TANDEM_RETURN_IF_ERROR(io::check_writable(out));
  if (flags.out_json.empty() || flags.out_html.empty()) return {};
  std::error_code error;
  const std::filesystem::path json = std::filesystem::weakly_canonical(flags.out_json, error);
  const std::filesystem::path html = std::filesystem::weakly_canonical(flags.out_html, error);
  const bool is_device =
      std::filesystem::exists(json, error) && !std::filesystem::is_regular_file(json, error);
  if (json != html || is_device) return {};
  return base::invalid("--out-html: expected another file than --out-json, got {}", flags.out_html);
}

base::Status write_outputs(const EvalFlags& flags, const quantize::EvalResult& result,
                           const quantize::GateResult* gate) {
  if (!flags.out_json.empty())
    TANDEM_RETURN_IF_ERROR(
        io::write_file_atomically(flags.out_json, quantize::eval_json(result, gate)));
  if (flags.out_html.empty()) return {};
  return io::write_file_atomically(flags.out_html, quantize::eval_html(result, gate));
}

base::Result<int> run(const EvalFlags& flags) {
  const InterruptGuard guard;
  PairPaths paths;
  TANDEM_ASSIGN_OR_RETURN(const quantize::EvalOptions options, make_options(flags, paths));
  TANDEM_RETURN_IF_ERROR(check_outputs(flags));
  base::Result<model::Pair> candidate = load(paths);
  if (!candidate) return refuse(flags, paths, candidate.error());
  // As where it is served: no figures of scales that nobody has measured.
  if (flags.kv_cache_dtype == "fp8")
    TANDEM_RETURN_IF_ERROR(model::kv_scales(*candidate->target_checkpoint, core::DType::kF8E4M3,
                                            model::KvCacheDtype::kFp8));
  TANDEM_ASSIGN_OR_RETURN(const PromptEncoder encoder,
                          PromptEncoder::open(flags.target, candidate->target_checkpoint->config(),
                                              flags.prompt, true));
  TANDEM_ASSIGN_OR_RETURN(quantize::EvalInputs inputs,
                          read_inputs(flags, paths, std::move(*candidate), encoder));
  core::ThreadPool pool(flags.threads);
  const ops::Context context{ops::Backend::kCpu, &pool};
  TANDEM_ASSIGN_OR_RETURN(quantize::EvalResult result,
                          quantize::evaluate(context, inputs, options, phase_bars()));
  result.version = TANDEM_VERSION;
  result.names.prompts = flags.prompts.empty() ? "Tandem's calibration prompts" : flags.prompts;
  result.names.text = !flags.text.empty()       ? flags.text
                      : flags.reference.empty() ? "the candidate's own answers"
                                                : "the reference's answers";
  std::optional<quantize::GateResult> gate;
  if (!flags.reference.empty()) gate = quantize::judge(result, options.bounds);
  const quantize::GateResult* verdict = flags.gate ? &*gate : nullptr;
  // First the files: nobody may read the summary to its end (`| head`), which ends the program.
  const base::Status written = write_outputs(flags, result, gate ? &*gate : nullptr);
  Output output(1);
  output.write(quantize::eval_summary(result, verdict));
  TANDEM_RETURN_IF_ERROR(written);
  TANDEM_RETURN_IF_ERROR(output.status());
  return verdict != nullptr && !verdict->passed ? kGateFailed : 0;
}

void add_gate_flags(CLI::App& command, EvalFlags& flags) {
  quantize::GateBounds& bounds = flags.options.bounds;
  command.add_flag("--gate", flags.gate,
                   "exit 3 when the candidate is worse than the bounds allow, and say why");
  command
      .add_option("--min-acceptance-ratio", bounds.min_acceptance_ratio,
                  "mean acceptance length, as a share of the reference's")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command.add_option("--max-kl", bounds.max_kl, "mean KL per token, in nats")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command
      .add_option("--max-exact-drop", bounds.max_exact_drop,
                  "share of the prompts whose exact answer may be lost")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  for (const char* bound : {"--min-acceptance-ratio", "--max-kl", "--max-exact-drop"})
    command.get_option(bound)->needs(command.get_option("--reference"));
}

void add_input_flags(CLI::App& command, EvalFlags& flags) {
  command.add_option("target", flags.target, "folder of the candidate's target")->required();
  command.add_option("--speculative-config", flags.speculative_config,
                     R"(its assistant, as JSON: {"model": DIR, "num_speculative_tokens": 4})");
  command.add_option("--reference", flags.reference, "folder of the target it was made from");
  command.add_option("--reference-assistant", flags.reference_assistant,
                     "folder of the assistant it was made from; default: the candidate's");
  command.add_option("--prompts", flags.prompts,
                     R"(.jsonl of prompts, with "kind" and "answer" where known; default: the )"
                     "prompts of tandem quantize");
  command.add_option("--limit", flags.limit, "use the first N prompts only; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  command.add_option("--text", flags.text,
                     "text file to score; default: the reference's answers to the prompts");
  command.add_option("--max-new-tokens", flags.options.max_new_tokens, "tokens of an answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command.add_option("--out-json", flags.out_json, "file for the figures");
  command.add_option("--out-html", flags.out_html, "file for the report");
}

void add_compute_flags(CLI::App& command, EvalFlags& flags) {
  command.add_option("--compute", flags.compute, "float32, bfloat16 or native")
      ->capture_default_str();
  command.add_option("--fp8-arithmetic", flags.fp8, "checkpoint, weight-only or vllm-parity")
      ->capture_default_str();
  command
      .add_option("--draft-head", flags.draft_head,
                  "the candidate's assistant: its head as stored (checkpoint) or rounded to fp8")
      ->check(CLI::IsMember({"checkpoint", "fp8"}))
      ->capture_default_str();
  command
      .add_option("--kv-cache-dtype", flags.kv_cache_dtype,
                  "of the candidate: auto (as its checkpoint asks), bfloat16 or fp8")
      ->capture_default_str();
  command.add_option("--threads", flags.threads, "0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

}  // namespace

void add_eval_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<EvalFlags>();
  CLI::App* command =
      program.add_subcommand("eval", "Measure a pair, alone or against the one it was made from");
  add_input_flags(*command, *flags);
  add_prompt_flags(*command, flags->prompt, /*with_raw=*/false);
  add_compute_flags(*command, *flags);
  add_gate_flags(*command, *flags);
  command->callback([flags, &exit_code] {
    const base::Result<int> status = run(*flags);
    exit_code = status ? *status : report(status.error());
  });
}

}  // namespace tandem::cli
