// What the thread blocks of a cluster say to each other (PTX ISA 9.0).
#pragma once

#include <cstdint>

namespace tandem::ops::cuda::ptx {

// All threads of the cluster: arrive, and later wait for the others' arrival and earlier writes.
// Whole warps at a time, as .aligned asks.
__device__ inline void cluster_arrive() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// The same place in the shared memory of another thread block of the cluster.
__device__ inline uint32_t peer_address(uint32_t address, int rank) {
  uint32_t peer;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(peer) : "r"(address), "r"(rank));
  return peer;
}
// Makes initialised barriers visible to the cluster, with a barrier of the cluster behind it.
__device__ inline void fence_barrier_init_cluster() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// Writes 4 bytes to a peer's shared memory and counts them at a barrier of that peer.
__device__ inline void store_peer_async(uint32_t address, float value, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(address),
      "r"(__float_as_uint(value)), "r"(barrier)
      : "memory");
}
// Waits until the phase of parity `parity` of a barrier of this block that peers write to is
// complete.
__device__ inline void barrier_wait_cluster(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

}  // namespace tandem::ops::cuda::ptx
