#include "ops/cuda/head_likeliest.h"

#include <algorithm>
#include <cmath>

#include "ops/cuda/head_confirm.cuh"
#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/head_screen.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda {
namespace {

using confirm::kThreads;
using confirm::kWarps;
using confirm::Together;

constexpr unsigned kAll = 0xffffffffU;
constexpr int kMostRows = 8 * kMaxScreenedTiles;
constexpr int kRoom = 4096;         // for logits of a row that reach its floor
constexpr int kMostListed = 32768;  // ids in doubt in any row
constexpr int kWarpSets = 4;        // that a warp reads at once
constexpr int kListedRows = 4;      // of a set that are read at once
constexpr int kOrderedKeys = 512;   // of a list that are looked at at once
// The squares of a shorter row may be below FP32's range.
constexpr float kLeastLength = 1e-18F;

// Of a row.
enum State : uint32_t { kDropped = 1, kNotFinite = 2 };

struct Entry {
  int32_t id;
  uint32_t rows;  // in which it is in doubt
};

struct Places {
  uint32_t* guesses;  // [kMostRows] ordered(): N logits should be at least that; 0: none
  uint32_t* states;   // [kMostRows]
  uint32_t* reached;  // [kMostRows] logits that are at least the guess
  uint32_t* found;    // [kMostRows] of `keys`, also those for which there is no room
  uint32_t* listed;   // [1] of `entries`, likewise
  Entry* entries;     // [kMostListed]
  Key* keys;          // [kMostRows][kRoom]
  Key* sets;          // [kMostRows][num_sets] who comes first on the screen
};

struct Job {
  confirm::Factors factors;
  HeadLogits logits;
  ScreenPlaces screen;
  Places places;
  int num_sets;
  int num_likeliest;
  float mostly_lost;  // of the most that rounding to the screen may take from a logit
  Likeliest* out;
};

__device__ float minus_infinity() {
  return -__int_as_float(0x7f800000);
}

// Kernels here run once each, behind one that has filled L2 with weights: what they do for the
// first time waits for its instructions. So the thread blocks that are there first go through
// everything before the kernel in front ends, without reading what is not there yet (first_turn()).
__device__ int first_turn_here() {
  constexpr unsigned kFirstBlocks = 264;
  return blockIdx.y * gridDim.x + blockIdx.x < kFirstBlocks ? 0 : 1;
}

// What other kernels write, or 0 without reading it.
__device__ uint32_t load_if(bool live, const uint32_t* source) {
  uint32_t value = 0;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %2, 0;\n"
      "@p ld.global.cg.u32 %0, [%1];\n"
      "}"
      : "+r"(value)
      : "l"(source), "r"(static_cast<int>(live)));
  return value;
}
__device__ Key load_if(bool live, const Key* source) {
  Key value = kNoKey;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.s32 p, %2, 0;\n"
      "@p ld.global.cg.u64 %0, [%1];\n"
      "}"
      : "+l"(value)
      : "l"(source), "r"(static_cast<int>(live)));
  return value;
}

// Logits set * 128 + lane * 4 .. + 3 of a row as screened.
template <int kTiles>
__device__ float4 load_screened(const Job& job, int row, int set, int lane, bool live) {
  const ScreenPlaces& screen = job.screen;
  const int id = set * kSetColumns + lane * 4;
  if constexpr (kTiles == 1) {
    return load4_if(live, screen.logits + static_cast<int64_t>(row) * screen.columns + id);
  } else {
    const Partials& sums = screen.sums;  // of one or two pieces
    const int64_t line = static_cast<int64_t>(set) * sums.max_pieces * sums.num_rows + row;
    const float* const source = sums.data + line * kSetColumns + lane * 4;
    const float4 first = load4_if(live, source);
    const float4 second =
        load4_if(live && sums.num_pieces(set) > 1, source + sums.num_rows * kSetColumns);
    const float4 sum = {first.x + second.x, first.y + second.y, first.z + second.z,
                        first.w + second.w};
    const float4 scale = *reinterpret_cast<const float4*>(screen.scales + id);
    return {sum.x * scale.x, sum.y * scale.y, sum.z * scale.z, sum.w * scale.w};
  }
}

// Who comes first of a set, the same in every lane; what cannot be compared takes no part.
template <int kTiles>
__device__ Key first_of_set(const Job& job, int row, int set, int lane, const float4& logits,
                            bool live) {
  const float x[4] = {logits.x, logits.y, logits.z, logits.w};
  Key best = kNoKey;
  bool comparable = true;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int id = set * kSetColumns + lane * 4 + j;
    const Key key = make_key(x[j], id);
    comparable = comparable && x[j] == x[j];
    if (id < job.logits.vocab_size && x[j] == x[j] && key > best) best = key;
  }
  const uint32_t high = __reduce_max_sync(kAll, static_cast<uint32_t>(best >> 32));
  const bool leads = static_cast<uint32_t>(best >> 32) == high;
  const uint32_t low = __reduce_max_sync(kAll, leads ? static_cast<uint32_t>(best) : 0U);
  if constexpr (kTiles > 1) {
    const bool all = __all_sync(kAll, comparable);
    if (lane == 0 && live)
      job.screen.largest[static_cast<int64_t>(set) * kMaxProductRows + row] =
          all && high != 0 ? from_ordered(high) : __int_as_float(0x7fffffff);
  }
  return (static_cast<Key>(high) << 32) | low;
}

// What later kernels count in, and rows' lengths.
template <int kTiles>
__device__ void begin_row(const Job& job, int row) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    job.places.states[row] = 0;
    job.places.reached[row] = 0;
    job.places.found[row] = 0;
    job.screen.lower[row] = 0;  // of greedy tokens, which nobody asks for
    if (row == 0) *job.places.listed = 0;
  }
  if (kTiles > 1 && thread < 32) {
    const float length =
        operand_length(job.factors.operand, kTiles, job.factors.plan.set_blocks, row, thread);
    if (thread == 0) job.screen.lengths[row] = length;
  }
}

// A warp for some sets of a row: who comes first of each.
template <int kTiles>
__global__ void __launch_bounds__(kThreads) sets_kernel(const __grid_constant__ Job job) {
  allow_next();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.y);
  const int first = (static_cast<int>(blockIdx.x) * kWarps + warp) * kWarpSets;
#pragma unroll 1
  for (int turn = first_turn_here(); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live) wait_for_previous();
    if (live && blockIdx.x == 0) begin_row<kTiles>(job, row);
    float4 logits[kWarpSets];
#pragma unroll
    for (int i = 0; i < kWarpSets; ++i)
      logits[i] = load_screened<kTiles>(job, row, min(first + i, job.num_sets - 1), lane, live);
#pragma unroll
    for (int i = 0; i < kWarpSets; ++i) {
      if (first + i >= job.num_sets) break;
      const Key key = first_of_set<kTiles>(job, row, first + i, lane, logits[i], live);
      if (lane == 0 && live)
        job.places.sets[static_cast<int64_t>(row) * job.num_sets + first + i] = key;
    }
  }
}

struct Guessing {
  int above[32];    // by bit
  uint32_t lowest;  // guess
};

// Bits 31 .. kLastBit of the largest number that N of the sets' first ones reach; 0 if it is none.
template <int kKeys>
__device__ uint32_t bound_of_sets(const Job& job, const Key (&keys)[kKeys], Guessing& guessing) {
  constexpr int kLastBit = 14;
  uint32_t bound = 0;
#pragma unroll 1
  for (int bit = 31; bit >= kLastBit; --bit) {
    const uint32_t next = bound | 1U << bit;
    int above = 0;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) above += static_cast<uint32_t>(keys[i] >> 32) >= next ? 1 : 0;
    above = __reduce_add_sync(kAll, above);
    if (threadIdx.x % 32 == 0) atomicAdd(&guessing.above[bit], above);
    __syncthreads();
    if (guessing.above[bit] >= job.num_likeliest) bound = next;
  }
  return bound;
}

// A thread block for each row: the guess is the least that the first ones of N sets have, or of a
// few more, less what rounding to the screen mostly takes.
template <int kKeys>
__global__ void __launch_bounds__(kThreads) guess_kernel(const __grid_constant__ Job job) {
  allow_next();
  __shared__ Guessing guessing;
  const int thread = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.x);
  const Key* const sets = job.places.sets + static_cast<int64_t>(row) * job.num_sets;
#pragma unroll 1
  for (int turn = first_turn_here(); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live) wait_for_previous();
    Key keys[kKeys];
#pragma unroll
    for (int i = 0; i < kKeys; ++i)
      keys[i] = load_if(live && i * kThreads + thread < job.num_sets, sets + i * kThreads + thread);
    const float length = live ? __ldcg(job.screen.lengths + row) : 0.0F;
    if (thread < 32) guessing.above[thread] = 0;
    if (thread == 0) guessing.lowest = kAll;
    __syncthreads();
    const uint32_t bound = bound_of_sets(job, keys, guessing);
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
      if (keys[i] == kNoKey || static_cast<uint32_t>(keys[i] >> 32) < bound) continue;
      const float error = job.screen.errors[key_id(keys[i])] * length * job.mostly_lost;
      const float guess = key_logit(keys[i]) - error;
      atomicMin(&guessing.lowest, guess == guess ? ordered(guess) : 0U);
    }
    __syncthreads();
    if (live && thread == 0) job.places.guesses[row] = bound == 0 ? 0 : guessing.lowest;
    __syncthreads();
  }
}

__device__ float guess_of_row(const Job& job, int row) {
  const float length = __ldcg(job.screen.lengths + row);
  const uint32_t guess = __ldcg(job.places.guesses + row);
  if (guess == 0 || !(length >= kLeastLength && length < kMostScreenedLength))
    return minus_infinity();
  return from_ordered(guess);
}
// Whoever has less than this before the cap comes behind all that reach the guess.
__device__ float floor_of_guess(const Job& job, float guess) {
  return guess == minus_infinity() ? guess : floor_of(job.logits.cap, guess);
}
// Where everybody is in doubt, and there is no room for everybody.
__device__ bool is_hopeless(const Job& job, float floor) {
  return floor == minus_infinity() && job.logits.vocab_size > kRoom;
}

struct Listing {
  float floors[kMostRows];
  float lengths[kMostRows];
  uint32_t rows;     // that are not hopeless
  uint32_t dropped;  // rows that an id was in doubt for which there was no room
  int count;
  uint32_t begin;
  Entry entries[kWarps * kSetColumns];
};

// In which rows a lane's four ids of a set are in doubt. Whole warps.
template <int kTiles>
__device__ void list_set(const Job& job, Listing& listing, int set, int lane, bool live) {
  const int id = set * kSetColumns + lane * 4;
  const float4 of_four = *reinterpret_cast<const float4*>(job.screen.errors + id);
  const float errors[4] = {of_four.x, of_four.y, of_four.z, of_four.w};
  uint32_t in_doubt[4] = {};
  const auto look_at = [&](int row, const float4& logits) {
    const float x[4] = {logits.x, logits.y, logits.z, logits.w};
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (!(x[j] + errors[j] * listing.lengths[row] < listing.floors[row]))
        in_doubt[j] |= 1U << row;
  };
  if constexpr (kTiles == 1) {
#pragma unroll 1
    for (int begin = 0; begin < job.logits.num_rows; begin += kListedRows) {
      const uint32_t rows = listing.rows >> begin;
      float4 logits[kListedRows];
#pragma unroll
      for (int i = 0; i < kListedRows; ++i)
        logits[i] = load_screened<kTiles>(job, begin + i, set, lane, live && (rows >> i & 1) != 0);
#pragma unroll
      for (int i = 0; i < kListedRows; ++i)
        if ((rows >> i & 1) != 0) look_at(begin + i, logits[i]);
    }
  } else {
    const float error = fmaxf(fmaxf(errors[0], errors[1]), fmaxf(errors[2], errors[3]));
    // Neither is negative, and their bits rise with them.
    const float most = __uint_as_float(__reduce_max_sync(kAll, __float_as_uint(error)));
    const float largest =
        live && lane < job.logits.num_rows
            ? __ldcg(job.screen.largest + static_cast<int64_t>(set) * kMaxProductRows + lane)
            : 0.0F;
    const bool comes = (listing.rows >> lane & 1) != 0 &&
                       !(largest + most * listing.lengths[lane] < listing.floors[lane]);
    uint32_t rows = __ballot_sync(kAll, comes);
#pragma unroll 1
    for (; rows != 0; rows &= rows - 1) {
      const int row = __ffs(static_cast<int>(rows)) - 1;
      look_at(row, load_screened<kTiles>(job, row, set, lane, live));
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (live && in_doubt[j] != 0 && id + j < job.logits.vocab_size)
      listing.entries[atomicAdd(&listing.count, 1)] = {id + j, in_doubt[j]};
}

// What a block has listed goes to memory; all threads.
__device__ void append_listed(const Job& job, Listing& listing) {
  __syncthreads();
  if (threadIdx.x == 0)
    listing.begin = atomicAdd(job.places.listed, static_cast<uint32_t>(listing.count));
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < listing.count; i += kThreads) {
    const uint32_t place = listing.begin + static_cast<uint32_t>(i);
    if (place < kMostListed)
      job.places.entries[place] = listing.entries[i];
    else
      atomicOr(&listing.dropped, listing.entries[i].rows);
  }
  __syncthreads();
  if (threadIdx.x == 0) listing.count = 0;
  __syncthreads();
}

// What the list of a block begins with, by its first warp. A rehearsal lists nobody.
__device__ void begin_listing(const Job& job, Listing& listing, bool live) {
  const int row = static_cast<int>(threadIdx.x);
  const bool exists = row < job.logits.num_rows;
  const float floor =
      live && exists ? floor_of_guess(job, guess_of_row(job, row)) : -minus_infinity();
  const bool hopeless = is_hopeless(job, floor);
  listing.floors[row] = floor;
  listing.lengths[row] = live && exists ? __ldcg(job.screen.lengths + row) : 0.0F;
  const uint32_t rows = __ballot_sync(kAll, exists && !hopeless);
  if (exists && hopeless && blockIdx.x == 0) atomicOr(job.places.states + row, kDropped);
  if (row != 0) return;
  listing.rows = rows;
  listing.dropped = 0;
  listing.count = 0;
}

// A warp for each set: who may reach the floor of some row.
template <int kTiles>
__global__ void __launch_bounds__(kThreads, 5) list_kernel(const __grid_constant__ Job job) {
  allow_next();
  __shared__ Listing listing;
  const int thread = static_cast<int>(threadIdx.x);
  const int sets_at_once = static_cast<int>(gridDim.x) * kWarps;
#pragma unroll 1
  for (int turn = first_turn_here(); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live) wait_for_previous();
    if (thread < 32) begin_listing(job, listing, live);
    __syncthreads();
    const int num_sets = live ? job.num_sets : min(sets_at_once, job.num_sets);
#pragma unroll 1
    for (int begin = 0; begin < num_sets; begin += sets_at_once) {
      const int set = begin + static_cast<int>(blockIdx.x) * kWarps + thread / 32;
      if (set < job.num_sets) list_set<kTiles>(job, listing, set, thread % 32, live);
      append_listed(job, listing);
    }
    if (thread < job.logits.num_rows && (listing.dropped >> thread & 1) != 0)
      atomicOr(job.places.states + thread, kDropped);
    __syncthreads();
  }
}

constexpr int kGroups = 2;  // warpgroups that multiply; four warps more read
constexpr int kListedThreads = (kGroups + 1) * confirm::kGroupThreads;
constexpr int kGroupWarps = kGroups * confirm::kGroupThreads / 32;
constexpr int kMostTogether = 96;
constexpr int kPlaces = 3;  // of steps on their way
constexpr int kMostSteps = 80;

template <int kTiles>
struct Small {
  static constexpr int kRows = kTiles * 8;
  uint64_t full[kPlaces];
  uint64_t empty[kPlaces];
  float guesses[kRows];
  float floors[kRows];
  int32_t ids[kMostTogether];
  uint32_t rows[kMostTogether];
  confirm::Room<kTiles, kGroups> room;
};
template <int kTiles>
constexpr int kSmallBytes = (sizeof(Small<kTiles>) + 127) / 128 * 128;

// Steps of those that are together, by turns in kPlaces places.
struct Turns {
  uint32_t full, empty;
  int place = 0;
  uint32_t parity = 0;

  __device__ uint32_t full_at() const { return full + place * 8; }
  __device__ uint32_t empty_at() const { return empty + place * 8; }
  __device__ void advance() {
    if (++place < kPlaces) return;
    place = 0;
    parity ^= 1;
  }
};

// The warps that read: whole passes, as their places fall free.
template <int kTiles>
__device__ void gather_steps(const Job& job, const Together<kTiles>& together, int num_steps,
                             Turns& turns) {
  const int thread = static_cast<int>(threadIdx.x) - kGroups * confirm::kGroupThreads;
#pragma unroll 1
  for (int step = 0; step < num_steps; step += together.steps) {
    ptx::barrier_wait(turns.empty_at(), turns.parity ^ 1);
    const auto offset = static_cast<uint32_t>(turns.place * job.factors.chunk_bytes);
    const int end = min(step + together.steps, num_steps);
    if (thread == 0) together.gather_rows(job.factors, step, end, turns.full_at(), offset);
    together.gather_weights(job.factors, thread, confirm::kGroupThreads / 32, step, end, offset);
    ptx::copy_arrive(turns.full_at());
    turns.advance();
  }
}

// The warps that multiply.
template <int kTiles>
__device__ void multiply_steps(const Job& job, Small<kTiles>& small,
                               const Together<kTiles>& together, int num_steps, Turns& turns) {
  const bool multiplies =
      static_cast<int>(threadIdx.x) / confirm::kGroupThreads * confirm::kGroupIds < together.count;
  confirm::Multiplier<kTiles, kGroups> multiplier(together, small.room);
  multiplier.move(turns.place * job.factors.chunk_bytes);
#pragma unroll 1
  for (int step = 0; step < num_steps; step += together.steps) {
    ptx::barrier_wait(turns.full_at(), turns.parity);
    if (multiplies) multiplier.add(small.room, step, min(step + together.steps, num_steps));
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(turns.empty_at());
    const int place = turns.place;
    turns.advance();
    multiplier.move((turns.place - place) * job.factors.chunk_bytes);
  }
  if (multiplies) multiplier.leave(small.room);
}

// Whose logits reach their rows' floors goes on the rows' lists.
template <int kTiles>
__device__ void keep_first(const Job& job, const Small<kTiles>& small, int count, bool live) {
  constexpr int kRows = kTiles * 8;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < count * kRows; i += kListedThreads) {
    const int row = i % kRows;
    if ((small.rows[i / kRows] >> row & 1) == 0) continue;
    const float x = small.room.sums[i / kRows][row];
    if (x < small.floors[row]) continue;
    if (live && x >= small.guesses[row]) atomicAdd(job.places.reached + row, 1U);
    if (live && !is_finite(job.logits, x)) atomicOr(job.places.states + row, kNotFinite);
    const float logit = job.logits.cap > 0.0F ? capped_rarely(job.logits.cap, x) : x;
    if (!live || logit == minus_infinity()) continue;
    const uint32_t place = atomicAdd(job.places.found + row, 1U);
    if (place < kRoom) job.places.keys[row * kRoom + place] = make_key(logit, small.ids[i / kRows]);
  }
}

// Entries begin .. begin + count - 1 of this block's, which are dealt out one by one.
template <int kTiles>
__device__ void take_entries(const Job& job, Small<kTiles>& small, int begin, int count,
                             bool live) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= count) return;
  const int place = (begin + thread) * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
  const auto* const entry = reinterpret_cast<const uint32_t*>(job.places.entries + place);
  small.ids[thread] = static_cast<int>(load_if(live, entry));
  small.rows[thread] = live ? load_if(live, entry + 1) : 1;
  small.room.splits[thread] = confirm::split_of(job.factors.plan, small.ids[thread]);
}

// Products of some at once, all of eight steps where that can be.
__device__ int steps_together(int most) {
  const int steps = min(most, kMostSteps);
  return steps >= 8 ? steps / 8 * 8 : steps;
}

// All entries of this block. A rehearsal is one token with a few of its inputs, which may not be
// there yet: nothing comes of it.
template <int kTiles>
__device__ void multiply_listed(const Job& job, Small<kTiles>& small, uint32_t chunk, Turns& turns,
                                bool live) {
  constexpr int kRehearsed = 18;
  const int all_steps = job.factors.plan.set_blocks * 2;
  const int num_steps = live ? all_steps : min(all_steps, kRehearsed);
  const int grid = static_cast<int>(gridDim.x);
  const int total = live ? min(static_cast<int>(__ldcg(job.places.listed)), kMostListed) : grid;
  const int mine = (total - static_cast<int>(blockIdx.x) + grid - 1) / grid;
  const int batches = (mine + kMostTogether - 1) / kMostTogether;
#pragma unroll 1
  for (int batch = 0; batch < batches; ++batch) {
    const int begin = mine * batch / batches;
    const int count = mine * (batch + 1) / batches - begin;
    take_entries(job, small, begin, count, live);
    __syncthreads();
    Together<kTiles> together(job.factors, small.ids, count, chunk);
    together.steps = steps_together(together.steps);
    if (static_cast<int>(threadIdx.x) >= kGroups * confirm::kGroupThreads)
      gather_steps(job, together, num_steps, turns);
    else
      multiply_steps(job, small, together, num_steps, turns);
    // The next rows may be copied to where these weights lie.
    ptx::fence_async_shared();
    __syncthreads();
    keep_first(job, small, count, live);
    __syncthreads();
  }
}

template <int kTiles>
__global__ void __launch_bounds__(kListedThreads, 1)
    listed_kernel(const __grid_constant__ Job job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  auto& small = *reinterpret_cast<Small<kTiles>*>(shared);
  const uint32_t chunk = ptx::shared_address(shared + kSmallBytes<kTiles>);
  const int thread = static_cast<int>(threadIdx.x);
  Turns turns{ptx::shared_address(small.full), ptx::shared_address(small.empty)};
  if (thread == 0) {
    for (int i = 0; i < kPlaces; ++i) {
      ptx::barrier_init(turns.full + i * 8, confirm::kGroupThreads + 1);
      ptx::barrier_init(turns.empty + i * 8, kGroupWarps);
    }
    ptx::fence_barrier_init();
  }
#pragma unroll 1
  for (int turn = first_turn_here(); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live) {
      wait_for_previous();
      ptx::fence_async_global();
    }
    if (thread < job.logits.num_rows) {
      small.guesses[thread] = live ? guess_of_row(job, thread) : minus_infinity();
      small.floors[thread] = floor_of_guess(job, small.guesses[thread]);
    }
    multiply_listed(job, small, chunk, turns, live);
  }
}

// A row's list: how much of it counts.
struct Found {
  int status;
  int num_keys;
  int count;  // of the likeliest
};
__device__ Found found_in(const Job& job, int row, bool live) {
  const uint32_t state = load_if(live, job.places.states + row);
  const uint32_t found = load_if(live, job.places.found + row);
  const uint32_t reached = load_if(live, job.places.reached + row);
  const bool fails = live && reached < static_cast<uint32_t>(job.num_likeliest) &&
                     guess_of_row(job, row) > minus_infinity();
  const bool unknown = (state & kDropped) != 0 || found > kRoom || fails;
  const int status = (state & kNotFinite) != 0 ? 0 : unknown ? -1 : 1;
  const int num_keys = !live ? 1 : status == 1 ? static_cast<int>(found) : 0;
  return {status, num_keys, min(num_keys, job.num_likeliest)};
}

// A thread block for each row: the first N of its list, each at the place that is the number of
// those before it.
__global__ void __launch_bounds__(kThreads, 1) order_kernel(const __grid_constant__ Job job) {
  allow_next();
  __shared__ Key keys[kOrderedKeys];
  const int thread = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.x);
  const Key* const list = job.places.keys + row * kRoom;
  Likeliest& result = job.out[row];
#pragma unroll 1
  for (int turn = first_turn_here(); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live) wait_for_previous();
    const Found found = found_in(job, row, live);
    if (live && thread == 0) {
      result.status = found.status;
      result.count = found.count;
    }
    if (live && thread < kLikeliest && thread >= found.count) {
      result.logits[thread] = 0.0F;
      result.ids[thread] = -1;
    }
#pragma unroll 1
    for (int begin = 0; begin < found.num_keys; begin += kThreads) {
      const bool exists = live && begin + thread < found.num_keys;
      const Key key = load_if(exists, list + begin + thread);
      int before = 0;
#pragma unroll 1
      for (int other = 0; other < found.num_keys; other += kOrderedKeys) {
        const int count = min(found.num_keys - other, kOrderedKeys);
        __syncthreads();
        for (int i = thread; i < count; i += kThreads) keys[i] = load_if(live, list + other + i);
        __syncthreads();
#pragma unroll 4
        for (int i = 0; i < count; ++i) before += keys[i] > key ? 1 : 0;
      }
      if (!exists || before >= found.count) continue;
      result.logits[before] = key_logit(key);
      result.ids[before] = key_id(key);
    }
    __syncthreads();
  }
}

Places places_of(void* workspace) {
  Places places;
  places.guesses = static_cast<uint32_t*>(workspace);
  places.states = places.guesses + kMostRows;
  places.reached = places.states + kMostRows;
  places.found = places.reached + kMostRows;
  places.listed = places.found + kMostRows;
  places.entries = reinterpret_cast<Entry*>(places.listed + 4);
  places.keys = reinterpret_cast<Key*>(places.entries + kMostListed);
  places.sets = places.keys + kMostRows * kRoom;
  return places;
}

unsigned blocks_of(int count, int each) {
  return static_cast<unsigned>((count + each - 1) / each);
}

// Of a place. Beside it there is room for thread blocks of the kernels in front and behind.
template <int kTiles>
int chunk_bytes() {
  constexpr int kBeside = kTiles < 4 ? 26 * 1024 : 0;
  constexpr int kMostWeights = kMostTogether * confirm::kStepBytes;
  const int all = max_shared_bytes() - kSmallBytes<kTiles>;
  const int bytes = (all > 128 * 1024 ? all - kBeside : all) / kPlaces / 128 * 128;
  TANDEM_GPU_CHECK(bytes >= 3 * kMostWeights + 2 * Together<kTiles>::kRowsOfStep + 128);
  return bytes;
}

// What follows the screen's kernels.
template <int kTiles>
void launch_kernels(const Stream& stream, const PackedLinear& head, Job job) {
  const auto kernel = listed_kernel<kTiles>;
  static const bool configured = [&] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           max_shared_bytes()));
    return true;
  }();
  (void)configured;
  const int rows = job.logits.num_rows;
  const auto all_rows = static_cast<unsigned>(rows);
  launch(stream, sets_kernel<kTiles>, dim3(blocks_of(job.num_sets, kWarps * kWarpSets), all_rows),
         dim3(kThreads), 0, job);
  constexpr int kMostKeys = kMaxVocab / kSetColumns / kThreads;
  const auto guess = job.num_sets <= 8 * kThreads ? guess_kernel<8> : guess_kernel<kMostKeys>;
  launch(stream, guess, dim3(all_rows), dim3(kThreads), 0, job);
  const auto shares = static_cast<unsigned>(head.num_shares);
  launch(stream, list_kernel<kTiles>, dim3(std::min(blocks_of(job.num_sets, kWarps), 2 * shares)),
         dim3(kThreads), 0, job);
  job.factors.chunk_bytes = chunk_bytes<kTiles>();
  launch(stream, kernel, dim3(shares), dim3(kListedThreads),
         static_cast<size_t>(kSmallBytes<kTiles> + kPlaces * job.factors.chunk_bytes), job);
  launch(stream, order_kernel, dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, job);
}

void find_likeliest(const Stream& stream, const PackedLinear& head, const ScreenPlaces& screen,
                    const void* operand, int num_tiles, const HeadLikeliest& likeliest) {
  Job job{};
  job.factors = confirm::factors_of(head, operand);
  job.logits = likeliest.logits;
  job.screen = screen;
  job.num_sets = (likeliest.logits.vocab_size + kSetColumns - 1) / kSetColumns;
  job.places = places_of(likeliest.workspace);
  job.num_likeliest = likeliest.num_likeliest;
  // Of n inputs it takes the most over sqrt(n) (root mean square); of a single token no more than
  // the most.
  job.mostly_lost = std::min(1.0F, std::max(4.0F / std::sqrt(static_cast<float>(head.in_features)),
                                            1.0F / static_cast<float>(likeliest.num_likeliest)));
  job.out = likeliest.out;
  few::with_tiles<1, 2, 4>(num_tiles,
                           [&](auto tiles) { launch_kernels<tiles>(stream, head, job); });
}

void check_job(const HeadLikeliest& job) {
  TANDEM_GPU_CHECK(job.num_likeliest >= 1 && job.num_likeliest <= kLikeliest);
  TANDEM_GPU_CHECK(job.logits.scale == 1.0F && job.logits.scales == nullptr);
  TANDEM_GPU_CHECK(job.workspace != nullptr && job.out != nullptr);
}

HeadArgmax screen_argmax(const HeadLikeliest& job) {
  check_job(job);
  HeadArgmax argmax;
  argmax.logits = job.logits;
  argmax.logits.num_suppressed = 0;
  argmax.exchange = job.exchange;
  return argmax;
}

}  // namespace

size_t likeliest_workspace_bytes(const PackedLinear& screen) {
  const Places places = places_of(nullptr);
  return reinterpret_cast<size_t>(places.sets) +
         sizeof(Key) * kMostRows * static_cast<size_t>(screen.num_sets);
}

void screened_likeliest(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                        const SideProduct& side, const void* operand, const HeadLikeliest& job) {
  const ScreenPlaces places = screen_head(stream, head, screen, side, operand, screen_argmax(job));
  find_likeliest(stream, head, places, operand, 1, job);
}

void screened_likeliest(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                        const SideProduct& side, const NormedRows& rows, const HeadLikeliest& job) {
  const ScreenPlaces places = screen_head(stream, head, screen, side, rows, screen_argmax(job));
  find_likeliest(stream, head, places, places.operand, 1, job);
}

bool takes_likeliest_rows(const PackedLinear& head, const PackedLinear& screen, int num_tiles) {
  return num_tiles <= kMaxScreenedTiles && takes_screened_rows(head, screen, num_tiles);
}

void screened_likeliest_rows(const Stream& stream, const PackedLinear& head,
                             const HeadScreen& screen, const void* operand, int num_tiles,
                             float* partials, const HeadLikeliest& job) {
  check_job(job);
  TANDEM_GPU_CHECK(takes_likeliest_rows(head, *screen.weight, num_tiles) &&
                   screen.workspace != nullptr && screen.weight->max_pieces <= 2);
  TANDEM_GPU_CHECK(job.logits.num_rows > 0 && job.logits.num_rows <= num_tiles * 8);
  TANDEM_GPU_CHECK(job.logits.vocab_size <= head.out_features);
  product(stream, *screen.weight, operand, num_tiles, partials);
  ScreenPlaces places = screen_places(screen);
  places.sums = screen.weight->partials(partials, num_tiles * 8);
  find_likeliest(stream, head, places, operand, num_tiles, job);
}

}  // namespace tandem::ops::cuda
