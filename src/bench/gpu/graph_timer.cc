#include "bench/gpu/graph_timer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <vector>

namespace tandem::bench {
namespace {

using Clock = std::chrono::steady_clock;

// Untimed first: new memory is slow for some milliseconds, and a card that has rested, while
// weights were made say, or that clocks lower behind kernels that took all the power, for some
// hundreds.
constexpr std::chrono::milliseconds kWarmUp{5};
constexpr std::chrono::milliseconds kWarmUpAfterRest{500};
constexpr std::chrono::milliseconds kRest{10};
constexpr int kLeastWarmUps = 2;
constexpr size_t kTimed = 9;

Clock::time_point warm_from(const std::optional<Clock::time_point>& last_run) {
  const Clock::time_point now = Clock::now();
  return now + (last_run && now - *last_run < kRest ? kWarmUp : kWarmUpAfterRest);
}

}  // namespace

double time_graph(const std::function<void(const ops::cuda::Stream&)>& record, bool dependent) {
  cudaStream_t stream;
  TANDEM_CUDA_CHECK(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  TANDEM_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  record({stream, dependent});
  TANDEM_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
  TANDEM_CUDA_CHECK(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin;
  cudaEvent_t end;
  TANDEM_CUDA_CHECK(cudaEventCreate(&begin));
  TANDEM_CUDA_CHECK(cudaEventCreate(&end));
  static std::optional<Clock::time_point> last_run;
  const Clock::time_point warm = warm_from(last_run);
  std::vector<double> times;
  for (int round = 0; times.size() < kTimed; ++round) {
    TANDEM_CUDA_CHECK(cudaEventRecord(begin, stream));
    TANDEM_CUDA_CHECK(cudaGraphLaunch(executable, stream));
    TANDEM_CUDA_CHECK(cudaEventRecord(end, stream));
    TANDEM_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    if (round >= kLeastWarmUps && Clock::now() >= warm)
      times.push_back(1e3 * static_cast<double>(milliseconds));
  }
  last_run = Clock::now();
  TANDEM_CUDA_CHECK(cudaGraphExecDestroy(executable));
  TANDEM_CUDA_CHECK(cudaGraphDestroy(graph));
  TANDEM_CUDA_CHECK(cudaEventDestroy(begin));
  TANDEM_CUDA_CHECK(cudaEventDestroy(end));
  TANDEM_CUDA_CHECK(cudaStreamDestroy(stream));
  std::ranges::sort(times);
  return times[times.size() / 2];
}

}  // namespace tandem::bench
