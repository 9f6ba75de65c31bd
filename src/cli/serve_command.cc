// tandem serve: the OpenAI-compatible server.
#include <CLI/CLI.hpp>
#include <csignal>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cli/command.h"
#include "cli/files.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "cli/sampling_flags.h"
#include "cli/serve_flags.h"
#include "gpu/device_step.h"
#include "ops/cpu/isa.h"
#include "server/server.h"

namespace tandem::cli {
namespace {

const double kMemoryShare = ModelFlags().gpu_memory_utilization;
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

base::Result<text::ChatTemplate> load_template(const ServeFlags& flags) {
  if (flags.chat_template.empty()) return text::ChatTemplate::load_for_model(flags.model.target);
  TANDEM_ASSIGN_OR_RETURN(const std::string source,
                          read_text_file(flags.chat_template, kMaxTemplateBytes));
  return text::ChatTemplate::parse(source, flags.chat_template);
}

std::string describe_weights(const io::Checkpoint& checkpoint) {
  const io::QuantizationInfo& info = checkpoint.quantization();
  int64_t bytes = 0;
  for (const auto& tensor : checkpoint.stored_tensors())
    bytes += tensor.view.shape.num_elements() *
             static_cast<int64_t>(core::dtype_bytes(tensor.view.dtype));
  return fmt::format(
      "{} ({}{}, {})", checkpoint.dir().string(), info.quantized ? info.algorithm : "BF16",
      info.weight_only ? ", weights only" : "", describe_bytes(static_cast<double>(bytes)));
}

std::string describe_drafts(const engine::RuntimeOptions& options) {
  if (options.num_draft_tokens == 0) return "off";
  if (options.auto_drafts)
    return fmt::format("up to {} draft tokens, as pays in each round", options.num_draft_tokens);
  std::string text = fmt::format("{} draft tokens", options.num_draft_tokens);
  for (const auto& [num_requests, count] : options.drafts_from)
    text += fmt::format(", {} from {} requests on", count, num_requests);
  return text;
}

// What it will use, before the first request.
void log_setup(const engine::Runtime& runtime, const engine::RuntimeOptions& options,
               const server::ServedModel& model, int64_t block_size) {
  const model::Pair& pair = runtime.pair();
  base::log_info("target: {}", describe_weights(*pair.target_checkpoint));
  if (pair.assistant_checkpoint != nullptr)
    base::log_info("assistant: {}", describe_weights(*pair.assistant_checkpoint));
  base::log_info("speculation: {}{}", describe_drafts(options),
                 options.synthetic ? ", synthetic acceptance" : "");
  const engine::KvPlan& plan = runtime.kv_plan();
  base::log_info("activations: {}; {} threads, {}",
                 options.pair.model.compute == model::Compute::kFloat32 ? "FP32" : "BF16",
                 runtime.num_threads(), ops::cpu::isa_name(ops::cpu::isa()));
  base::log_info(
      "KV cache: {} in {}, {} tokens in full layers, {} requests at once, of up to {} tokens each",
      describe_bytes(static_cast<double>(plan.size_bytes)), core::dtype_name(runtime.kv_dtype()),
      plan.num_page_blocks * block_size, plan.max_num_seqs, model.max_request_tokens);
  base::log_info("prefix cache: {}",
                 !options.prefix_caching
                     ? "off"
                     : fmt::format("on, {} of these for snapshots of {} blocks",
                                   describe_bytes(static_cast<double>(plan.snapshot_bytes)),
                                   plan.num_snapshot_blocks));
}

base::Result<server::ServedModel> served_model(const ServeFlags& flags, engine::Runtime& runtime) {
  const io::Checkpoint& checkpoint = *runtime.pair().target_checkpoint;
  SamplingFlags sampling;
  sampling.generation_config = flags.generation_config == "auto" ? "auto" : "none";
  TANDEM_RETURN_IF_ERROR(read_sampling_overrides(flags.sampling_overrides, sampling));
  TANDEM_ASSIGN_OR_RETURN(sampling::SamplingParams defaults,
                          sampling_params(sampling, checkpoint.generation_config(),
                                          checkpoint.config().text.vocab_size));
  TANDEM_ASSIGN_OR_RETURN(text::Tokenizer tokenizer,
                          text::Tokenizer::load_for_model(flags.model.target));
  if (tokenizer.vocab_size() > checkpoint.config().text.vocab_size)
    return base::invalid(
        "{}: tokenizer.json: expected at most {} tokens (vocab_size of config.json), got {}; it "
        "belongs to another model",
        flags.model.target, checkpoint.config().text.vocab_size, tokenizer.vocab_size());
  TANDEM_ASSIGN_OR_RETURN(text::ChatTemplate chat_template, load_template(flags));
  auto kwargs = nlohmann::ordered_json::object();
  if (!flags.chat_template_kwargs.empty())
    kwargs = nlohmann::ordered_json::parse(flags.chat_template_kwargs);
  std::vector<std::string> names = flags.served_model_names;
  if (names.empty()) names = {flags.model.target};
  auto grammars = std::make_shared<text::GrammarCompiler>(
      tokenizer, engine::eos_token_ids(*runtime.pair().target),
      checkpoint.config().text.vocab_size);
  return server::ServedModel{
      .names = std::move(names),
      .root = io::folder_name(flags.model.target),
      .version = TANDEM_VERSION,
      .tokenizer = std::move(tokenizer),
      .chat_template = std::move(chat_template),
      .grammars = std::move(grammars),
      .template_kwargs = std::make_shared<const nlohmann::ordered_json>(std::move(kwargs)),
      .sampling = std::move(defaults),
      .modality_ids = checkpoint.config().modality_token_ids,
      .vocab_size = checkpoint.config().text.vocab_size,
      .max_model_len = runtime.engine().options().max_model_len,
      .max_request_tokens = runtime.engine().max_request_tokens(),
      .block_size = flags.block_size,
      .num_pages = runtime.kv_plan().num_page_blocks,
      .num_draft_tokens = runtime.engine().options().num_draft_tokens,
      .dummy_weights = flags.model.load_format == "dummy",
      .synthetic_acceptance = !runtime.engine().options().watch_acceptance,
      .log_requests = flags.log_requests,
      .spec_metrics = flags.spec_metrics,
      .prompt_details = flags.prompt_details,
      .priorities = runtime.engine().options().priorities,
      .trust_templates = flags.trust_chat_templates,
      .stream_interval = flags.stream_interval,
      .started = std::time(nullptr)};
}

base::Status run(ServeFlags flags) {
  const InterruptGuard guard;
  // Whoever reads the log may go away; the clients are still there.
  std::signal(SIGPIPE, SIG_IGN);
  TANDEM_ASSIGN_OR_RETURN(flags.model.speculative_config, speculative_config(flags));
  std::vector<std::string> notes;
  TANDEM_RETURN_IF_ERROR(check_serve_flags(flags, notes));
  for (const std::string& note : notes) base::log_info("{}", note);
  TANDEM_ASSIGN_OR_RETURN(engine::RuntimeOptions options, runtime_options(flags.model));
  TANDEM_ASSIGN_OR_RETURN(options.max_model_len, parse_model_len(flags.max_model_len));
  options.block_size = flags.block_size;
  options.seed = flags.seed;
  options.priorities = flags.scheduling_policy == "priority";
  TANDEM_ASSIGN_OR_RETURN(const auto runtime, open_runtime(options));
  if (runtime->gpu_name().empty() && flags.model.gpu_memory_utilization != kMemoryShare)
    base::log_info(
        "--gpu-memory-utilization {}: changes nothing: on a CPU the memory of the KV cache is "
        "--kv-cache-gib",
        flags.model.gpu_memory_utilization);
  const io::Checkpoint& target = *runtime->pair().target_checkpoint;
  TANDEM_RETURN_IF_ERROR(check_quantization("serve: --quantization", flags.quantization,
                                            target.quantization(), target.dir()));
  TANDEM_ASSIGN_OR_RETURN(const server::ServedModel model, served_model(flags, *runtime));
  log_setup(*runtime, options, model, flags.block_size);
  server::ServeOptions serve;
  serve.http.host = flags.host;
  serve.http.root_path = flags.root_path;
  serve.http.port = static_cast<uint16_t>(flags.port);
  serve.http.num_threads = flags.http_threads;
  serve.service = {.api_keys = flags.api_keys,
                   .request_id_headers = flags.request_id_headers,
                   .response_store_bytes = static_cast<size_t>(flags.response_store_mib) << 20};
  serve.engine = {.max_requests = runtime->kv_plan().max_num_seqs + flags.max_num_queued,
                  .stuck_seconds = flags.step_seconds};
  if (runtime->device_step() != nullptr)
    serve.engine.set_meanwhile = [&runtime](std::function<void()> work) {
      runtime->set_meanwhile(std::move(work));
    };
  serve.shutdown_seconds = flags.shutdown_seconds;
  serve.log_stats = !flags.disable_log_stats;
  return server::serve(runtime->engine(), model, serve,
                       [] { return InterruptGuard::interrupted(); });
}

}  // namespace

void add_serve_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = program.add_subcommand("serve", "Serve the pair with OpenAI's API");
  add_serve_flags(*command, *flags);
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
