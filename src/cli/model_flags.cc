#include "cli/model_flags.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <map>

#include "base/log.h"
#include "cli/interrupt.h"
#include "cli/progress.h"
#include "gpu/device_step.h"
#include "io/quantization_config.h"
#include "io/speculative_config.h"
#include "speculation/acceptance.h"

namespace tandem::cli {
namespace {

constexpr int kExitInterrupted = 130;
constexpr const char* kSpeculativeHelp =
    R"(the assistant, as JSON: {"model": DIR, "num_speculative_tokens": 0 to 8 or "auto"})";

base::Result<std::optional<speculation::SyntheticAcceptance>> synthetic_acceptance(
    const io::SpeculativeConfig& config) {
  using speculation::SyntheticAcceptance;
  std::optional<SyntheticAcceptance> synthetic;
  if (config.synthetic_acceptance_length) {
    TANDEM_ASSIGN_OR_RETURN(synthetic,
                            SyntheticAcceptance::from_length(*config.synthetic_acceptance_length,
                                                             config.num_speculative_tokens));
  } else if (!config.synthetic_acceptance_rates.empty()) {
    TANDEM_ASSIGN_OR_RETURN(synthetic,
                            SyntheticAcceptance::from_rates(config.synthetic_acceptance_rates));
  }
  return synthetic;
}

// What the configs alone tell, before anything is loaded.
base::Status check_assistant(const io::SpeculativeConfig& config) {
  if (!config.quantization) return {};
  TANDEM_ASSIGN_OR_RETURN(const io::QuantizationConfig found,
                          io::read_quantization_config(config.model));
  return check_quantization("--speculative-config: quantization", *config.quantization, found.info,
                            config.model);
}

base::Status apply_speculative_config(const std::string& json, engine::RuntimeOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const io::SpeculativeConfig config,
                          io::parse_speculative_config(json, speculation::kMaxDraftTokens));
  TANDEM_RETURN_IF_ERROR(check_assistant(config));
  for (const std::string& note : config.notes) base::log_info("{}", note);
  options.auto_drafts = config.automatic;
  options.drafts_from = config.drafts_from;
  options.pair.assistant = config.model;
  options.num_draft_tokens = config.num_speculative_tokens;
  options.draft_position_offset = config.draft_position_offset;
  options.draws_drafts = config.draws_drafts;
  TANDEM_ASSIGN_OR_RETURN(options.synthetic, synthetic_acceptance(config));
  return {};
}

void add_cache_flags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("--kv-cache-gib", flags.kv_cache_gib,
                  "most memory of the KV cache, in GiB; else 4 on a CPU, and on a GPU what "
                  "--gpu-memory-utilization leaves")
      ->check(CLI::Range(0.0, 1e6));
  command
      .add_option("--kv-cache-dtype", flags.kv_cache_dtype,
                  "auto (as the checkpoint asks), bfloat16, fp8 or fp8_e4m3")
      ->capture_default_str();
  command.add_flag("--enable-prefix-caching,!--no-enable-prefix-caching", flags.prefix_caching,
                   "prompts that begin alike are computed once");
}

void add_device_flags(CLI::App& command, ModelFlags& flags) {
  command
      .add_option("--head-screen", flags.head_screen,
                  "on a GPU, find greedy tokens and drafts through copies of the BF16 heads in 8 "
                  "bits: the same tokens for half the bytes, and half the heads' memory on top")
      ->check(CLI::IsMember({"on", "off"}))
      ->capture_default_str();
  command
      .add_option("--cpu-weights", flags.cpu_weights,
                  "on a CPU, mapped: weights are read where their file is mapped; copied: from a "
                  "copy in large pages, faster for as much memory as they take")
      ->check(CLI::IsMember({"mapped", "copied"}))
      ->capture_default_str();
  command.add_option("--device", flags.device, "cpu or cuda; auto: a GPU if there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command
      .add_option("--gpu-memory-utilization", flags.gpu_memory_utilization,
                  "share of the card's memory that weights and KV cache may take")
      ->check(CLI::Range(0.01, 1.0))
      ->capture_default_str();
  command.add_flag("--enforce-eager", flags.enforce_eager, "launch kernels without CUDA graphs");
  command.add_option("--threads", flags.threads, "0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
}

// What only the CPU computes falls back to it when the device was left open, and is refused when a
// GPU was asked for.
base::Result<bool> wants_gpu(const ModelFlags& flags) {
  if (flags.device == "cpu") return false;
  const char* only_on_cpu = flags.compute == "float32"             ? "--compute float32"
                            : flags.fp8_arithmetic != "checkpoint" ? "--fp8-arithmetic"
                                                                   : nullptr;
  if (flags.device == "auto") return only_on_cpu == nullptr && gpu::find_device().has_value();
  if (only_on_cpu != nullptr)
    return base::unsupported(
        "{}: expected the checkpoint's own arithmetic on a GPU; drop it, or "
        "use --device cpu",
        only_on_cpu);
  TANDEM_ASSIGN_OR_RETURN(const gpu::DeviceInfo info, gpu::find_device());
  (void)info;
  return true;
}

}  // namespace

base::Status check_quantization(std::string_view where, std::string_view said,
                                const io::QuantizationInfo& info,
                                const std::filesystem::path& dir) {
  const std::string_view found = !info.quantized                          ? "none"
                                 : info.algorithm == "compressed-tensors" ? "compressed-tensors"
                                                                          : "modelopt";
  if (said.empty() || said == found) return {};
  return base::invalid("{}: expected {} (what {} has), got {}", where, found, dir.string(), said);
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  command.add_option("target", flags.target, "folder of the target")->required();
  command.add_option("--speculative-config", flags.speculative_config, kSpeculativeHelp);
  command.add_option("--compute", flags.compute, "float32, bfloat16 or native")
      ->capture_default_str();
  command
      .add_option("--fp8-arithmetic", flags.fp8_arithmetic,
                  "checkpoint, weight-only or vllm-parity")
      ->capture_default_str();
  command
      .add_option("--draft-head", flags.draft_head,
                  "the assistant's head: as stored, or rounded to fp8 for guesses at half the "
                  "bytes; auto: fp8 on a CPU")
      ->check(CLI::IsMember({"auto", "checkpoint", "fp8"}))
      ->capture_default_str();
  add_device_flags(command, flags);
  command.add_option("--max-num-seqs", flags.max_num_seqs, "requests that run at once")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option("--max-num-batched-tokens", flags.max_num_batched_tokens,
                  "rows of one step, drafts included")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command
      .add_option("--max-model-len", flags.max_model_len,
                  "tokens of prompt and answer together; 0: as memory allows")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  command
      .add_option("--load-format", flags.load_format,
                  "dummy: random weights from the configs alone, for measuring")
      ->check(CLI::IsMember({"auto", "safetensors", "dummy"}))
      ->capture_default_str();
  command.add_option("--hf-overrides", flags.hf_overrides,
                     R"(JSON merged into the target's config.json: {"num_hidden_layers": 6})");
  add_cache_flags(command, flags);
}

base::Result<engine::RuntimeOptions> runtime_options(const ModelFlags& flags) {
  engine::RuntimeOptions options;
  options.pair.target = flags.target;
  options.pair.load = {
      .hf_overrides = flags.hf_overrides, .dummy = flags.load_format == "dummy", .dummy_seed = 0};
  TANDEM_ASSIGN_OR_RETURN(options.pair.model.compute, model::parse_compute(flags.compute));
  TANDEM_ASSIGN_OR_RETURN(options.pair.model.fp8,
                          model::parse_fp8_arithmetic(flags.fp8_arithmetic));
  if (!flags.speculative_config.empty())
    TANDEM_RETURN_IF_ERROR(apply_speculative_config(flags.speculative_config, options));
  TANDEM_ASSIGN_OR_RETURN(options.kv_cache_dtype,
                          model::parse_kv_cache_dtype(flags.kv_cache_dtype));
  options.prefix_caching = flags.prefix_caching;
  options.num_threads = flags.threads;
  options.max_num_seqs = flags.max_num_seqs;
  options.max_num_batched_tokens = std::max(flags.max_num_batched_tokens, flags.max_num_seqs);
  options.max_chunk_tokens = options.max_num_batched_tokens;
  options.max_model_len = flags.max_model_len;
  TANDEM_ASSIGN_OR_RETURN(options.on_gpu, wants_gpu(flags));
  const bool fp8_head =
      flags.draft_head == "fp8" ||
      (flags.draft_head == "auto" && !options.on_gpu && flags.compute != "float32");
  options.pair.model.draft_head =
      fp8_head ? model::DraftHeadFormat::kFp8 : model::DraftHeadFormat::kCheckpoint;
  options.pair.copy_weights = flags.cpu_weights == "copied" && !options.on_gpu;
  // Beyond any card: what it has left decides.
  constexpr double kNoLimitGib = 1e6;
  options.kv_bytes = static_cast<int64_t>(
      flags.kv_cache_gib.value_or(options.on_gpu ? kNoLimitGib : 4.0) * (int64_t{1} << 30));
  options.gpu_memory_utilization = flags.gpu_memory_utilization;
  options.use_graphs = !flags.enforce_eager;
  options.screens_heads = flags.head_screen == "on";
  return options;
}

base::Result<std::unique_ptr<engine::Runtime>> open_runtime(engine::RuntimeOptions options) {
  std::map<std::string, std::unique_ptr<Progress>> bars;
  options.pair.progress = [&bars](const std::filesystem::path& dir, int64_t done, int64_t total) {
    std::unique_ptr<Progress>& bar = bars[dir.string()];
    if (bar == nullptr) bar = std::make_unique<Progress>("loading " + dir.string());
    // Nothing is open yet that would have to be closed.
    if (InterruptGuard::interrupted()) std::_Exit(kExitInterrupted);
    bar->update(done, total, describe_bytes(static_cast<double>(total)));
    if (done >= total) bars.erase(dir.string());
  };
  const int64_t kv_bytes = options.kv_bytes;
  TANDEM_ASSIGN_OR_RETURN(auto runtime, engine::Runtime::open(std::move(options)));
  if (const int64_t bytes = runtime->pair().copied_bytes; bytes > 0)
    base::log_info("--cpu-weights copied: the weights take {} of memory",
                   describe_bytes(static_cast<double>(bytes)));
  const std::string warning = engine::few_sequences_warning(runtime->kv_plan(), kv_bytes);
  if (!warning.empty()) base::log_warning("{}", warning);
  return runtime;
}

}  // namespace tandem::cli
