#include "bench/gpu/graph_timer.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

namespace tandem::bench {

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
  // Untimed first: new memory and an idle card are slow for some milliseconds.
  constexpr double kWarmUpUs = 5e3;
  constexpr int kMostWarmUps = 50;
  constexpr size_t kTimed = 9;
  double warm_us = 0;
  std::vector<double> times;
  for (int round = 0; times.size() < kTimed; ++round) {
    TANDEM_CUDA_CHECK(cudaEventRecord(begin, stream));
    TANDEM_CUDA_CHECK(cudaGraphLaunch(executable, stream));
    TANDEM_CUDA_CHECK(cudaEventRecord(end, stream));
    TANDEM_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    const double us = 1e3 * static_cast<double>(milliseconds);
    if (round >= 2 && (warm_us >= kWarmUpUs || round >= kMostWarmUps))
      times.push_back(us);
    else
      warm_us += us;
  }
  TANDEM_CUDA_CHECK(cudaGraphExecDestroy(executable));
  TANDEM_CUDA_CHECK(cudaGraphDestroy(graph));
  TANDEM_CUDA_CHECK(cudaEventDestroy(begin));
  TANDEM_CUDA_CHECK(cudaEventDestroy(end));
  TANDEM_CUDA_CHECK(cudaStreamDestroy(stream));
  std::ranges::sort(times);
  return times[times.size() / 2];
}

}  // namespace tandem::bench
