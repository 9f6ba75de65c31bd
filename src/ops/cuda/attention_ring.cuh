// How a thread block of attention (attention.cu) uses its shared memory.
#pragma once

#include "ops/cuda/attention_work.cuh"

namespace tandem::ops::cuda::segment {

using Job = AttentionJob;

inline constexpr int kThreads = 384;  // two warpgroups that compute, one that copies
inline constexpr int kComputing = 256;
inline constexpr int kPieceBytes = 128 * 128;
inline constexpr int kMaxRing = 16;
// Pairs of one row, mostly: products with half the columns that 16 take, and loops that are not
// written out. A thread block runs through its code once, and the code comes from memory.
inline constexpr int kFewPairs = 8;

// A pair of the thread block, as all of its threads need it.
struct PairInfo {
  int slot;  // of its first segment in the workspace; -1: none
  int first_key;
  int last_key;
  int index;  // row * num_heads + head
};

template <int kMostPairs>
struct PlanControl {
  uint64_t barriers[2 * kMaxRing];  // full, empty
  PairInfo pairs[kMostPairs];
  int all_see_from;           // every pair sees the keys from here
  int all_see_to;             // to here
  int maxima[2][kMostPairs];  // ordered_bits() of the segment's scores; every second segment
  WorkList list;
};

// kDim: head_dim, rounded up to 64. kPairLimit: most pairs of a thread block.
template <int kDim, int kPairLimit>
struct Plan {
  static constexpr int kMostPairs = kPairLimit;
  using Control = PlanControl<kMostPairs>;
  static constexpr int kKeys = attention_segment_keys(kDim);  // of a segment
  static constexpr int kHalves = kKeys / 128;  // pieces of a segment with the same columns, and
                                               // 64-key tiles of a warpgroup
  static constexpr int kColumns = kDim / 64;   // column blocks of K, and of V
  static constexpr int kMaxColumnParts = kDim == 512 ? 4 : 1;

  // Shared memory, in bytes from its start.
  static constexpr int kQueryAt = (static_cast<int>(sizeof(Control)) + 1023) / 1024 * 1024;
  static constexpr int kWeightAt = kQueryAt + kMostPairs * kDim * 2;  // [keys / 64][pairs][64]
  static constexpr int kRingAt = kWeightAt + kMostPairs * kKeys * 2;
  static constexpr int kLeastRing = kHalves == 1 && kColumns > 3 ? kColumns : 3;
  static constexpr int ring_in(int shared_bytes) {
    const int places = (shared_bytes - kRingAt) / kPieceBytes;
    return places < kMaxRing ? places : kMaxRing;
  }
  static constexpr int kRing = ring_in(227 * 1024);
  // Leaves room for a thread block of a product (product.cu).
  static constexpr int kSmallRing = ring_in(114 * 1024) > 3 ? ring_in(114 * 1024) : kRing;
  static constexpr int bytes(int ring) { return kRingAt + ring * kPieceBytes; }
  static_assert(kRing >= kLeastRing);
};

// The next place of the ring.
struct Ring {
  uint32_t data;
  uint32_t barriers;
  int size;
  int place = 0;
  uint32_t parity = 0;

  __device__ uint32_t address() const { return data + static_cast<uint32_t>(place * kPieceBytes); }
  __device__ uint32_t full() const { return barriers + static_cast<uint32_t>(place) * 8; }
  __device__ uint32_t empty() const { return full() + kMaxRing * 8; }
  __device__ void wait_full() const { ptx::barrier_wait(full(), parity); }
  __device__ void wait_empty() const { ptx::barrier_wait(empty(), parity ^ 1); }
  __device__ void give_back() const {
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(empty());
  }
  __device__ void advance() {
    if (++place == size) {
      place = 0;
      parity ^= 1;
    }
  }
};

template <typename P>
__device__ Ring ring_of(const Job& job, uint32_t shared) {
  return {shared + P::kRingAt, shared, job.ring_size};
}

}  // namespace tandem::ops::cuda::segment
