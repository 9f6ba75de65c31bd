#include "bench/gpu_step.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <set>

#include "base/clock.h"
#include "bench/cpu_device.h"
#include "bench/statistics.h"
#include "bench/step_bench.h"
#include "bench/table.h"
#include "sampling/sampler.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

constexpr int kUncountedRounds = 5;  // graphs are recorded in the first ones
// Where the engine chooses K it tries several in the first 20, and then records their graphs.
constexpr int kLearningRounds = 64;
// Then it tries another one every so many rounds, which is part of what its choice costs.
constexpr int kChosenRounds = 64;
constexpr int64_t kMaxLoad = int64_t{1} << 24;

// Words of the middle of the vocabulary, others for every sequence.
std::vector<int32_t> prompt_of(int64_t sequence, int64_t length, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < length; ++i)
    ids.push_back(
        static_cast<int32_t>(vocab_size / 8 + (i * 977 + sequence * 7919) % (vocab_size / 2)));
  return ids;
}

engine::EngineRequest request_of(const StepSetup& setup, int64_t id, int64_t length,
                                 int64_t vocab_size) {
  engine::EngineRequest request;
  request.id = static_cast<uint64_t>(id);
  request.prompt_ids = prompt_of(id, length, vocab_size);
  request.sampling = sampling_of(setup);
  request.sampling.ignore_eos = true;
  return request;
}

// A step's batch over blocks that no request has: nothing runs in the engine meanwhile.
class IdleBatch {
 public:
  IdleBatch(const engine::Runtime& runtime, const engine::EngineOptions& options,
            const StepSetup& setup, const StepLoad& load, int num_draft_tokens)
      : sampler_(sampling_of(setup), options.vocab_size, {}, options.suppress_tokens, {}, 0) {
    const int64_t block_size = options.limits.block_size;
    const int64_t ring_blocks = options.ring_len / block_size;
    const int64_t page_blocks = (load.context + num_draft_tokens + 1 + block_size - 1) / block_size;
    fill(ring_table_, load.batch * ring_blocks, runtime.kv_plan().num_ring_blocks);
    fill(page_table_, load.batch * page_blocks, runtime.kv_plan().num_page_blocks);
    batch_.ring = {.block_table = ring_table_,
                   .max_blocks = ring_blocks,
                   .block_size = block_size,
                   .ring_len = options.ring_len};
    batch_.pages = {
        .block_table = page_table_, .max_blocks = page_blocks, .block_size = block_size};
    for (int64_t i = 0; i < load.batch; ++i) {
      speculation::SpecSequence sequence;
      sequence.state_slot = static_cast<int32_t>(i);
      sequence.tokens = token_;
      sequence.start_position = load.context;
      sequence.samples = true;
      sequence.num_draft_tokens = num_draft_tokens;
      sequence.sampler = &sampler_;
      batch_.sequences.push_back(sequence);
    }
  }
  IdleBatch(const IdleBatch&) = delete;
  IdleBatch& operator=(const IdleBatch&) = delete;

  const speculation::SpecBatch& batch() const { return batch_; }

 private:
  static void fill(std::vector<int32_t>& table, int64_t count, int64_t num_blocks) {
    for (int64_t i = 0; i < count; ++i) table.push_back(static_cast<int32_t>(i % num_blocks));
  }

  sampling::Sampler sampler_;
  std::vector<int32_t> token_ = {2};
  std::vector<int32_t> ring_table_;
  std::vector<int32_t> page_table_;
  speculation::SpecBatch batch_;
};

// Runs until every request has a token; seconds.
double start_requests(engine::Engine& engine, std::vector<engine::EngineRequest> requests) {
  const base::Stopwatch clock;
  const size_t count = requests.size();
  for (engine::EngineRequest& request : requests) {
    const base::Status added = engine.add_request(std::move(request));
    TANDEM_CHECK_MSG(added.has_value(), "bench step: {}", added.error().message);
  }
  std::set<uint64_t> started;
  while (started.size() < count) {
    const auto events = engine.step();
    for (const engine::TokenEvent& event : events)
      if (!event.tokens.empty() || event.finish) started.insert(event.id);
  }
  return clock.seconds();
}

}  // namespace

base::Result<StepLoad> parse_step_load(const std::string& text) {
  StepLoad load;
  const char* const end = text.data() + text.size();
  const auto batch = std::from_chars(text.data(), end, load.batch);
  const bool has_cross = batch.ec == std::errc() && batch.ptr != end && *batch.ptr == 'x';
  const auto context =
      has_cross ? std::from_chars(batch.ptr + 1, end, load.context) : std::from_chars_result{};
  if (!has_cross || context.ec != std::errc() || context.ptr != end || load.batch < 1 ||
      load.batch > kMaxLoad || load.context < 1 || load.context > kMaxLoad)
    return base::invalid(
        "bench step: --loads: expected sequences x tokens of each, as in 8x2048, got \"{}\"",
        text.substr(0, 60));
  return load;
}

// A row that is not finite takes other ways than one of a request (gpu.md, "Screens").
GpuStep::GpuStep(engine::Runtime& runtime, const StepSetup& setup)
    : runtime_(runtime), setup_(setup) {
  if (gpu::DeviceStep* const step = runtime_.device_step()) step->clear_cache();
}

std::vector<double> GpuStep::on_device(const Timing& timing, const StepLoad& load,
                                       int num_draft_tokens, gpu::StepPart part) {
  TANDEM_CHECK(runtime_.device_step() != nullptr);
  fill_cache(load);
  const IdleBatch idle(runtime_, runtime_.engine().options(), setup_, load, num_draft_tokens);
  std::vector<double> seconds;
  const base::Stopwatch clock;
  do {
    const auto more = runtime_.device_step()->device_seconds(idle.batch(), part, timing.min_calls);
    seconds.insert(seconds.end(), more.begin(), more.end());
  } while (clock.seconds() < timing.min_seconds);
  return seconds;
}

void GpuStep::fill_cache(const StepLoad& load) {
  if (load.batch <= filled_.batch && load.context <= filled_.context) return;
  engine::Engine& engine = runtime_.engine();
  std::vector<engine::EngineRequest> requests;
  // A measured sequence has a page more than its context may need: for its drafts.
  const int64_t length = load.context + engine.options().limits.block_size;
  for (int64_t id = 0; id < load.batch; ++id) {
    requests.push_back(request_of(setup_, id, length, engine.options().vocab_size));
    requests.back().max_tokens = 1;
  }
  start_requests(engine, std::move(requests));
  filled_ = load;
}

std::vector<double> GpuStep::verify(const Timing& timing, int rows) {
  return on_device(timing, {1, setup_.context}, rows - 1, gpu::StepPart::kTarget);
}

std::vector<double> GpuStep::draft(const Timing& timing) {
  const int k = std::max(1, setup_.num_draft_tokens);
  std::vector<double> seconds = on_device(timing, {1, setup_.context}, k, gpu::StepPart::kDrafts);
  for (double& one : seconds) one /= k;
  return seconds;
}

std::vector<double> GpuStep::round_on_device(const Timing& timing, int num_draft_tokens) {
  return on_device(timing, {1, setup_.context}, num_draft_tokens, gpu::StepPart::kWhole);
}

std::vector<double> GpuStep::round(const Timing& timing, int num_draft_tokens,
                                   RoundCounts& counts) {
  Rounds rounds = run_rounds(timing, {1, setup_.context}, num_draft_tokens);
  counts.num_tokens += rounds.counts.num_tokens;
  counts.idle_seconds.insert(counts.idle_seconds.end(), rounds.counts.idle_seconds.begin(),
                             rounds.counts.idle_seconds.end());
  return std::move(rounds.seconds);
}

std::vector<double> GpuStep::prefill(const Timing& timing, int64_t num_tokens) {
  engine::Engine& engine = runtime_.engine();
  return time_calls(timing, [&](int64_t call) {
    engine::EngineRequest request =
        request_of(setup_, call, num_tokens, engine.options().vocab_size);
    request.max_tokens = 1;
    std::vector<engine::EngineRequest> requests;
    requests.push_back(std::move(request));
    start_requests(engine, std::move(requests));
  });
}

std::optional<double> GpuStep::idle_seconds() const {
  const gpu::DeviceStep* const step = runtime_.device_step();
  return step == nullptr ? std::nullopt : step->idle_seconds();
}

GpuStep::Rounds GpuStep::run_rounds(const Timing& timing, const StepLoad& load,
                                    std::optional<int> num_draft_tokens) {
  engine::Engine& engine = runtime_.engine();
  std::vector<engine::EngineRequest> requests;
  for (int64_t id = 0; id < load.batch; ++id) {
    requests.push_back(request_of(setup_, id, load.context, engine.options().vocab_size));
    requests.back().max_tokens = kGpuStepRoom;
    requests.back().num_draft_tokens = num_draft_tokens;
  }
  Rounds rounds;
  rounds.prefill_seconds = start_requests(engine, std::move(requests));
  const int least = num_draft_tokens ? timing.min_calls : std::max(timing.min_calls, kChosenRounds);
  double counted_seconds = 0;
  bool ended = false;
  for (int i = num_draft_tokens ? -kUncountedRounds : -kLearningRounds; !ended; ++i) {
    const base::Stopwatch clock;
    const auto events = engine.step();
    const double seconds = clock.seconds();
    for (const engine::TokenEvent& event : events) ended |= event.finish.has_value();
    // The last round is shorter than the others.
    if (i < 0 || (ended && !rounds.seconds.empty())) continue;
    rounds.seconds.push_back(seconds);
    if (const auto idle = idle_seconds()) rounds.counts.idle_seconds.push_back(*idle);
    for (const engine::TokenEvent& event : events)
      rounds.counts.num_tokens += static_cast<int64_t>(event.tokens.size());
    counted_seconds += seconds;
    ended |= i + 1 >= least && counted_seconds >= timing.min_seconds;
  }
  for (int64_t id = 0; id < load.batch; ++id) engine.cancel(static_cast<uint64_t>(id));
  filled_ = load;
  return rounds;
}

namespace {

void add_engine_rounds(ordered_json& one, GpuStep& step, const Timing& timing, const StepLoad& load,
                       std::optional<int> num_draft_tokens) {
  const GpuStep::Rounds rounds = step.run_rounds(timing, load, num_draft_tokens);
  const auto count = static_cast<double>(rounds.seconds.size());
  const double total = mean(rounds.seconds) * count;
  one["rounds"] = rounds.seconds.size();
  one["ms"] = median(rounds.seconds) * 1e3;
  one["mean_length"] =
      static_cast<double>(rounds.counts.num_tokens) / (count * static_cast<double>(load.batch));
  one["tokens_per_s"] = static_cast<double>(rounds.counts.num_tokens) / total;
  if (!rounds.counts.idle_seconds.empty())
    one["idle_us"] = median(rounds.counts.idle_seconds) * 1e6;
  one["prefill_ms"] = rounds.prefill_seconds * 1e3;
  one["prefill_tokens_per_s"] =
      static_cast<double>(load.batch * load.context) / rounds.prefill_seconds;
}

ordered_json load_line(GpuStep& step, const model::Pair& pair, const StepLoad& load, int k,
                       const GpuLoadOptions& options) {
  const StepBytes bytes = step_bytes(pair, load.context, step.kv_dtype());
  const StepSetup& setup = step.setup();
  ordered_json one = {{"batch", load.batch}, {"context", load.context}, {"num_draft_tokens", k}};
  if (setup.synthetic && k > 0) one["acceptance"] = "synthetic";
  // First, since its prompts fill the cache.
  const bool through_engine = options.engine_rounds && (k == 0 || k == setup.num_draft_tokens);
  if (through_engine) add_engine_rounds(one, step, options.timing, load, k);
  const double device = median(step.on_device(options.timing, load, k, gpu::StepPart::kWhole));
  one["device_ms"] = device * 1e3;
  const std::optional<double> length = k == 0 ? 1.0 : expected_length(setup, k);
  if (length && !through_engine) {
    one["mean_length"] = *length;
    one["tokens_per_s"] = static_cast<double>(load.batch) * *length / device;
  }
  const double roofline_ms =
      static_cast<double>(bytes.round(load.batch, k)) / options.read_bandwidth * 1e3;
  one["roofline_ms"] = roofline_ms;
  one["share_of_roofline"] =
      roofline_ms / (one.contains("ms") ? one["ms"].get<double>() : device * 1e3);
  return one;
}

}  // namespace

ordered_json run_gpu_loads(GpuStep& step, const model::Pair& pair, std::span<const StepLoad> loads,
                           const GpuLoadOptions& options) {
  auto results = ordered_json::array();
  for (const StepLoad& load : loads) {
    for (int k = 0; k <= step.setup().num_draft_tokens; ++k)
      results.push_back(load_line(step, pair, load, k, options));
    if (!options.automatic || !options.engine_rounds) continue;
    ordered_json one = {
        {"batch", load.batch}, {"context", load.context}, {"num_draft_tokens", "auto"}};
    if (step.setup().synthetic) one["acceptance"] = "synthetic";
    add_engine_rounds(one, step, options.timing, load, std::nullopt);
    results.push_back(std::move(one));
  }
  return results;
}

std::string gpu_loads_table(const ordered_json& loads) {
  const auto number = [](const ordered_json& one, const char* key, int digits) {
    return one.contains(key) ? fmt::format("{:.{}f}", one[key].get<double>(), digits) : "-";
  };
  Table table({"sequences x tokens", "K", "ms", "device ms", "roofline ms", "share", "idle us",
               "length", "tokens/s", "prefill ms", "prefill tokens/s"});
  for (const ordered_json& one : loads) {
    const ordered_json& k = one["num_draft_tokens"];
    const bool bound = one.contains("share_of_roofline");
    table.add({fmt::format("{} x {}", one["batch"].get<int64_t>(), one["context"].get<int64_t>()),
               k.is_string() ? k.get<std::string>() : std::to_string(k.get<int>()),
               number(one, "ms", 2), number(one, "device_ms", 2), number(one, "roofline_ms", 2),
               bound ? fmt::format("{:.0f} %", 100 * one["share_of_roofline"].get<double>()) : "-",
               number(one, "idle_us", 0),
               number(one, "mean_length", 2) + (one.contains("acceptance") ? " (synthetic)" : ""),
               number(one, "tokens_per_s", 0), number(one, "prefill_ms", 1),
               number(one, "prefill_tokens_per_s", 0)});
  }
  return table.text();
}

}  // namespace tandem::bench
