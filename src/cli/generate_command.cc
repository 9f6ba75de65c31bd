// tandem generate: answers prompts, one or many, streaming or as JSON.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/form_flags.h"
#include "cli/generate_output.h"
#include "cli/generation.h"
#include "cli/interrupt.h"
#include "cli/model_flags.h"
#include "cli/prompt_encoder.h"
#include "cli/sampling_flags.h"

namespace tandem::cli {
namespace {

struct GenerateFlags {
  ModelFlags model;
  SamplingFlags sampling;
  PromptFlags prompt_options;
  FormFlags form;
  std::optional<std::string> prompt;
  std::string prompts_file;
  std::string token_ids;
  bool json = false;
  bool show_accepted = false;
};

base::Result<std::vector<PromptEntry>> read_entries(const GenerateFlags& flags,
                                                    int64_t vocab_size) {
  const int num_given = static_cast<int>(flags.prompt.has_value()) +
                        static_cast<int>(!flags.prompts_file.empty()) +
                        static_cast<int>(!flags.token_ids.empty());
  if (num_given != 1)
    return base::invalid(
        "generate: expected one of --prompt TEXT, --prompts-file FILE, --token-ids FILE, got {}",
        num_given == 0 ? "none" : "several");
  if (!flags.prompts_file.empty()) return read_prompts_file(flags.prompts_file);
  if (!flags.token_ids.empty()) return read_token_ids_file(flags.token_ids, vocab_size);
  return std::vector<PromptEntry>{prompt_entry(*flags.prompt)};
}

// What the way of giving prompts leaves no part in: better refused than ignored.
base::Status check_prompt_flags(const GenerateFlags& flags) {
  const PromptFlags& prompt = flags.prompt_options;
  const bool for_template = !prompt.system.empty() || !prompt.chat_template.empty();
  const bool for_form = !prompt.chat_template_kwargs.empty() || prompt.raw;  // where it begins
  if (!flags.token_ids.empty() &&
      (for_template || prompt.no_bos || prompt.allow_special || (for_form && !flags.form.any())))
    return base::invalid(
        "--token-ids: expected none of --system, --chat-template, --chat-template-kwargs, --raw, "
        "--no-bos and --allow-special beside it: the ids are the whole prompt");
  if (prompt.raw && (for_template || !prompt.chat_template_kwargs.empty()))
    return base::invalid(
        "--raw: expected none of --system, --chat-template and --chat-template-kwargs beside it: "
        "prompts are taken as they are, without a template");
  if (prompt.no_bos && !prompt.raw)
    return base::invalid("--no-bos: expected --raw beside it, got none: the template writes <bos>");
  return {};
}

struct Prepared {
  std::vector<GenerateItem> items;
  std::vector<GenerationRequest> requests;
};

base::Result<Prepared> prepare(const GenerateFlags& flags, const io::ModelConfig& config,
                               const std::vector<PromptEntry>& entries,
                               const PromptEncoder& encoder,
                               const sampling::SamplingParams& sampling) {
  const int64_t longest = flags.model.max_model_len > 0 ? flags.model.max_model_len
                                                        : config.text.max_position_embeddings;
  Prepared prepared;
  for (const PromptEntry& entry : entries) {
    TANDEM_ASSIGN_OR_RETURN(EncodedPrompt encoded, encoder.encode(entry));
    const auto num_prompt_tokens = static_cast<int64_t>(encoded.ids.size());
    if (num_prompt_tokens >= longest)
      return base::invalid(
          "{}: expected a prompt of fewer than {} tokens ({}), got {}", entry.where, longest,
          flags.model.max_model_len > 0 ? "--max-model-len" : "max_position_embeddings",
          num_prompt_tokens);
    const bool is_ids = !entry.token_ids.empty();
    prepared.items.push_back({entry.id,
                              is_ids ? std::nullopt : std::optional(std::move(encoded.text)),
                              title_of(entry)});
    prepared.requests.push_back(
        {.where = entry.where,
         .prompt_ids = std::move(encoded.ids),
         .sampling = sampling,
         .max_tokens = std::min(flags.sampling.max_tokens, longest - num_prompt_tokens),
         .stop = flags.sampling.stop,
         .include_stop_str_in_output = flags.sampling.include_stop_str_in_output});
  }
  return prepared;
}

// No more KV cache than these requests can use.
void fit_cache(const Prepared& prepared, engine::RuntimeOptions& options) {
  int64_t longest = 2;
  for (const GenerationRequest& request : prepared.requests)
    longest =
        std::max(longest, static_cast<int64_t>(request.prompt_ids.size()) + request.max_tokens);
  options.max_model_len = longest;
  options.max_num_seqs =
      std::min(options.max_num_seqs, static_cast<int64_t>(prepared.requests.size()));
}

base::Status run(const GenerateFlags& flags) {
  const InterruptGuard guard;
  TANDEM_RETURN_IF_ERROR(check_prompt_flags(flags));
  TANDEM_ASSIGN_OR_RETURN(engine::RuntimeOptions options, runtime_options(flags.model));
  TANDEM_ASSIGN_OR_RETURN(const io::ModelConfig config,
                          io::read_model_config(flags.model.target, flags.model.hf_overrides));
  TANDEM_RETURN_IF_ERROR(io::require_target(flags.model.target, config));
  TANDEM_ASSIGN_OR_RETURN(const io::GenerationConfig defaults,
                          io::read_generation_config(flags.model.target, config.text.vocab_size));
  TANDEM_ASSIGN_OR_RETURN(const sampling::SamplingParams sampling,
                          sampling_params(flags.sampling, defaults, config.text.vocab_size));
  TANDEM_ASSIGN_OR_RETURN(const std::vector<PromptEntry> entries,
                          read_entries(flags, config.text.vocab_size));
  const bool needs_text =
      flags.token_ids.empty() || !flags.sampling.stop.empty() || flags.form.any();
  TANDEM_ASSIGN_OR_RETURN(
      const PromptEncoder encoder,
      PromptEncoder::open(flags.model.target, config, flags.prompt_options, needs_text));
  TANDEM_ASSIGN_OR_RETURN(Prepared prepared, prepare(flags, config, entries, encoder, sampling));
  fit_cache(prepared, options);
  TANDEM_ASSIGN_OR_RETURN(const auto runtime, open_runtime(options));
  TANDEM_RETURN_IF_ERROR(apply_form(flags.form, flags.prompt_options, entries, encoder.tokenizer(),
                                    *runtime, prepared.requests));
  GenerateOutput output(std::move(prepared.items), {.json = flags.json,
                                                    .show_accepted = flags.show_accepted,
                                                    .num_draft_tokens = options.num_draft_tokens,
                                                    .synthetic = options.synthetic.has_value()});
  TANDEM_ASSIGN_OR_RETURN(const std::vector<GenerationState> states,
                          generate(*runtime, encoder.tokenizer(), std::move(prepared.requests),
                                   {.on_text =
                                        [&](size_t index, const GenerationState& state,
                                            std::span<const AnswerText> texts) {
                                          output.add_text(index, state, texts);
                                        },
                                    .on_step = [&] { output.show_progress(); }}));
  return output.finish(states);
}

}  // namespace

void add_generate_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = program.add_subcommand("generate", "Answer one prompt or many");
  add_model_flags(*command, flags->model);
  command->add_option("--prompt", flags->prompt, "a user's message");
  command->add_option("--prompts-file", flags->prompts_file,
                      R"(.jsonl of {"prompt": ...} or {"messages": [...]}, or lines of text)");
  command->add_option("--token-ids", flags->token_ids,
                      "JSON list of token ids, or a list of such lists");
  command->add_flag("--json", flags->json, "one JSON object per request");
  command->add_flag("--show-accepted", flags->show_accepted,
                    "accepted drafts in green, on a terminal");
  add_prompt_flags(*command, flags->prompt_options, /*with_raw=*/true);
  add_sampling_flags(*command, flags->sampling);
  add_form_flags(*command, flags->form);
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
