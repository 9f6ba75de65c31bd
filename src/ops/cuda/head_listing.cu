// The product of several tiles of rows (product_multiplier.cuh) with a screen whose sets belong to
// one share each: what it leaves is not logits, but who may come first. A logit that may is listed
// as soon as its set is there, if it reaches what thread blocks have told each other by then, and
// counts if it still does at the end.
#include "ops/cuda/head_screen.cuh"
#include "ops/cuda/head_tokens.cuh"
#include "ops/cuda/product_multiplier.cuh"

namespace tandem::ops::cuda {
namespace {

using few::kComputing;
using few::kWarps;
using few::Piece;

constexpr int kThreads = few::kThreads + 32;  // one more warp measures rows
// Where a thread block lists more, all of its ids may come first.
constexpr int kMostEntries = 768;
constexpr int kMostIds = 16384;  // of a share

struct Entry {
  uint32_t id_and_row;  // 24 bits, and 8
  float upper;          // no logit of the head is larger
};

// In shared memory, behind the ring.
template <int kRows>
struct Meeting {
  Aside aside[kWarps];
  alignas(16) float2 bounds[kRows];  // no smaller logit can come first; and |x|
  uint32_t lower[kRows];             // as ScreenPlaces::lower, of what this block knows
  int32_t suppressed[kMaxHeadSuppressed];
  Entry entries[kMostEntries];
  uint32_t seen[kMostIds / 32];  // a bit for each id
  int count;
};

struct ListingJob {
  HeadLogits logits;
  ScreenPlaces screen;
  const uint8_t* operand;
};

template <typename S>
struct Listing {
  static constexpr int kRows = S::kTiles * 8;
  static_assert(kRows <= kComputing && kMaxHeadSuppressed <= kComputing);
  using Sums = float[S::kTiles * 4];
  const ListingJob& job;
  Meeting<kRows>& meeting;
  int lane = static_cast<int>(threadIdx.x) % 32;
  int warp = static_cast<int>(threadIdx.x) / 32;
  float2 scales = {};  // of the set at hand
  float2 errors = {};
  bool has_bounds = false;
  uint32_t told = 0;  // by other thread blocks, of row threadIdx.x

  // Before the threads of the block meet for the first time.
  __device__ void prepare() const {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kRows) meeting.lower[thread] = 0;
    if (thread < job.logits.num_suppressed)
      meeting.suppressed[thread] = job.logits.suppressed[thread];
    for (int i = thread; i < kMostIds / 32; i += kThreads) meeting.seen[i] = 0;
    if (thread == 0) meeting.count = 0;
  }

  // A warp: how long the rows are that are this thread block's, for all thread blocks.
  __device__ void measure_rows(const Partials& plan) const {
    wait_for_previous();
    for (int row = static_cast<int>(blockIdx.x); row < job.logits.num_rows;
         row += static_cast<int>(gridDim.x)) {
      const float length = operand_length(job.operand, S::kTiles, plan.set_blocks, row, lane);
      if (lane != 0) continue;
      __stcg(job.screen.lengths + row, length);
      __stcg(job.screen.told_lengths + row, __float_as_uint(length) + 1);
    }
  }

  __device__ void begin(const Piece& piece) {
    const int id = first_id_of(piece.set);
    scales = two_of(job.screen.scales, id);
    errors = two_of(job.screen.errors, id);
  }
  // A set is complete.
  __device__ void finish(const Sums& sums, const Piece& piece, const few::Ring<S>&,
                         const RingPlace<S::kStages>&) {
    const int first_id = first_id_of(piece.set);
    if (has_bounds) {
      take_told();
    } else {
      find_bounds(sums, first_id);
      has_bounds = true;
    }
    const uint32_t reached = tiles_reached(sums, scales, [&](int tile, const float4& x) {
      const float4 two = bounds_of(tile);
      return !(x.x + errors.x * two.y < two.x) || !(x.y + errors.x * two.w < two.z) ||
             !(x.z + errors.y * two.y < two.x) || !(x.w + errors.y * two.w < two.z);
    });
    for_tiles(reached, sums, scales, meeting.aside[warp],
              [&](const float4& x, int tile) { meet(x, tile, first_id); });
    tell();
  }

  // All sets have been taken, by every warp that multiplies: the ids go to those who confirm them.
  __device__ void leave(const Partials& plan) {
    const int thread = static_cast<int>(threadIdx.x);
    ptx::named_barrier(1, kComputing);
    tell();
    take_told();
    ptx::named_barrier(1, kComputing);
    const int first_id =
        plan.share_begin(static_cast<int>(blockIdx.x)) / plan.set_blocks * kSetColumns;
    if (meeting.count <= kMostEntries) {
      for (int i = thread; i < meeting.count; i += kComputing) {
        const Entry& entry = meeting.entries[i];
        if (entry.upper < meeting.bounds[entry.id_and_row & 0xff].x) continue;
        const int id = static_cast<int>(entry.id_and_row >> 8);
        const uint32_t bit = 1U << id % 32;
        if ((atomicOr(&meeting.seen[(id - first_id) / 32], bit) & bit) == 0) put(id);
      }
      return;
    }
    const int end_id =
        plan.share_begin(static_cast<int>(blockIdx.x) + 1) / plan.set_blocks * kSetColumns;
    for (int id = first_id + thread; id < min(end_id, job.logits.vocab_size); id += kComputing)
      if (!is_among(meeting.suppressed, job.logits.num_suppressed, id)) put(id);
  }

 private:
  // Thread blocks confirm the ids of every num_shares-th set.
  __device__ void put(int id) const {
    const int who = id / kSetColumns % static_cast<int>(gridDim.x);
    const uint32_t place = atomicAdd(job.screen.counts + who, 1U);
    job.screen.ids[static_cast<int64_t>(who) * job.screen.room + place] = id;
  }

  // What others have told of row threadIdx.x, if there is one, raises its bound.
  __device__ void take_told() {
    const int row = static_cast<int>(threadIdx.x);
    if (row >= job.logits.num_rows) return;
    const uint32_t lower = max(told, atomicMax(&meeting.lower[row], told));
    set_bound(row, lower, meeting.bounds[row].y);
  }
  // And they get to know what is known here.
  __device__ void tell() {
    const int row = static_cast<int>(threadIdx.x);
    if (row < job.logits.num_rows)
      told =
          atomicMax(job.screen.lower + row, *static_cast<volatile uint32_t*>(&meeting.lower[row]));
  }
  __device__ void set_bound(int row, uint32_t lower, float length) const {
    const float floor = floor_of(job.logits.cap, from_ordered(lower));
    meeting.bounds[row].x = lower != 0 && length < kMostScreenedLength ? floor : -kInfinity;
  }

  // The first set: bounds from all thread blocks that are as far. What they raise later would do as
  // well.
  __device__ void find_bounds(const Sums& sums, int first_id) {
    const int row = static_cast<int>(threadIdx.x);
    const bool exists = row < job.logits.num_rows;
    if (row < kRows)
      meeting.bounds[row] = {exists ? -kInfinity : kInfinity, length_of(row, exists)};
    ptx::named_barrier(1, kComputing);
    bool hidden[2];
    hide_ids(job.logits, meeting.suppressed, first_id, hidden);
#pragma unroll
    for (int tile = 0; tile < S::kTiles; ++tile) {
      const float4 x = logits_of_tile(sums, tile, scales);
      const float4 two = bounds_of(tile);
      const float lower = largest_of_ids(fmaxf(hidden[0] ? -kInfinity : x.x - errors.x * two.y,
                                               hidden[1] ? -kInfinity : x.z - errors.y * two.y),
                                         fmaxf(hidden[0] ? -kInfinity : x.y - errors.x * two.w,
                                               hidden[1] ? -kInfinity : x.w - errors.y * two.w),
                                         lane);
      if (lane / 8 == tile % 4) raise(tile * 8 + row_of_eight(lane), lower);
    }
    ptx::named_barrier(1, kComputing);
    if (exists) {
      atomicMax(job.screen.lower + row, meeting.lower[row]);
      __nanosleep(kPatience);
      told = __ldcg(job.screen.lower + row);
    }
    take_told();
    ptx::named_barrier(1, kComputing);
  }
  // As measure_rows() tells it.
  __device__ float length_of(int row, bool exists) const {
    if (!exists) return 0.0F;
    const volatile uint32_t* const place = job.screen.told_lengths + row;
    uint32_t bits = *place;
    while (bits == 0) {
      __nanosleep(50);
      bits = *place;
    }
    return __uint_as_float(bits - 1);
  }
  // What is no number says nothing.
  __device__ void raise(int row, float lower) const {
    if (lower < kInfinity) atomicMax(&meeting.lower[row], ordered(lower));
  }
  // Of a lane's two rows. Other threads raise them meanwhile: an old one is as good.
  __device__ float4 bounds_of(int tile) const {
    return __builtin_bit_cast(
        float4, ptx::load_shared(ptx::shared_address(meeting.bounds + tile * 8 + lane % 4 * 2)));
  }

  // x: ids first_id and first_id + 8 of two rows of a tile.
  __device__ void meet(const float4& x, int tile, int first_id) const {
    bool hidden[2];
    hide_ids(job.logits, meeting.suppressed, first_id, hidden);
    const float4 two = bounds_of(tile);
    const int row = tile * 8 + lane % 4 * 2;
    if (!hidden[0]) {
      list(x.x, errors.x, row, first_id, two.x, two.y);
      list(x.y, errors.x, row + 1, first_id, two.z, two.w);
    }
    if (!hidden[1]) {
      list(x.z, errors.y, row, first_id + 8, two.x, two.y);
      list(x.w, errors.y, row + 1, first_id + 8, two.z, two.w);
    }
  }
  __device__ void list(float x, float error, int row, int id, float floor, float length) const {
    const float upper = x + error * length;
    if (upper < floor || row >= job.logits.num_rows) return;
    const int place = atomicAdd(&meeting.count, 1);
    if (place < kMostEntries)
      meeting.entries[place] = {static_cast<uint32_t>(id) << 8 | static_cast<uint32_t>(row), upper};
    raise(row, x - error * length);
  }
};

template <typename S>
__global__ void __launch_bounds__(kThreads, 1)
    listing_kernel(const few::Job product, const __grid_constant__ ListingJob job) {
  if constexpr (S::kIsUsed) {
    extern __shared__ __align__(128) uint8_t shared[];
    allow_next();
    Listing<S> listing{job, *reinterpret_cast<Meeting<Listing<S>::kRows>*>(shared + S::kBytes)};
    listing.prepare();
    few::work_on<S>(product, few::Ring<S>{ptx::shared_address(shared)}, listing);
    if (threadIdx.x < kComputing) listing.leave(product.plan);
    if (threadIdx.x >= few::kThreads) listing.measure_rows(product.plan);
  } else {
    __trap();
  }
}

template <int kTiles>
void launch_listing(const Stream& stream, const PackedLinear& screen, few::Job product,
                    const ListingJob& job) {
  using S = few::Shape<kTiles, PackedType::kIntegers, false, few::RingLength::kHead>;
  constexpr int kBytes = S::kBytes + static_cast<int>(sizeof(Meeting<kTiles * 8>));
  static_assert(S::kBytes % 16 == 0 && kBytes <= few::kMostShared);
  static const bool configured = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(listing_kernel<S>,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return true;
  }();
  (void)configured;
  product.plan = screen.partials(nullptr, kTiles * 8);
  launch(stream, listing_kernel<S>, dim3(static_cast<unsigned>(screen.num_shares)), dim3(kThreads),
         kBytes, product, job);
}

}  // namespace

bool lists_rows(const PackedLinear& screen, const HeadLogits& logits) {
  return screen.max_pieces == 1 && max_shared_bytes() >= few::kMostShared &&
         screen.num_shares <= few::kMaxShares && ids_of_share(screen) <= kMostIds &&
         logits.num_suppressed <= kMaxHeadSuppressed;
}

void list_screened(const Stream& stream, const PackedLinear& screen, const ScreenPlaces& places,
                   const void* operand, int num_tiles, const HeadLogits& logits) {
  few::Job product{};
  product.most_ahead = few::kHeldBack;
  product.weights = screen.data.as<uint8_t>();
  product.operand = static_cast<const uint8_t*>(operand);
  const ListingJob job{logits, places, product.operand};
  few::with_tiles<2, 4, 8>(
      num_tiles, [&](auto tiles) { launch_listing<tiles>(stream, screen, product, job); });
}

}  // namespace tandem::ops::cuda
