// Times kernels as they run in a step: launched by a CUDA graph.
#pragma once

#include <functional>

#include "ops/cuda/device.h"

namespace tandem::bench {

// Median microseconds, of 9 once the card is warm, of one run of a graph of what `record` launches.
double time_graph(const std::function<void(const ops::cuda::Stream&)>& record, bool dependent);

}  // namespace tandem::bench
