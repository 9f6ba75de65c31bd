#include "cli/form_flags.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "cli/files.h"
#include "io/json.h"
#include "server/answer_form.h"
#include "text/grammar/answer_grammar.h"

namespace tandem::cli {
namespace {

constexpr size_t kMaxFileBytes = size_t{256} << 10;

base::Result<text::GrammarText> form_of(const FormFlags& flags) {
  if (flags.regex) return text::regex_grammar(*flags.regex, "--regex");
  if (!flags.choices.empty()) return text::choice_grammar(flags.choices, "--choice");
  if (flags.grammar) {
    TANDEM_ASSIGN_OR_RETURN(const std::string grammar,
                            read_text_file(*flags.grammar, kMaxFileBytes));
    return text::user_grammar(grammar, *flags.grammar);
  }
  TANDEM_ASSIGN_OR_RETURN(const std::string schema,
                          read_text_file(*flags.json_schema, kMaxFileBytes));
  const auto checked =
      io::parse_json(schema, *flags.json_schema, {.max_bytes = kMaxFileBytes, .max_depth = 64});
  if (!checked) return tl::unexpected<base::Error>(checked.error());
  return text::json_schema_grammar(nlohmann::ordered_json::parse(schema), *flags.json_schema);
}

// An entry's own word counts before the flag's, as it does for the template.
bool thinks(const PromptFlags& prompts, const PromptEntry& entry) {
  if (entry.kwargs != nullptr && entry.kwargs->contains("enable_thinking"))
    return text::thinking_is_on(*entry.kwargs);
  return text::thinking_is_on(
      nlohmann::ordered_json::parse(prompts.chat_template_kwargs, nullptr, false));
}

}  // namespace

void add_form_flags(CLI::App& command, FormFlags& flags) {
  command.add_option("--json-schema", flags.json_schema, "answers are JSON that satisfies FILE");
  command.add_option("--regex", flags.regex, "answers match this");
  // One text each: where more may follow, the parser takes "[a,b]" for a list.
  command.add_option("--choice", flags.choices, "answers are one of these; several times")
      ->allow_extra_args(false);
  command.add_option("--grammar", flags.grammar, "answers follow the GBNF grammar in FILE");
}

base::Status apply_form(const FormFlags& flags, const PromptFlags& prompts,
                        std::span<const PromptEntry> entries, const text::Tokenizer* tokenizer,
                        const engine::Runtime& runtime, std::vector<GenerationRequest>& requests) {
  if (!flags.any()) return {};
  const int num_forms = int{flags.json_schema.has_value()} + int{flags.regex.has_value()} +
                        int{!flags.choices.empty()} + int{flags.grammar.has_value()};
  if (num_forms != 1)
    return base::invalid(
        "generate: expected one of --json-schema, --regex, --choice, --grammar, got several");
  TANDEM_CHECK(tokenizer != nullptr);
  const model::TargetModel& target = *runtime.pair().target;
  text::GrammarCompiler compiler(*tokenizer, engine::eos_token_ids(target),
                                 target.config().vocab_size);
  TANDEM_ASSIGN_OR_RETURN(const text::GrammarText form, form_of(flags));
  TANDEM_CHECK_EQ(entries.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    GenerationRequest& request = requests[i];
    if (request.sampling.ignore_eos || request.sampling.min_tokens > 0)
      return base::invalid("generate: expected no --ignore-eos and no --min-tokens with a form");
    const text::Thought thought =
        prompts.raw
            ? text::Thought::kNone
            : server::thought_after(request.prompt_ids, thinks(prompts, entries[i]), *tokenizer);
    const text::GrammarText whole =
        text::after_thought(form, thought, *tokenizer, compiler.end_ids());
    TANDEM_ASSIGN_OR_RETURN(request.grammar, compiler.compile(whole.ebnf, whole.root, "generate"));
  }
  return {};
}

}  // namespace tandem::cli
