// tandem trace: what the models compute for given token ids, as tensors. Needs no tokenizer.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/files.h"
#include "io/atomic_file.h"
#include "io/safetensors_writer.h"
#include "model/pair.h"
#include "model/single_sequence.h"
#include "ops/activation.h"
#include "ops/argmax.h"
#include "speculation/acceptance.h"

namespace tandem::cli {
namespace {

struct TraceFlags {
  std::string target;
  std::string assistant;
  std::string token_ids;
  std::string compute = "native";
  std::string fp8 = "checkpoint";
  std::string out;
  int draft_steps = 4;
  int draft_position_offset = 0;
  int threads = 0;
  bool reference = false;
};

struct Trace {
  core::Buffer hidden, logits;              // [n, hidden] F32, [n, vocab] F32
  core::Buffer draft_hidden, draft_logits;  // [K, backbone] F32, [K, vocab] F32
  std::vector<int32_t> draft_tokens;        // [K]
};

void trace_target(const ops::Context& context, model::Pair& pair, std::span<const int32_t> ids,
                  model::SingleSequence& sequence, Trace& trace) {
  const auto n = static_cast<int64_t>(ids.size());
  const io::TextConfig& config = pair.target->config();
  trace.hidden = core::Buffer(core::DType::kF32, {n, config.hidden_size});
  trace.logits = core::Buffer(core::DType::kF32, {n, config.vocab_size});
  std::vector<int32_t> positions(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) positions[i] = static_cast<int32_t>(i);
  const std::vector<int32_t> sequences(ids.size(), 0);
  for (int64_t begin = 0; begin < n; begin += pair.target->options().max_rows) {
    const int64_t end = std::min(n, begin + pair.target->options().max_rows);
    const auto offset = static_cast<size_t>(begin);
    const auto count = static_cast<size_t>(end - begin);
    const model::ForwardBatch batch{
        ids.subspan(offset, count), std::span(positions).subspan(offset, count),
        std::span(sequences).subspan(offset, count), sequence.ring(), sequence.pages()};
    const core::TensorView hidden = pair.target->forward(context, batch, sequence.kv());
    ops::gather_rows(context, hidden, {}, trace.hidden.view().slice_rows(begin, end));
    pair.target->logits(context, hidden, trace.logits.view().slice_rows(begin, end));
  }
}

// Drafts from the state after the given tokens: newest token = argmax of the last row, state =
// hidden[n-1], query position n-1, keys 0..n-1 (speculation.md 2 with L = n + 1).
void trace_drafts(const ops::Context& context, model::Pair& pair, const TraceFlags& flags,
                  int64_t n, model::SingleSequence& sequence, Trace& trace) {
  const io::TextConfig& config = pair.target->config();
  const int64_t steps = flags.draft_steps;
  trace.draft_hidden = core::Buffer(core::DType::kF32, {steps, config.hidden_size});
  trace.draft_logits = core::Buffer(core::DType::kF32, {steps, config.vocab_size});
  core::Buffer state(pair.target->options().activation_dtype(), {1, config.hidden_size});
  ops::gather_rows(context, trace.hidden.view().slice_rows(n - 1, n), {}, state.view());
  int32_t token[1] = {0};
  ops::argmax(context, trace.logits.view().slice_rows(n - 1, n), {}, token);
  const int32_t last_key[1] = {static_cast<int32_t>(n - 1)};
  const int32_t position[1] = {last_key[0] + flags.draft_position_offset};
  const int32_t first[1] = {0};
  for (int64_t step = 0; step < steps && token[0] != ops::kNotFinite; ++step) {
    const model::DraftBatch batch{token, position,        last_key,
                                  first, sequence.ring(), sequence.pages()};
    const core::TensorView logits = trace.draft_logits.view().slice_rows(step, step + 1);
    pair.assistant->step(context, batch, sequence.kv(), state.view(), logits, nullptr);
    ops::gather_rows(context, state.view(), {},
                     trace.draft_hidden.view().slice_rows(step, step + 1));
    ops::argmax(context, logits, {}, token);
    trace.draft_tokens.push_back(token[0]);
  }
}

struct NamedTensor {
  std::string name;
  core::TensorView view;
};

base::Status write_trace(const TraceFlags& flags, Trace& trace) {
  std::vector<NamedTensor> tensors = {{"logits", trace.logits.view()},
                                      {"hidden", trace.hidden.view()}};
  if (!flags.assistant.empty()) {
    tensors.push_back({"draft_logits", trace.draft_logits.view()});
    tensors.push_back({"draft_hidden", trace.draft_hidden.view()});
    tensors.push_back(
        {"draft_tokens", core::TensorView(trace.draft_tokens.data(), core::DType::kI32,
                                          {static_cast<int64_t>(trace.draft_tokens.size())})});
  }
  std::vector<io::TensorDeclaration> declarations;
  for (const NamedTensor& tensor : tensors)
    declarations.push_back({tensor.name, tensor.view.dtype, tensor.view.shape});
  TANDEM_ASSIGN_OR_RETURN(io::SafetensorsWriter writer,
                          io::SafetensorsWriter::create_file(flags.out, std::move(declarations)));
  for (const NamedTensor& tensor : tensors)
    TANDEM_RETURN_IF_ERROR(writer.append(tensor.name, tensor.view));
  return writer.finish();
}

base::Status run(const TraceFlags& flags) {
  model::PairOptions options;
  options.target = flags.target;
  if (!flags.assistant.empty()) options.assistant = flags.assistant;
  TANDEM_ASSIGN_OR_RETURN(options.model.compute, model::parse_compute(flags.compute));
  TANDEM_ASSIGN_OR_RETURN(options.model.fp8, model::parse_fp8_arithmetic(flags.fp8));
  TANDEM_RETURN_IF_ERROR(io::check_writable(flags.out));
  TANDEM_ASSIGN_OR_RETURN(model::Pair pair, model::load_pair(options));
  const io::TextConfig& config = pair.target->config();
  TANDEM_ASSIGN_OR_RETURN(
      const std::vector<int32_t> ids,
      read_token_ids(flags.token_ids, config.vocab_size, config.max_position_embeddings));

  core::ThreadPool pool(flags.threads);
  const ops::Context context{flags.reference ? ops::Backend::kReference : ops::Backend::kCpu,
                             &pool};
  const auto n = static_cast<int64_t>(ids.size());
  model::SingleSequence sequence(config, n, flags.draft_steps, options.model.activation_dtype());
  Trace trace;
  trace_target(context, pair, ids, sequence, trace);
  if (pair.assistant) trace_drafts(context, pair, flags, n, sequence, trace);
  return write_trace(flags, trace);
}

}  // namespace

void add_trace_command(CLI::App& program, int& exit_code) {
  auto flags = std::make_shared<TraceFlags>();
  CLI::App* command = program.add_subcommand(
      "trace", "Write the logits, hidden states and drafts of given token ids as safetensors");
  command->add_option("target", flags->target, "folder of the target")->required();
  auto* assistant = command->add_option("--assistant", flags->assistant, "folder of the assistant");
  command->add_option("--token-ids", flags->token_ids, "JSON list of token ids")->required();
  command->add_option("--draft-steps", flags->draft_steps, "tokens to draft")
      ->check(CLI::Range(1, speculation::kMaxDraftTokens))
      ->needs(assistant)
      ->capture_default_str();
  command
      ->add_option("--draft-position-offset", flags->draft_position_offset,
                   "position of draft queries: L-2 plus this")
      ->check(CLI::Range(0, 1))
      ->needs(assistant)
      ->capture_default_str();
  command->add_option("--compute", flags->compute, "float32, bfloat16 or native")
      ->capture_default_str();
  command->add_option("--fp8-arithmetic", flags->fp8, "checkpoint, weight-only or vllm-parity")
      ->capture_default_str();
  command->add_option("--threads", flags->threads, "0: all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->add_flag("--reference", flags->reference, "plain loops instead of vector kernels");
  command->add_option("--out", flags->out, "the safetensors file to write")->required();
  command->callback([flags, &exit_code] {
    if (const base::Status status = run(*flags); !status) exit_code = report(status.error());
  });
}

}  // namespace tandem::cli
