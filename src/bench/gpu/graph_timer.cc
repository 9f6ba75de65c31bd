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
  std::vector<double> times;
  for (int round = 0; round < 11; ++round) {
    TANDEM_CUDA_CHECK(cudaEventRecord(begin, stream));
    TANDEM_CUDA_CHECK(cudaGraphLaunch(executable, stream));
    TANDEM_CUDA_CHECK(cudaEventRecord(end, stream));
    TANDEM_CUDA_CHECK(cudaEventSynchronize(end));
    float milliseconds = 0;
    TANDEM_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
    if (round >= 2) times.push_back(1e3 * static_cast<double>(milliseconds));
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
