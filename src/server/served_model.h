// What the routes know of the model: names, tokenizer, template, defaults, limits. Immutable.
#pragma once

#include <cstdint>
#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "sampling/params.h"
#include "text/chat_template.h"
#include "text/grammar/compiled_grammar.h"
#include "text/tokenizer.h"

namespace tandem::server {

struct ServedModel {
  std::vector<std::string> names;  // the first one is used in replies
  std::string root;                // what /v1/models shows as the origin
  std::string version;
  text::Tokenizer tokenizer;
  text::ChatTemplate chat_template;
  std::shared_ptr<text::GrammarCompiler> grammars;
  std::shared_ptr<const nlohmann::ordered_json> template_kwargs;  // defaults; an object
  sampling::SamplingParams sampling;                              // of requests that name none
  std::vector<int32_t> modality_ids;  // refused in prompts: Tandem reads text only
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
  int64_t max_request_tokens = 0;  // prompt and output; what the KV cache holds
  int64_t block_size = 0;
  int64_t num_pages = 0;
  int num_draft_tokens = 0;
  // For measuring; /metrics says so.
  bool dummy_weights = false;
  bool synthetic_acceptance = false;
  bool log_requests = false;     // a line for each that ends
  bool spec_metrics = false;     // speculative statistics in every answer
  bool prompt_details = false;   // usage.prompt_tokens_details
  bool priorities = false;       // requests may have one
  bool trust_templates = false;  // requests may bring a chat template of their own
  int64_t stream_interval = 1;   // of requests that name none
  std::time_t started = 0;
};

}  // namespace tandem::server
