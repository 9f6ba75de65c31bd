// Grammars over the demo pair's vocabulary.
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "text/grammar/answer_grammar.h"
#include "text/grammar/compiled_grammar.h"
#include "text/tokenizer.h"

namespace tandem::text {

using Json = nlohmann::ordered_json;
using GrammarRef = std::shared_ptr<const CompiledGrammar>;

inline const Tokenizer& demo_tokenizer() {
  static const auto tokenizer =
      Tokenizer::load_for_model(std::string(TANDEM_SOURCE_DIR) + "/demo/target");
  if (!tokenizer) {
    ADD_FAILURE() << tokenizer.error().message;
    std::abort();
  }
  return *tokenizer;
}

inline int32_t demo_id(const char* token) {
  return demo_tokenizer().token_to_id(token).value();
}

inline std::vector<int32_t> demo_end_ids() {
  return {demo_id("<eos>"), demo_id("<turn|>"), demo_id("<|tool_response>")};
}

inline GrammarCompiler& demo_compiler() {
  static GrammarCompiler compiler(demo_tokenizer(), demo_end_ids(), demo_tokenizer().vocab_size());
  return compiler;
}

// Null after a failure that is reported.
inline GrammarRef compile(const base::Result<GrammarText>& text) {
  if (!text) {
    ADD_FAILURE() << text.error().message;
    return nullptr;
  }
  auto grammar = demo_compiler().compile(text->ebnf, text->root, "test");
  if (grammar) return *grammar;
  ADD_FAILURE() << grammar.error().message << "\n" << text->ebnf;
  return nullptr;
}

inline GrammarRef compile_schema(const char* schema) {
  return compile(json_schema_grammar(Json::parse(schema), "schema"));
}

inline std::string schema_refusal(const char* schema) {
  const auto text = json_schema_grammar(Json::parse(schema), "schema");
  return text ? "accepted" : text.error().message;
}

inline bool allows(std::span<const uint32_t> mask, int32_t id) {
  return mask.empty() ||
         ((mask[static_cast<size_t>(id) / 32] >> (static_cast<size_t>(id) % 32)) & 1U) != 0;
}

// Whether the ids, and after them an end, are allowed one after the other.
inline bool follows(const CompiledGrammar& grammar, std::span<const int32_t> ids) {
  const auto constraint = grammar.start();
  for (const int32_t id : ids) {
    if (!allows(constraint->allowed(), id)) return false;
    if (!constraint->accept(id)) return false;
  }
  return allows(constraint->allowed(), demo_end_ids()[1]);
}

}  // namespace tandem::text
