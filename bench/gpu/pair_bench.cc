// Times the whole pair on a GPU through the engine, with random weights of the 12B's shapes and
// synthetic acceptance: what a user waits for, and the roofline beside it.
//
//   bench_pair [TARGET ASSISTANT [LAYERS]]     folders with a config.json; run from the root
//
// Every line: engine steps timed by the wall clock, medians. The ceiling is bytes of weights and
// visible keys over the read bandwidth of the same process (performance.md 3).
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <set>

#include "bench/gpu/read_bandwidth.h"
#include "engine/runtime.h"

namespace tandem {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Arguments {
  std::string target = "bench/configs/gemma-4-12B-it-fp8";
  std::string assistant = "bench/configs/gemma-4-12B-it-assistant-fp8";
};

struct Case {
  int64_t num_sequences = 1;
  int64_t context = 1024;
  int num_drafts = 0;
  double length = 1;  // synthetic mean acceptance length
};

int64_t weight_bytes(const io::Checkpoint& checkpoint, bool embeds_too) {
  int64_t bytes = 0;
  for (const io::Checkpoint::StoredTensor& tensor : checkpoint.stored_tensors()) {
    if (tensor.canonical_name.empty()) continue;
    if (!embeds_too && tensor.canonical_name == "embed_tokens.weight") continue;
    bytes += tensor.view.shape.num_elements() *
             static_cast<int64_t>(core::dtype_bytes(tensor.view.dtype));
  }
  return bytes;
}

// Bytes of keys and values that one row at `context` sees in all layers of the target.
int64_t kv_bytes(const io::TextConfig& text, int64_t context) {
  int64_t bytes = 0;
  for (const io::LayerConfig& layer : text.layers) {
    const int64_t keys =
        layer.type == io::LayerType::kSliding ? std::min(context, text.sliding_window) : context;
    bytes += keys * layer.num_key_value_heads * layer.head_dim * 2 * 2;
  }
  return bytes;
}

engine::RuntimeOptions options_of(const Arguments& arguments, const Case& c) {
  engine::RuntimeOptions options;
  options.pair.target = arguments.target;
  options.pair.assistant = arguments.assistant;
  options.pair.load.dummy = true;
  options.pair.check_values = false;
  options.on_gpu = true;
  options.num_draft_tokens = c.num_drafts;
  options.max_num_seqs = c.num_sequences;
  options.max_num_batched_tokens = 2048;
  options.max_chunk_tokens = 2048;
  options.max_model_len = c.context + 1024;
  options.kv_bytes = int64_t{1} << 40;
  options.prefix_caching = false;
  return options;
}

// Decodes from `context` on with every sequence running; prints one line.
void bench_decode(engine::Engine& engine, const model::Pair& pair, const Case& c,
                  double bandwidth) {
  for (int64_t id = 0; id < c.num_sequences; ++id) {
    engine::EngineRequest request;
    request.id = static_cast<uint64_t>(id);
    for (int64_t i = 0; i < c.context; ++i)
      request.prompt_ids.push_back(static_cast<int32_t>(1000 + (i * 977 + id * 7919) % 200000));
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.max_tokens = 1000;
    request.num_draft_tokens = c.num_drafts;
    const auto added = engine.add_request(std::move(request));
    if (!added) {
      fmt::print("{}\n", added.error().message);
      return;
    }
  }
  const auto prefill_start = Clock::now();
  std::set<uint64_t> started;
  while (started.size() < static_cast<size_t>(c.num_sequences))
    for (const engine::TokenEvent& event : engine.step())
      if (!event.tokens.empty()) started.insert(event.id);
  const double prefill_seconds = seconds_since(prefill_start);

  std::vector<double> times;
  int64_t tokens = 0;
  double total = 0;
  for (int i = 0; i < 100; ++i) {
    const auto start = Clock::now();
    const auto events = engine.step();
    const double seconds = seconds_since(start);
    if (i < 10) continue;  // graphs are recorded
    times.push_back(seconds);
    total += seconds;
    for (const engine::TokenEvent& event : events)
      tokens += static_cast<int64_t>(event.tokens.size());
  }
  for (int64_t id = 0; id < c.num_sequences; ++id) (void)engine.cancel(static_cast<uint64_t>(id));
  const double length = static_cast<double>(tokens) /
                        static_cast<double>(times.size() * static_cast<size_t>(c.num_sequences));
  std::ranges::sort(times);
  const double median = times[times.size() / 2];
  const io::TextConfig& text = pair.target->config();
  const double verify = static_cast<double>(weight_bytes(*pair.target_checkpoint, true) +
                                            c.num_sequences * kv_bytes(text, c.context));
  const double draft = static_cast<double>(weight_bytes(*pair.assistant_checkpoint, true));
  const double ceiling = (verify + c.num_drafts * draft) / bandwidth;
  fmt::print(
      "batch {:>2}, {:>5} keys, K {}, length {:.2f}: step {:.3f} ms, ceiling {:.3f} ms, {:.2f} of "
      "roofline | {:.0f} tokens/s (synthetic) | prefill {:.0f} tokens/s, {:.1f} ms\n",
      c.num_sequences, c.context, c.num_drafts, length, 1e3 * median, 1e3 * ceiling,
      ceiling / median, static_cast<double>(tokens) / total,
      static_cast<double>(c.num_sequences * c.context) / prefill_seconds, 1e3 * prefill_seconds);
  std::fflush(stdout);
}

int run(const Arguments& arguments) {
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    fmt::print("bench_pair: expected an NVIDIA GPU, got none\n");
    return 2;
  }
  const double bandwidth = bench::measure_read_bandwidth(properties.multiProcessorCount);
  fmt::print("{}: reads {:.0f} GB/s\n", static_cast<const char*>(properties.name),
             bandwidth * 1e-9);
  // One runtime for all: acceptance with a constant conditional rate, so a request that drafts less
  // accepts accordingly less.
  const Case largest{.num_sequences = 64, .context = 8192, .num_drafts = 4, .length = 2.76};
  engine::RuntimeOptions options = options_of(arguments, largest);
  options.synthetic = *speculation::SyntheticAcceptance::from_constant_rate(2.76, 4);
  const auto start = Clock::now();
  auto runtime = engine::Runtime::open(std::move(options));
  if (!runtime) {
    fmt::print("{}\n", runtime.error().message);
    return 2;
  }
  fmt::print("ready in {:.1f} s, random weights made on the host included\n", seconds_since(start));
  const std::vector<Case> cases = {{1, 512, 0},  {1, 1024, 0},  {1, 1024, 1},  {1, 1024, 4},
                                   {1, 2048, 4}, {1, 8192, 0},  {1, 8192, 4},  {8, 2048, 0},
                                   {8, 2048, 4}, {32, 2048, 0}, {32, 2048, 1}, {64, 2048, 0}};
  for (const Case& c : cases) bench_decode((*runtime)->engine(), (*runtime)->pair(), c, bandwidth);
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  tandem::Arguments arguments;
  if (argc > 2) {
    arguments.target = argv[1];
    arguments.assistant = argv[2];
  }
  return tandem::run(arguments);
}
