// Launching a kernel so that it may overlap the tail of the one before it.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "ops/cuda/device.h"

namespace tandem::ops::cuda {

// Kernel arguments are converted to the kernel's parameter types. Dynamic shared memory above
// 48 KB needs cudaFuncSetAttribute once before. `cluster` neighbouring blocks (at most 8, a divisor
// of grid.x) run together and reach each other's shared memory.
template <typename... Parameters, typename... Arguments>
void launch_clusters(const Stream& stream, unsigned cluster, void (*kernel)(Parameters...),
                     dim3 grid, dim3 block, size_t shared_bytes, Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream.handle;
  cudaLaunchAttribute attributes[3] = {};
  // A multiprocessor changes how much of its memory is shared only when it is idle: kernels that
  // are to overlap must all ask for the same.
  cudaLaunchAttribute& carveout = attributes[config.numAttrs++];
  carveout.id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  carveout.val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  if (!std::exchange(stream.next_waits, false) && stream.dependent) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = cluster;
    attribute.val.clusterDim.y = 1;
    attribute.val.clusterDim.z = 1;
  }
  config.attrs = attributes;
  TANDEM_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

template <typename... Parameters, typename... Arguments>
void launch(const Stream& stream, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            size_t shared_bytes, Arguments... arguments) {
  launch_clusters(stream, 1, kernel, grid, block, shared_bytes, arguments...);
}

// Lets the next kernel of the stream be scheduled. Called first thing by every kernel: what comes
// after is ordered by wait_for_previous() of the next one, not by this.
__device__ inline void allow_next() {
  asm volatile("griddepcontrol.launch_dependents;");
}

// Rehearsal: a kernel's code and parameters come from memory when they are first used, a few
// instructions at a time, which takes up to 1 us of a small kernel's turn. Such a kernel goes
// through what it will do once before the wait, by the same instructions, but reads and leaves
// nothing. Only where all of its blocks find room while they still have to wait.
__device__ inline int first_turn(bool waits) {
  constexpr unsigned kMostBlocks = 264;
  return waits && gridDim.x * gridDim.y <= kMostBlocks ? 0 : 1;  // turn 1 is the real one
}

// Returns when every earlier kernel of the stream has finished and its writes are visible. Every
// thread that touches activations, KV or results calls it first; weights may be read before it.
// Every block of every kernel must call it, or a later kernel could pass an unfinished one.
__device__ inline void wait_for_previous() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}

}  // namespace tandem::ops::cuda
