// Flags for the form of answers: --json-schema, --regex, --choice, --grammar.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/generation.h"
#include "cli/prompt_encoder.h"

namespace tandem::cli {

struct FormFlags {
  std::optional<std::string> json_schema;  // file
  std::optional<std::string> regex;
  std::vector<std::string> choices;
  std::optional<std::string> grammar;  // file

  bool any() const { return json_schema || regex || !choices.empty() || grammar; }
};

void add_form_flags(CLI::App& command, FormFlags& flags);

// Gives the requests, one for each entry, the grammar of the flags, if there is one. At most one
// flag may be given; `tokenizer` may be null without flags.
base::Status apply_form(const FormFlags& flags, const PromptFlags& prompts,
                        std::span<const PromptEntry> entries, const text::Tokenizer* tokenizer,
                        const engine::Runtime& runtime, std::vector<GenerationRequest>& requests);

}  // namespace tandem::cli
