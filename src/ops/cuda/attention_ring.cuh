// How a thread block of attention (attention.cu) uses its shared memory.
#pragma once

#include <type_traits>

#include "ops/cuda/attention_ptx.cuh"
#include "ops/cuda/attention_work.cuh"
#include "ops/cuda/wide_operand.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::segment {

using Job = AttentionJob;

inline constexpr int kComputing = 256;  // two warpgroups that compute; others copy
inline constexpr int kPieceBytes = 128 * 128;
inline constexpr int kMaxRing = 16;
// Pairs of one row, mostly: products with half the columns that 16 take, and loops that are not
// written out. A thread block runs through its code once, and the code comes from memory.
inline constexpr int kFewPairs = 8;

// Integers in the order of the floats.
__device__ inline int ordered_bits(float x) {
  const int bits = __float_as_int(x);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}
__device__ inline float from_ordered(int bits) {
  return __int_as_float(bits ^ ((bits >> 31) & 0x7fffffff));
}

// A pair of the thread block, as all of its threads need it.
struct PairInfo {
  int slot;  // of its first segment in the workspace; -1: none
  int first_key;
  int last_key;
  int index;  // row * num_heads + head
};

// Items that are nobody's share, in the order in which this thread block drew them.
struct Drawn {
  static constexpr int kPlaces = 4;
  uint64_t barriers[kPlaces];
  Item items[kPlaces];  // entry -1: there is none any more

  __device__ uint32_t barrier(int number) {
    return ptx::shared_address(&barriers[number % kPlaces]);
  }
  __device__ void init() {
    for (int i = 0; i < kPlaces; ++i) ptx::barrier_init(barrier(i), 1);
  }
  __device__ void put(int number, const Item& item) {
    items[number % kPlaces] = item;
    ptx::barrier_arrive(barrier(number));
  }
  __device__ Item get(int number) {
    ptx::barrier_wait(barrier(number), static_cast<uint32_t>(number / kPlaces % 2));
    return items[number % kPlaces];
  }
};

template <int kMostPairs>
struct PlanControl {
  uint64_t barriers[2 * kMaxRing];  // full, empty
  PairInfo pairs[kMostPairs];
  uint32_t queries;  // where those of the pairs lie
  int all_see_from;  // every pair sees the keys from here
  int all_see_to;    // to here
  // ordered_bits() of the segment's scores; every second segment
  alignas(8) int maxima[2][kMostPairs];
  Drawn drawn;
  WorkList list;
};

// A thread that computes.
struct Lane {
  int warpgroup = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 128, 0);
  int warp = static_cast<int>(threadIdx.x) % 128 / 32;  // of the warpgroup
  int g = static_cast<int>(threadIdx.x) % 32 / 4;       // row of a fragment, and row + 8
  int t = static_cast<int>(threadIdx.x) % 4;            // columns 2t, 2t + 1 of every 8
};

// Columns of a product. Beside E4M3 queries and weights are two codes each (two_codes()): the high
// ones of eight pairs, then their low ones.
constexpr int product_columns(int pairs, bool e4m3) {
  return e4m3 ? pairs * 2 : pairs;
}
// Weights of BF16 are stored for 16 pairs at a time, or for 8.
constexpr int pairs_with_weights(int pairs, bool e4m3) {
  return e4m3 || pairs <= 8 ? pairs : (pairs + 15) / 16 * 16;
}

// How a multiprocessor's registers are spread over a thread block. Few pairs leave some for others.
template <int kDim, int kMostPairs, bool kIsLong, bool kIsE4m3>
struct PlanRegisters {
  static constexpr bool kMedium = kMostPairs == kMediumPairs;
  static constexpr bool kWide = kMostPairs == kWidePairs;
  static constexpr int kThreads = kComputing + 128;
  // Thread blocks of a multiprocessor: what E4M3 takes between the copies and the products of one
  // is hidden by the other. BF16 gains nothing, it waits for memory.
  static constexpr int kBlocks = kIsE4m3 && kIsLong && kDim >= 256 && kMostPairs <= 16 ? 2 : 1;
  static constexpr bool kBeginsEarly = kBlocks == 1 || kDim < 512;
  // What the compiler is told: a thread block begins with 168, 128 or 80 registers for each thread.
  static constexpr int kMostThreads =
      kWide || kBlocks == 2 || (kIsE4m3 && (kMedium || kIsLong)) ? kThreads : 512;
  static constexpr int kEach = kBlocks == 2 ? 80 : kMostThreads == 512 ? 128 : 168;
  // Threads that copy hand on what they do not need.
  static constexpr bool kMove = kIsE4m3 || kMedium || kWide;
  // They have the keys of two pieces at hand.
  static constexpr bool kTwoPieces = kDim == 512 && kMostThreads == kThreads;
  static constexpr int kCopy = kBlocks == 2 ? (kDim == 512 ? 64 : 48)
                               : kMedium    ? 80
                               : kTwoPieces ? 104
                               : kWide      ? 88
                                            : 80;
  static constexpr int kCompute =
      (kThreads * kEach - (kThreads - kComputing) * kCopy) / kComputing / 8 * 8;
};

// kDim: head_dim, rounded up to 64. kPairLimit: most pairs of a thread block. kIsLong: for lists of
// several items for each, which may be drawn. kIsE4m3: the format of keys and values.
template <int kDim, int kPairLimit, bool kIsLong, bool kIsE4m3>
struct Plan {
  static constexpr int kMostPairs = kPairLimit;
  static constexpr bool kLong = kIsLong;
  static constexpr bool kE4m3 = kIsE4m3;
  // Queries come with the keys; otherwise the warps that compute load them.
  static constexpr bool kCopiesQueries = kLong && !kE4m3;
  using Element = std::conditional_t<kE4m3, uint8_t, uint16_t>;
  using Registers = PlanRegisters<kDim, kPairLimit, kIsLong, kIsE4m3>;
  static constexpr int kThreads = Registers::kThreads;
  using Control = PlanControl<kMostPairs>;
  static constexpr int kKeys = attention_segment_keys(kDim);  // of a segment
  static constexpr int kHalves = kKeys / 128;  // pieces of a segment with the same columns, and
                                               // 64-key tiles of a warpgroup
  static constexpr int kPieceColumns = 128 / static_cast<int>(sizeof(Element));
  static constexpr int kPieces = (kDim + kPieceColumns - 1) / kPieceColumns;  // of 128 keys' K
  // Products of 32 bytes of a key that a piece takes.
  static constexpr int kPieceSteps = kDim < kPieceColumns ? kDim / (kPieceColumns / 4) : 4;
  static constexpr int kMaxColumnParts = kDim == 512 ? 4 : 1;

  // Shared memory, in bytes from its start.
  static constexpr int kQueryAt = (static_cast<int>(sizeof(Control)) + 1023) / 1024 * 1024;
  static constexpr int kQueryBytes = kPieces * product_columns(kMostPairs, kE4m3) * 128;
  static constexpr int kWeightAt = kQueryAt + kQueryBytes;
  static constexpr int kRingAt = kWeightAt + pairs_with_weights(kMostPairs, kE4m3) * kKeys * 2;
  static constexpr int kLeastRing = kHalves == 1 && kPieces > 3 ? kPieces : 3;
  static constexpr int ring_in(int shared_bytes) {
    const int places = (shared_bytes - kRingAt) / kPieceBytes;
    return places < kMaxRing ? places : kMaxRing;
  }
  static constexpr int kRing = ring_in(227 * 1024);
  // Leaves room for a thread block of a product (product.cu).
  static constexpr int kSmallRing = ring_in(114 * 1024) > 3 ? ring_in(114 * 1024) : kRing;
  // Leaves room for small kernels' thread blocks, and is no shorter than an item of 128 keys:
  // longer ones gain nothing.
  static constexpr int kLongRing = ring_in((Registers::kBlocks == 2 ? 113 : 152) * 1024);
  // Queries of every second run of items with the same pairs may lie behind the ring. Nobody needs
  // those of the run before last when the copies of a run begin: one item at least is in between.
  __host__ __device__ static uint32_t queries_at(int place, int ring) {
    return static_cast<uint32_t>(place == 0 ? kQueryAt : kRingAt + ring * kPieceBytes);
  }
  static_assert(!kCopiesQueries || kLongRing <= (3 * kPieces + 1) * kHalves);
  static constexpr int bytes(int ring) {
    return kRingAt + ring * kPieceBytes + (kCopiesQueries ? kQueryBytes : 0);
  }
  static_assert(kRing >= kLeastRing);
};

// Whether work behind the list begins before the kernels before have ended. It takes registers.
template <typename P>
__device__ inline bool begins_early(const Job& job) {
  return P::Registers::kBeginsEarly && job.rows.early_plan;
}

// Goes on to item `number` of this thread block, if there is one. `is_new`: whether it is of other
// rows or of another group than the one before.
template <typename P>
__device__ bool go_to(const Job& job, typename P::Control& control, int number, Item& item,
                      bool& is_new) {
  const WorkList& list = control.list;
  if (number < list.count) {
    is_new = go_on<P::kKeys>(job, list, item);
    return true;
  }
  if (!P::kLong || list.first_drawn == list.num_items) return false;
  const Item next = control.drawn.get(number - list.count);
  if (next.entry < 0) return false;
  is_new = next.entry != item.entry || next.group != item.group;
  item = next;
  return true;
}

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

// Where columns of a query begin among [pieces][product_columns][128 bytes], chunks of 16 bytes
// exchanged; of E4M3 the high codes: the low ones are kLowAt bytes behind.
inline constexpr int kLowAt = 8 * 128;
template <typename P>
__device__ inline uint32_t query_at(int pairs, int pair, int column) {
  const int byte = column % P::kPieceColumns * static_cast<int>(sizeof(typename P::Element));
  const int row = P::kE4m3 ? pair / 8 * 16 + pair % 8 : pair;
  const int rows = column / P::kPieceColumns * product_columns(pairs, P::kE4m3) + row;
  return static_cast<uint32_t>(rows * 128 + (byte / 16 ^ pair % 8) * 16 + byte % 16);
}

// The weights of 32 bytes, 16 keys or 32, among [64 or 128 keys][product_columns][128 bytes].
template <typename P, int kPairs>
__device__ inline uint64_t weights_of_step(uint32_t shared, int step) {
  constexpr int kColumns = product_columns(pairs_with_weights(kPairs, P::kE4m3), P::kE4m3);
  return ptx::matrix_of(
      shared + P::kWeightAt + static_cast<uint32_t>(step / 4 * kColumns * 128 + step % 4 * 32),
      1024);
}

template <typename P>
__device__ Ring ring_of(const Job& job, uint32_t shared) {
  return {shared + P::kRingAt, shared, job.ring_size};
}

// attention_e4m3.cu
void launch_e4m3(const Stream& stream, const Job& job);

}  // namespace tandem::ops::cuda::segment
