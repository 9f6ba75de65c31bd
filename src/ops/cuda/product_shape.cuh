// How the product of few rows (product.cu) divides its work and its shared memory.
#pragma once

#include <type_traits>

#include "ops/cuda/card.cuh"
#include "ops/cuda/gelu_product.h"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/ptx.cuh"

namespace tandem::ops::cuda::few {

inline constexpr int kWarps = 8;  // two warpgroups that multiply; one more warp copies
inline constexpr int kComputing = kWarps * 32;
inline constexpr int kThreads = kComputing + 32;
inline constexpr int kTileSumBytes = 8 * kSetColumns * 4;  // of a set and 8 rows
// Flags in the exchange, whatever the weight: none of them is another weight's sums.
inline constexpr int kMaxShares = 1024;
inline constexpr int64_t kFlagBytes = kMaxShares * 4;

// Stages on their way while others work: so many keep memory busy, and more of them queue up in
// front of what the kernels before read, which took 5 us of a layer.
inline constexpr int kHeldBack = 2;
inline constexpr int kMaxStages = 32;

// The product of kTiles * 8 rows. With a short ring there is room for a neighbour on the
// multiprocessor; a long one is filled while the small kernel in front of the product runs. Cards
// with little shared memory have a ring of their own. Heads whose logits are met at once need room
// for it.
enum class RingLength { kShort, kLong, kSmallCard, kHead };
constexpr int ring_bytes(RingLength length) {
  switch (length) {
    case RingLength::kShort:
      return 108 * 1024;
    case RingLength::kLong:
      return 216 * 1024;
    case RingLength::kHead:
      return 200 * 1024;
    default:
      return 97 * 1024;
  }
}
// What a thread block has on cards with long rings.
inline constexpr int kMostShared = 227 * 1024;
template <int kTilesIn, PackedType kType, bool kGeluIn, RingLength kRing>
struct Shape {
  static constexpr int kTiles = kTilesIn;
  static constexpr bool kFp8 = kType == PackedType::kFp8;  // both sides
  static constexpr bool kIntegers = kType == PackedType::kIntegers;
  static constexpr bool kWidened = kType == PackedType::kFp8Weights || kIntegers;
  static constexpr bool kGelu = kGeluIn;
  // Whether it is for cards with little shared memory, and whether it is for the card at hand.
  static constexpr bool kSmallCard = kRing == RingLength::kSmallCard;
  static constexpr bool kIsUsed = kSmallCard == card::kSmallShared;

  static constexpr int kBlockBytes = kFp8 || kWidened ? 4096 : 8192;
  static constexpr int kTileBytes = kFp8 ? kE4m3TileBytes : 512;  // operand of 8 rows in a block
  static constexpr int kRowBytes = kTiles * kTileBytes;           // of all rows
  // Of one stage of the ring. Many rows are longer than the weights that they go with.
  static constexpr int kStageBlocks = (kWidened && kTiles > 16 ? 8 : 16) * 1024 / kBlockBytes;
  static constexpr int kStageBytes = kStageBlocks * (kBlockBytes + kRowBytes);
  static constexpr bool kTwoStages = kTiles <= 4;  // multiplied at once
  // Many rows take long to come: those of the first stage are waited for alone.
  static constexpr bool kSplitsRows = kTiles >= 8;
  // What the tensor cores multiply at a time: of many rows a part, of which two are under way.
  static constexpr int kPartTiles = kTiles <= 8 ? kTiles : kTiles <= 20 ? kTiles / 2 : 8;
  static constexpr int kParts = kTiles / kPartTiles;
  static_assert(kTiles % kPartTiles == 0);
  // Many rows: products of a stage start while those of the stage before are added up. It takes
  // more registers than nine warps leave each other, since they are allotted by quarters of a
  // multiprocessor: the warp that copies becomes a warpgroup, which gives its own up.
  static constexpr bool kPipelined = kParts > 1 && kFp8 && !kSmallCard;
  // The same of BF16 rows, whose sums stay in the tensor cores. Elsewhere it takes more registers
  // than there are, or gains nothing.
  static constexpr bool kChained =
      !kFp8 && !kSmallCard && (kTiles == 8 || (!kWidened && kTiles > 8 && kTiles <= 20));
  static constexpr int kThreads = kPipelined ? 3 * 128 : few::kThreads;
  static constexpr int kStagingBytes = kGelu && kFp8 ? 2 * kTiles * kE4m3TileBytes : 0;
  static constexpr int kStages = (ring_bytes(kRing) - kStagingBytes) / kStageBytes;
  static_assert(kStages >= (kSmallCard && kTiles > 4 ? 2 : 4) && kStages <= kMaxStages);
  static constexpr int kBarrierBytes = (2 * kStages + 4) * 8;  // a multiple of 16
  static constexpr int kBytes = kStages * kStageBytes + kBarrierBytes + kStagingBytes;
  static_assert(!kSmallCard || kBytes <= 99 * 1024);
  // Of how many tiles the sums fit into the weights of a stage.
  static constexpr int stage_tiles() { return kStageBlocks * kBlockBytes / kTileSumBytes; }
};

// visit(count) with a constant, the one of kCounts that num_tiles is.
template <int... kCounts, typename Visit>
void with_tiles(int num_tiles, const Visit& visit) {
  const bool is_one =
      ((num_tiles == kCounts && (visit(std::integral_constant<int, kCounts>()), true)) || ...);
  check_condition(is_one, "num_tiles that there is a kernel for");
}

struct Job {
  const uint8_t* weights;
  const uint8_t* operand;
  Partials plan;
  float* partials;
  int most_ahead;  // stages on their way before the rows are there
  int intermediate;
  GeluProduct gelu;
};

// A share's piece of a set. Sets come from the last to the first.
struct Piece {
  int set;
  int begin;  // blocks within the set
  int end;

  __device__ Piece(int share_begin, int share_end, int set_blocks)
      : set(share_end > 0 ? (share_end - 1) / set_blocks : 0),
        begin(max(share_begin - set * set_blocks, 0)),
        end(share_end - set * set_blocks) {}
  __device__ bool exists() const { return begin < end; }
  __device__ Piece before(int share_begin, int set_blocks) const {
    return {share_begin, set * set_blocks, set_blocks};
  }
};

// Walks over the blocks [begin, end) of a share, a stage at a time: up to a multiple of
// kStageBlocks within the set, so that a stage is one run of weights and one run of the operand.
// Sets come from the last to the first, a set's blocks in order. Where E4M3 sums go to FP32
// registers follows from it: it depends on the share alone.
template <int kStageBlocks>
struct Walk {
  int set;
  int within;  // the stage's first block in its set
  int count;   // blocks of the stage
  int left;    // blocks of the share's piece of the set, from the stage on
  int begin;
  int set_blocks;

  __device__ Walk(int begin_in, int end, int set_blocks_in)
      : set((end - 1) / set_blocks_in), begin(begin_in), set_blocks(set_blocks_in) {
    start(end);
  }
  __device__ bool done() const { return left <= 0; }
  __device__ int block() const { return set * set_blocks + within; }
  __device__ bool ends_piece() const { return count == left; }
  __device__ void advance() {
    within += count;
    left -= count;
    if (left > 0) {
      measure();
    } else {
      --set;
      start((set + 1) * set_blocks);
    }
  }

 private:
  // The piece of the set before `end`.
  __device__ void start(int end) {
    within = max(begin - set * set_blocks, 0);
    left = end - block();
    measure();
  }
  __device__ void measure() { count = min(kStageBlocks - within % kStageBlocks, left); }
};

// Shared memory: [kStages] of weights, [kStages] of rows, barriers. A block of rows lies at its
// place in a stage, so that a run of stages has its rows in one run as well.
template <typename S>
struct Ring {
  uint32_t base;
  __device__ uint32_t weights(int stage) const {
    return base + stage * (S::kStageBlocks * S::kBlockBytes);
  }
  __device__ uint32_t rows(int stage, int within) const {
    return weights(S::kStages) +
           (stage * S::kStageBlocks + within % S::kStageBlocks) * S::kRowBytes;
  }
  __device__ uint32_t full(int stage) const {
    return base + S::kStages * S::kStageBytes + stage * 8;
  }
  __device__ uint32_t empty(int stage) const { return full(S::kStages + stage); }
  // The rows of the stages that were filled before there were any: with kSplitsRows of the first
  // one, and of the others.
  __device__ uint32_t first_rows() const { return full(2 * S::kStages); }
  __device__ uint32_t other_rows() const { return full(2 * S::kStages + 1); }
  // Passed: the kernels in front have finished.
  __device__ uint32_t turn() const { return full(2 * S::kStages + 2); }
  __device__ uint32_t staging() const {
    return base + S::kStages * S::kStageBytes + S::kBarrierBytes;
  }
};

// A piece of a set's sums in the exchange, as its threads hold them: [kTiles][256 threads][4].
template <typename S>
__device__ inline uint8_t* published(const Job& job, int share) {
  return static_cast<uint8_t*>(job.gelu.exchange) + kFlagBytes +
         static_cast<int64_t>(share) * S::kTiles * kTileSumBytes;
}
// How many warps of each share have left theirs.
__device__ inline uint32_t* flags_of(const Job& job) {
  return static_cast<uint32_t*>(job.gelu.exchange);
}

}  // namespace tandem::ops::cuda::few
