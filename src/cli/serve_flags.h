// The flags of `tandem serve`: its own, and those that users of vLLM bring along.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/model_flags.h"

namespace tandem::cli {

struct ServeFlags {
  ModelFlags model;
  std::string max_model_len = "auto";
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string root_path;
  std::vector<std::string> api_keys;
  std::vector<std::string> served_model_names;
  std::string chat_template;
  std::string chat_template_kwargs;
  bool trust_chat_templates = false;
  std::string generation_config = "auto";
  std::string sampling_overrides;  // JSON; empty: none
  std::string quantization;
  std::string limit_mm_per_prompt;
  // Parts of --speculative-config in flags of their own; empty: not given.
  std::string spec_method;
  std::string spec_model;
  std::string spec_tokens;
  int64_t max_num_queued = 256;
  int64_t block_size = 32;
  uint64_t seed = 0;
  int http_threads = 2;
  int shutdown_seconds = 30;
  double step_seconds = 300;
  int64_t response_store_mib = 64;
  bool request_id_headers = false;
  bool log_requests = false;
  bool spec_metrics = false;
  bool prompt_details = false;
  std::string scheduling_policy = "fcfs";
  bool disable_log_stats = false;
  int64_t stream_interval = 1;

  // Flags of other servers that were given, with their values.
  struct Foreign {
    std::string flag;
    std::string value;
  };
  std::vector<Foreign> foreign;
};

void add_serve_flags(CLI::App& command, ServeFlags& flags);

// What is wrong with the values; reads no file. Notes on flags that change nothing are appended.
base::Status check_serve_flags(const ServeFlags& flags, std::vector<std::string>& notes);

// --speculative-config with --spec-method, --spec-model and --spec-tokens put into it; empty
// without any of them.
base::Result<std::string> speculative_config(const ServeFlags& flags);

// 8192, 8k (1000), 8K (1024), 1m, 1M; -1 or auto: 0.
base::Result<int64_t> parse_model_len(const std::string& text);

// For `serve`, --max_model_len means --max-model-len, as in vLLM.
void accept_underscores(std::vector<std::string>& arguments);

}  // namespace tandem::cli
