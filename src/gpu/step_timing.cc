// How long steps take on the device: those of the engine, and steps in a row for benchmarks.
#include <algorithm>

#include "gpu/pair_step.h"
#include "ops/cuda/clock.h"

namespace tandem::gpu {
namespace {

// Events and the graph of one measurement; the stream is the step's.
class Repeats {
 public:
  Repeats(cudaStream_t stream, int count) : stream_(stream), events_(static_cast<size_t>(count)) {
    for (cudaEvent_t& event : events_) TANDEM_CUDA_CHECK(cudaEventCreate(&event));
  }
  ~Repeats() {
    for (const cudaEvent_t event : events_) (void)cudaEventDestroy(event);
    if (graph_ != nullptr) (void)cudaGraphExecDestroy(graph_);
  }
  Repeats(const Repeats&) = delete;
  Repeats& operator=(const Repeats&) = delete;

  template <typename Record>
  void capture(const Record& record) {
    cudaGraph_t graph = nullptr;
    TANDEM_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    record();
    TANDEM_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    TANDEM_CUDA_CHECK(cudaGraphInstantiate(&graph_, graph, 0));
    TANDEM_CUDA_CHECK(cudaGraphDestroy(graph));
  }

  // Between the ends of neighbouring steps.
  template <typename Record>
  std::vector<double> run(const Record& record) const {
    for (const cudaEvent_t event : events_) {
      if (graph_ != nullptr)
        TANDEM_CUDA_CHECK(cudaGraphLaunch(graph_, stream_));
      else
        record();
      TANDEM_CUDA_CHECK(cudaEventRecord(event, stream_));
    }
    TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_));
    std::vector<double> seconds;
    for (size_t i = 1; i < events_.size(); ++i) {
      float milliseconds = 0;
      TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, events_[i - 1], events_[i]));
      seconds.push_back(1e-3 * static_cast<double>(milliseconds));
    }
    return seconds;
  }

 private:
  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;
  cudaGraphExec_t graph_ = nullptr;
};

}  // namespace

uint64_t* PairStep::moment(Moment moment) const {
  return host_moments_.as<uint64_t>() + static_cast<int>(moment);
}

void PairStep::record_moment(Moment moment) {
  if (options_.measures_times) ops::cuda::record_time(stream_, this->moment(moment));
}

// What was in front of the step whose results these are, too.
void PairStep::note_end(std::span<const ops::cuda::RoundResult> rounds) {
  idle_seconds_.reset();
  const uint64_t begin = *moment(Moment::kBegin);
  if (last_end_ != 0 && begin > last_end_)
    idle_seconds_ = 1e-9 * static_cast<double>(begin - last_end_);
  last_end_ = 0;
  for (const ops::cuda::RoundResult& round : rounds)
    last_end_ = std::max(last_end_, round.finished);
  if (!rounds.empty()) *moment(Moment::kEnd) = last_end_;
}

void PairStep::add_times(const StepLayout& layout, speculation::SpecResult& result) const {
  if (!options_.measures_times) return;
  const auto seconds = [](uint64_t from, uint64_t to) {
    return 1e-9 * static_cast<double>(to - from);
  };
  const uint64_t begin = *moment(Moment::kBegin);
  const uint64_t drafted = layout.max_drafts > 0 ? *moment(Moment::kDrafted) : begin;
  int64_t num_rows = 0;
  for (const PlannedPass& pass : layout.passes) num_rows += static_cast<int64_t>(pass.rows.size());
  result.verify_time = {num_rows, seconds(drafted, *moment(Moment::kEnd)), settled_};
  // Entries that have all their drafts go through the later steps too.
  const double drafts = seconds(begin, drafted);
  result.draft_times.assign(static_cast<size_t>(layout.max_drafts),
                            {layout.num_drafting, drafts / layout.max_drafts, settled_});
}

std::vector<double> PairStep::device_seconds(const speculation::SpecBatch& batch, StepPart part,
                                             int count) {
  const StepLayout layout = layout_of(batch);
  const Choice choice = choice_of(batch, layout);
  TANDEM_CHECK(choice != Choice::kHost);
  if (choice == Choice::kDraw) prepare_draws(batch, layout);
  last_end_ = 0;
  control_.fill(batch, layout, options_.draft_position_offset, choice == Choice::kDraw);
  const auto record = [&] { record_step(layout, choice, part); };
  // One step more than is counted: the first one follows an idle device.
  Repeats repeats(stream_.handle, count + 1);
  record();
  if (options_.use_graphs) repeats.capture(record);
  return repeats.run(record);
}

}  // namespace tandem::gpu
