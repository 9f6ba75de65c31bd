// tandem quantize: FP8 checkpoints of a pair, calibrated by running it.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>

#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/prompt_encoder.h"
#include "cli/prompts.h"
#include "cli/terminal.h"
#include "quantize/default_prompts.h"
#include "quantize/quantize.h"

namespace tandem::cli {
namespace {

struct QuantizeFlags {
  std::string target;
  std::string assistant;
  std::string out_target;
  std::string out_assistant;
  std::string prompts;
  std::string token_ids;
  std::string scale = "max";
  std::string quotient = "float32";
  std::string kv_cache_dtype = "auto";
  std::optional<double> temperature;  // none: as generation_config.json says
  std::optional<double> percentile;
  std::optional<double> auto_exclude;
  int64_t num_prompts = 0;
  int threads = 0;
  bool dry_run = false;
  PromptFlags prompt;
  quantize::QuantizeOptions options;
};

// One bar after another, as the work goes through its phases.
class PhaseBars {
 public:
  bool update(std::string_view phase, int64_t done, int64_t total) {
    if (!bar_ || phase != phase_) {
      phase_ = phase;
      bar_.reset();
      bar_ = std::make_unique<Progress>(phase_);
    }
    bar_->update(done, total);
    return !InterruptGuard::interrupted();
  }

 private:
  std::string phase_;
  std::unique_ptr<Progress> bar_;
};

base::Result<quantize::QuantizeOptions> make_options(const QuantizeFlags& flags,
                                                     const io::Checkpoint& target) {
  quantize::QuantizeOptions options = flags.options;
  if (!flags.out_target.empty()) options.out_target = flags.out_target;
  if (!flags.out_assistant.empty()) options.out_assistant = flags.out_assistant;
  TANDEM_ASSIGN_OR_RETURN(options.scales.method, quantize::parse_scale_method(flags.scale));
  if (flags.percentile && options.scales.method != quantize::ScaleMethod::kPercentile)
    return base::invalid("--percentile: expected --scale percentile with it, got --scale {}",
                         flags.scale);
  options.scales.percentile = flags.percentile.value_or(options.scales.percentile);
  TANDEM_ASSIGN_OR_RETURN(options.scales.quotient, quantize::parse_quotient(flags.quotient));
  if (flags.kv_cache_dtype != "auto" && flags.kv_cache_dtype != "fp8")
    return base::invalid("--kv-cache-dtype: expected auto or fp8, got {}", flags.kv_cache_dtype);
  options.scales.kv_fp8 = flags.kv_cache_dtype == "fp8";
  options.auto_exclude = flags.auto_exclude;
  options.calibration.sampling = quantize::default_sampling(target);
  if (flags.temperature) options.calibration.sampling.temperature = *flags.temperature;
  options.version = TANDEM_VERSION;
  return options;
}

base::Result<std::vector<PromptEntry>> read_entries(const QuantizeFlags& flags,
                                                    int64_t vocab_size) {
  std::vector<PromptEntry> entries;
  if (!flags.token_ids.empty()) {
    TANDEM_ASSIGN_OR_RETURN(entries, read_token_ids_file(flags.token_ids, vocab_size));
  } else if (!flags.prompts.empty()) {
    TANDEM_ASSIGN_OR_RETURN(entries, read_prompts_file(flags.prompts));
  } else {
    for (const std::string_view prompt : quantize::default_prompts())
      entries.push_back(prompt_entry(std::string(prompt)));
  }
  const auto wanted = static_cast<size_t>(flags.num_prompts);
  if (wanted > entries.size())
    return base::invalid("--num-prompts: expected at most {}, as many as there are, got {}",
                         entries.size(), wanted);
  if (wanted > 0) entries.resize(wanted);
  return entries;
}

base::Result<std::vector<std::vector<int32_t>>> encode_prompts(const QuantizeFlags& flags,
                                                               const io::Checkpoint& target) {
  TANDEM_ASSIGN_OR_RETURN(const std::vector<PromptEntry> entries,
                          read_entries(flags, target.config().text.vocab_size));
  TANDEM_ASSIGN_OR_RETURN(const PromptEncoder encoder,
                          PromptEncoder::open(flags.target, target.config(), flags.prompt,
                                              /*needs_tokenizer=*/flags.token_ids.empty()));
  std::vector<std::vector<int32_t>> prompts;
  for (const PromptEntry& entry : entries) {
    TANDEM_ASSIGN_OR_RETURN(EncodedPrompt encoded, encoder.encode(entry));
    prompts.push_back(std::move(encoded.ids));
  }
  return prompts;
}

void print_model(const char* name, const quantize::ModelResult& model, bool dry_run,
                 Output& output) {
  std::string line = fmt::format("{}: {} modules in FP8, {} kept in BF16 on request, {} {} {}\n",
                                 name, model.plan.quantized.size(), model.plan.excluded.size(),
                                 describe_bytes(static_cast<double>(model.bytes)),
                                 dry_run ? "would go to" : "in", model.out.string());
  if (model.auto_exclusion)
    line +=
        fmt::format("{}: quantization costs {:.4g} ({:.4g} without exclusions)\n", name,
                    model.auto_exclusion->measured_after, model.auto_exclusion->measured_before);
  for (const std::string& entry : model.exclusions)
    line += fmt::format("{}: not quantized: {}\n", name, entry);
  output.write(line);
}

base::Status print_result(const quantize::QuantizeResult& result, bool dry_run) {
  Output output(1);
  if (!dry_run)
    output.write(
        fmt::format("calibration: {} prompts, {} tokens generated, mean acceptance length {:.2f}\n",
                    result.calibration.texts.size(), result.calibration.num_generated,
                    result.calibration.stats.mean_acceptance_length()));
  if (result.target) print_model("target", *result.target, dry_run, output);
  if (result.assistant) print_model("assistant", *result.assistant, dry_run, output);
  return output.status();
}

base::Status run(const QuantizeFlags& flags) {
  const InterruptGuard guard;
  PhaseBars bars;
  model::PairOptions pair_options;
  pair_options.target = flags.target;
  if (!flags.assistant.empty()) pair_options.assistant = flags.assistant;
  pair_options.check_values = !flags.dry_run;
  pair_options.progress = [&](const std::filesystem::path& dir, int64_t done, int64_t total) {
    bars.update("loading " + dir.string(), done, total);
  };
  TANDEM_ASSIGN_OR_RETURN(model::Pair pair, model::load_pair(pair_options));
  TANDEM_ASSIGN_OR_RETURN(const quantize::QuantizeOptions options,
                          make_options(flags, *pair.target_checkpoint));
  TANDEM_RETURN_IF_ERROR(quantize::check_options(options, pair));
  TANDEM_ASSIGN_OR_RETURN(const auto prompts, encode_prompts(flags, *pair.target_checkpoint));
  if (flags.dry_run) {
    TANDEM_ASSIGN_OR_RETURN(const quantize::QuantizeResult result,
                            quantize::dry_run(pair, options));
    return print_result(result, true);
  }
  core::ThreadPool pool(flags.threads);
  const ops::Context context{ops::Backend::kCpu, &pool};
  const auto result =
      quantize::quantize_pair(context, std::move(pair), prompts, options,
                              [&](std::string_view phase, int64_t done, int64_t total) {
                                return bars.update(phase, done, total);
                              });
  if (!result) return tl::unexpected<base::Error>(result.error());
  return print_result(*result, false);
}

void add_calibration_flags(CLI::App& command, QuantizeFlags& flags) {
  auto& calibration = flags.options.calibration;
  auto* prompts = command.add_option("--prompts", flags.prompts,
                                     "calibration prompts: .jsonl with prompt or messages, or one "
                                     "prompt per line; default: 32 of our own");
  command
      .add_option("--token-ids", flags.token_ids,
                  "calibration prompts as a JSON list of lists of token ids")
      ->excludes(prompts);
  command.add_option("--num-prompts", flags.num_prompts, "use the first N only; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->capture_default_str();
  command.add_option("--max-new-tokens", calibration.max_new_tokens, "tokens of an answer")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option("--num-speculative-tokens", calibration.num_draft_tokens,
                  "tokens drafted per round while calibrating")
      ->check(CLI::Range(1, speculation::kMaxDraftTokens))
      ->capture_default_str();
  command.add_option("--seed", calibration.seed, "of the sampled answers")->capture_default_str();
  command
      .add_option("--temperature", flags.temperature,
                  "of the answers, 0: greedy; default: generation_config.json's")
      ->check(CLI::Range(0.0, 100.0));
}

void add_scale_flags(CLI::App& command, QuantizeFlags& flags) {
  auto& scales = flags.options.scales;
  command.add_option("--scale", flags.scale, "max, mse or percentile")->capture_default_str();
  command.add_option("--percentile", flags.percentile, "of |x|, with --scale percentile")
      ->check(CLI::Range(50.0, 100.0))
      ->default_str(fmt::format("{}", scales.percentile));
  command
      .add_option("--quotient", flags.quotient,
                  "precision of weight / scale before rounding: float32, or bfloat16 for the same "
                  "bytes as ModelOpt")
      ->capture_default_str();
  command.add_flag("--weight-only", scales.weight_only,
                   "activations stay BF16 at run time; input scales are still exported");
  command.add_option("--kv-cache-dtype", flags.kv_cache_dtype, "auto, or fp8 with k and v scales")
      ->capture_default_str();
  command
      .add_option("--exclude", flags.options.exclude,
                  "keep these modules in BF16, for example *.down_proj; repeatable")
      ->allow_extra_args(false);
  command
      .add_option("--auto-exclude", flags.auto_exclude,
                  "keep the costliest modules in BF16 until the target's KL per token (nats) and "
                  "the assistant's lost share of acceptance length are at most this, e.g. 0.01")
      ->check(CLI::Range(0.0, 1e6));
}

// As CLI::AsSizeValue reads it; its own sentences show a part of what was given, or no part.
CLI::Validator size_value() {
  const CLI::AsSizeValue read(/*kb_is_1000=*/true);
  return CLI::Validator(
      [read](std::string& text) {
        const std::string given = text;
        std::string fault;
        try {
          fault = read(text);
        } catch (const CLI::ValidationError& error) {
          fault = error.what();
        }
        return fault.empty() ? fault
                             : fmt::format("Value {} not in range a size such as 5GB", given);
      },
      read.get_description());
}

}  // namespace

void add_quantize_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = program.add_subcommand(
      "quantize", "Write FP8 checkpoints of a BF16 pair, calibrated by speculative decoding");
  command->add_option("--target", flags->target, "folder of the BF16 target")->required();
  command->add_option("--assistant", flags->assistant, "folder of the BF16 assistant");
  command->add_option("--out-target", flags->out_target, "new folder for the FP8 target");
  command->add_option("--out-assistant", flags->out_assistant, "new folder for the FP8 assistant");
  add_calibration_flags(*command, *flags);
  add_scale_flags(*command, *flags);
  command
      ->add_option("--max-shard-size", flags->options.max_shard_bytes,
                   "larger models are split into shards, e.g. 5GB")
      ->transform(size_value())
      ->default_str("5GB");
  command->add_flag("--force", flags->options.force, "replace output folders that have files");
  command->add_flag("--dry-run", flags->dry_run, "say what would be written, and write nothing");
  command->add_option("--threads", flags->threads, "0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
