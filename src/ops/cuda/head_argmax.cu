// The product of few rows (product_multiplier.cuh) with a head, whose logits are met as soon as a
// set's are there. For each row a thread block knows a floor, below which no logit can come first:
// of the sets that follow the first ones hardly a logit reaches it.
#include "ops/cuda/head_argmax.h"

#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/head_tokens.cuh"
#include "ops/cuda/product_multiplier.cuh"

namespace tandem::ops::cuda {
namespace {

using few::kComputing;
using few::kWarps;
using few::Piece;
using few::RingLength;

// In shared memory, behind the ring.
template <int kRows>
struct Meeting {
  Key keys[kRows];                 // the first candidate so far
  alignas(8) float floors[kRows];  // no uncapped logit below it can come first
  uint32_t largest[kRows];         // ordered(): uncapped, of the first set
  int32_t suppressed[kMaxHeadSuppressed];
  Aside aside[kWarps];
};

struct ArgmaxJob {
  HeadLogits logits;
  ArgmaxScratch scratch;
  int32_t* tokens;
  DraftToken draft;
};

template <typename S>
struct Argmax {
  static constexpr int kRows = S::kTiles * 8;
  using Sums = float[S::kTiles * 4];
  const ArgmaxJob& job;
  Meeting<kRows>& meeting;
  int lane = static_cast<int>(threadIdx.x) % 32;
  int warp = static_cast<int>(threadIdx.x) / 32;
  float2 scales = {};  // of the set at hand
  bool has_floors = false;

  // Before the threads of the block meet for the first time.
  __device__ void prepare() const {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kRows) {
      meeting.keys[thread] = kNoKey;
      meeting.largest[thread] = 0;
      // What is in rows that do not exist reaches no floor, unless it is no number.
      meeting.floors[thread] = thread < job.logits.num_rows ? -kInfinity : kInfinity;
    }
    if (thread < job.logits.num_suppressed)
      meeting.suppressed[thread] = job.logits.suppressed[thread];
  }

  __device__ void begin(const Piece& piece) {
    scales = two_scales(job.logits, first_id_of(piece.set));
  }
  // A set is complete: its uncapped logits.
  __device__ void finish(const Sums& sums, const Piece& piece, const few::Ring<S>&,
                         const RingPlace<S::kStages>&) {
    const int first_id = first_id_of(piece.set);
    if (!has_floors) {
      find_floors(sums, first_id);
      has_floors = true;
    }
    const uint32_t reached = tiles_reached(sums, scales, [&](int tile, const float4& x) {
      const float2 floors = floors_of(tile);
      // By what is not finite as well.
      return !(x.x < floors.x) || !(x.y < floors.y) || !(x.z < floors.x) || !(x.w < floors.y);
    });
    for_tiles(reached, sums, scales, meeting.aside[warp],
              [&](const float4& x, int tile) { meet(x, tile, first_id); });
  }

  // All sets have been taken, by every warp that multiplies.
  __device__ void tell() const {
    ptx::named_barrier(1, kComputing);
    const int row = static_cast<int>(threadIdx.x);
    if (row >= job.logits.num_rows) return;
    if (tell_candidate(job.scratch, row, gridDim.x, meeting.keys[row], job.tokens, job.draft))
      job.scratch.largest[row] = 0;
  }

 private:
  // The first set: the largest logits of all thread blocks that are as far. A floor that another
  // one raises later would do as well.
  __device__ void find_floors(const Sums& sums, int first_id) const {
    bool hidden[2];
    hide_ids(job.logits, meeting.suppressed, first_id, hidden);
#pragma unroll
    for (int tile = 0; tile < S::kTiles; ++tile) {
      const float4 x = logits_of_tile(sums, tile, scales);
      const float largest =
          largest_of_ids(fmaxf(hidden[0] ? -kInfinity : x.x, hidden[1] ? -kInfinity : x.z),
                         fmaxf(hidden[0] ? -kInfinity : x.y, hidden[1] ? -kInfinity : x.w), lane);
      if (lane / 8 == tile % 4)
        atomicMax(&meeting.largest[tile * 8 + row_of_eight(lane)], ordered(largest));
    }
    ptx::named_barrier(1, kComputing);
    const int row = static_cast<int>(threadIdx.x);
    if (row < job.logits.num_rows) {
      const uint32_t own = meeting.largest[row];
      atomicMax(job.scratch.largest + row, own);
      __nanosleep(kPatience);
      const uint32_t largest = max(own, __ldcg(job.scratch.largest + row));
      meeting.floors[row] = floor_of(job.logits.cap, from_ordered(largest));
    }
    ptx::named_barrier(1, kComputing);
  }

  // Of a lane's two rows. Other warps raise them meanwhile: an old one is as good.
  __device__ float2 floors_of(int tile) const {
    const auto* const own = meeting.floors + tile * 8 + lane % 4 * 2;
    const uint64_t both = *reinterpret_cast<const volatile uint64_t*>(own);
    return {__uint_as_float(static_cast<uint32_t>(both)),
            __uint_as_float(static_cast<uint32_t>(both >> 32))};
  }

  // x: ids first_id and first_id + 8 of two rows of a tile.
  __device__ void meet(const float4& x, int tile, int first_id) const {
    bool hidden[2];
    SuppressedIds(job.logits, meeting.suppressed)
        .hide(job.logits, meeting.suppressed, first_id, hidden);
    const int row = tile * 8 + lane % 4 * 2;
    meet_row(x.x, x.z, row, first_id, hidden);
    meet_row(x.y, x.w, row + 1, first_id, hidden);
  }
  // Eight lanes have a row's logits of sixteen ids.
  __device__ void meet_row(float lower, float upper, int row, int first_id,
                           const bool (&hidden)[2]) const {
    const HeadLogits& head = job.logits;
    const bool exists = row < head.num_rows;
    const bool inside[2] = {exists && first_id < head.vocab_size,
                            exists && first_id + 8 < head.vocab_size};
    const bool finite =
        (!inside[0] || is_finite(head, lower)) && (!inside[1] || is_finite(head, upper));
    const unsigned own_lanes = 0x11111111U << lane % 4;
    const bool all_finite = (__ballot_sync(kWholeWarp, !finite) & own_lanes) == 0;
    float largest = fmaxf(inside[0] && !hidden[0] ? lower : -kInfinity,
                          inside[1] && !hidden[1] ? upper : -kInfinity);
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2)
      largest = fmaxf(largest, __shfl_xor_sync(kWholeWarp, largest, mask));
    if (!exists) return;
    const float floor = fmaxf(floor_of(head.cap, largest), meeting.floors[row]);
    Key best = kNoKey;
    if (!all_finite) best = kNotFiniteKey;
    if (all_finite && inside[1] && !hidden[1]) best = key_of(upper, floor, first_id + 8);
    if (all_finite && inside[0] && !hidden[0]) {
      const Key other = key_of(lower, floor, first_id);
      best = other > best ? other : best;
    }
    if (best != kNoKey) atomicMax(&meeting.keys[row], best);
    if (lane < 4)
      *static_cast<volatile float*>(meeting.floors + row) = all_finite ? floor : kInfinity;
  }
  __device__ Key key_of(float x, float floor, int id) const {
    if (!(x >= floor)) return kNoKey;
    const float logit = job.logits.cap > 0.0F ? capped_rarely(job.logits.cap, x) : x;
    return logit == -kInfinity ? kNoKey : make_key(logit, id);
  }
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 1)
    head_argmax_kernel(const few::Job product, const ArgmaxJob job) {
  if constexpr (S::kIsUsed) {
    extern __shared__ __align__(128) uint8_t shared[];
    allow_next();
    const Argmax<S> argmax{job, *reinterpret_cast<Meeting<Argmax<S>::kRows>*>(shared + S::kBytes)};
    argmax.prepare();
    few::work_on<S>(product, few::Ring<S>{ptx::shared_address(shared)}, argmax);
    if (threadIdx.x < kComputing) argmax.tell();
  } else {
    __trap();
  }
}

template <typename S>
constexpr int kAllBytes = S::kBytes + static_cast<int>(sizeof(Meeting<S::kTiles * 8>));

template <int kTiles, PackedType kType>
void launch_argmax(const Stream& stream, const PackedLinear& head, few::Job product,
                   const ArgmaxJob& job) {
  using S = few::Shape<kTiles, kType, false, RingLength::kHead>;
  static_assert(S::kBytes % 16 == 0 && kAllBytes<S> <= few::kMostShared);
  static_assert(Argmax<S>::kRows <= kComputing && kMaxHeadSuppressed <= kComputing);
  static const bool configured = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(
        head_argmax_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, kAllBytes<S>));
    return true;
  }();
  (void)configured;
  product.plan = head.partials(nullptr, kTiles * 8);
  launch(stream, head_argmax_kernel<S>, dim3(static_cast<unsigned>(head.num_shares)),
         dim3(S::kThreads), kAllBytes<S>, product, job);
}

template <PackedType kType>
void launch_for_tiles(const Stream& stream, const PackedLinear& head, int num_tiles,
                      const few::Job& product, const ArgmaxJob& job) {
  few::with_tiles<2, 4, 8, 12, 16, 20, 24>(
      num_tiles, [&](auto tiles) { launch_argmax<tiles, kType>(stream, head, product, job); });
}

}  // namespace

bool takes_head_argmax(const PackedLinear& head, int num_tiles, const HeadLogits& logits) {
  const bool has_room = max_shared_bytes() >= few::kMostShared;
  const bool type_fits = head.type == PackedType::kBF16 || head.type == PackedType::kFp8Weights;
  return has_room && type_fits && head.max_pieces == 1 && num_tiles > 1 &&
         logits.num_rows <= num_tiles * 8 && logits.num_suppressed <= kMaxHeadSuppressed;
}

void head_argmax(const Stream& stream, const PackedLinear& head, const void* operand, int num_tiles,
                 const HeadArgmax& argmax) {
  TANDEM_GPU_CHECK(takes_head_argmax(head, num_tiles, argmax.logits));
  TANDEM_GPU_CHECK(argmax.logits.num_rows > 0 && argmax.logits.vocab_size <= head.out_features);
  few::Job product{};
  product.most_ahead = few::kHeldBack;
  product.weights = head.data.as<uint8_t>();
  product.operand = static_cast<const uint8_t*>(operand);
  const ArgmaxJob job{argmax.logits, argmax_scratch(argmax.scratch, argmax.logits.num_rows),
                      argmax.tokens, argmax.draft};
  if (head.type == PackedType::kBF16)
    launch_for_tiles<PackedType::kBF16>(stream, head, num_tiles, product, job);
  else
    launch_for_tiles<PackedType::kFp8Weights>(stream, head, num_tiles, product, job);
}

}  // namespace tandem::ops::cuda
