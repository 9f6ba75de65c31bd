// tandem chat: a conversation in the terminal.
#include <CLI/CLI.hpp>
#include <memory>
#include <random>

#include "cli/chat_session.h"
#include "cli/command.h"
#include "cli/interrupt.h"

namespace tandem::cli {
namespace {

// A conversation needs one place at a time, and no more memory than it is likely to use.
constexpr int64_t kDefaultChatLen = 8192;

base::Status run(const ChatFlags& flags) {
  const InterruptGuard guard;
  TANDEM_ASSIGN_OR_RETURN(engine::RuntimeOptions options, runtime_options(flags.model));
  TANDEM_ASSIGN_OR_RETURN(const io::ModelConfig config,
                          io::read_model_config(flags.model.target, flags.model.hf_overrides));
  TANDEM_RETURN_IF_ERROR(io::require_target(flags.model.target, config));
  TANDEM_ASSIGN_OR_RETURN(const io::GenerationConfig defaults,
                          io::read_generation_config(flags.model.target, config.text.vocab_size));
  TANDEM_ASSIGN_OR_RETURN(const sampling::SamplingParams sampling,
                          sampling_params(flags.sampling, defaults, config.text.vocab_size));
  TANDEM_ASSIGN_OR_RETURN(
      const PromptEncoder encoder,
      PromptEncoder::open(flags.model.target, config, flags.prompt, /*needs_tokenizer=*/true));
  options.max_num_seqs = 1;
  // Two chats without --seed should not be the same chat.
  options.seed = std::random_device()();
  if (options.max_model_len == 0)
    options.max_model_len = std::min(kDefaultChatLen, config.text.max_position_embeddings);
  TANDEM_ASSIGN_OR_RETURN(const auto runtime, open_runtime(options));
  ChatSession session(flags, *runtime, encoder, sampling, options.num_draft_tokens,
                      options.synthetic.has_value());
  return session.run();
}

}  // namespace

void add_chat_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = program.add_subcommand("chat", "Talk to the pair in the terminal");
  add_model_flags(*command, flags->model);
  command->add_option("--history-file", flags->history_file,
                      "keep typed lines in this file (default: for this run only)");
  command->add_flag("--show-accepted", flags->show_accepted, "accepted drafts in green");
  add_prompt_flags(*command, flags->prompt, /*with_raw=*/false);
  add_sampling_flags(*command, flags->sampling);
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
