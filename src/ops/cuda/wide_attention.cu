// Attention of many rows on the tensor cores: 64 keys at a time, the softmax carried along.
//
// The rows and query heads that share a KV head are the left side of the products, numbered
// row * group + head, 64 of them to a warpgroup: 64 x 64 scores in registers become weights in
// registers, the left side of the second product, whose sums are at most 64 x 256. Up to head_dim
// 256 the two warpgroups have 64 of these pairs each and share keys and values; with 512 both have
// the same pairs, compute the same scores, and each adds up half of the value columns. Two warps
// copy keys, two copy values, as asynchronous copies of 16 bytes: pages, rings and padding make
// them irregular. What they copy at a time, a load, has at most 256 columns; two loads of keys and
// two of values have room.
//
// Keys and values of a cache of E4M3 are widened to BF16 on their way: the copying warps, eight of
// them, copy codes to a place of their own, a load ahead, and store from there what the tensor
// cores read. Their scales join the scores' and the sums'.
//
// Every matrix lies in shared memory as columns of 128 bytes: [column block][row][128 bytes],
// chunks of 16 bytes exchanged by row.
#include "ops/cuda/wide_attention.h"

#include "ops/cuda/attention.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kComputing = 256;  // threads: two warpgroups
constexpr int kKeys = 64;        // of a step
constexpr int kPairs = 64;       // of a warpgroup
constexpr int kTurnBarrier = 2;  // and 3: whose turn it is

// Warps that bring keys, and as many that bring values.
template <bool kFp8>
constexpr int kCopyWarps = kFp8 ? 4 : 2;
template <bool kFp8>
constexpr int kThreads = kComputing + 64 * kCopyWarps<kFp8>;

template <int kDim>  // head_dim, rounded up to 64
struct Plan {
  static constexpr bool kSplit = kDim == 512;  // the warpgroups split the value columns
  static constexpr int kBlockPairs = kSplit ? kPairs : 2 * kPairs;
  static constexpr int kColumns = kSplit ? kDim / 2 : kDim;       // value columns of a warpgroup
  static constexpr int kWidth = kColumns < 128 ? kColumns : 128;  // of a product
  static constexpr int kParts = kColumns / kWidth;
  static constexpr int kLoads = kSplit ? 2 : 1;  // of a step
  static constexpr int kLoadColumns = kDim / kLoads;
  static constexpr int kLoadBytes = kKeys * kLoadColumns * 2;
  static constexpr int kColumnBytes = kKeys * 128;  // of a column block

  // Shared memory, in bytes from its start.
  static constexpr int kKeyAt = kBlockPairs * kDim * 2;
  static constexpr int kValueAt = kKeyAt + 2 * kLoadBytes;
  static constexpr int kBarrierAt = kValueAt + 2 * kLoadBytes;  // of Loads
  static constexpr int kBytes = kBarrierAt + 8 * 8;
  // Then a load of codes of E4M3 for keys, and one for values.
  static constexpr int kCodesAt = kBytes;
  static constexpr int kBytesFp8 = kCodesAt + kLoadBytes;
};

// The loads of keys, or of values, one after the other: load i lies in place i % 2.
struct Loads {
  uint32_t data;
  uint32_t barriers;  // full, full, empty, empty
  uint32_t load_bytes;
  uint32_t index = 0;

  __device__ uint32_t address() const { return data + index % 2 * load_bytes; }
  __device__ uint32_t full() const { return barriers + index % 2 * 8; }
  __device__ uint32_t empty() const { return barriers + 16 + index % 2 * 8; }
  __device__ void wait_full() const { ptx::barrier_wait(full(), index / 2 % 2); }
  __device__ void wait_empty() const { ptx::barrier_wait(empty(), index / 2 % 2 ^ 1); }
};
template <int kDim>
__device__ Loads loads_of(uint32_t shared, bool values) {
  using P = Plan<kDim>;
  return {shared + (values ? P::kValueAt : P::kKeyAt), shared + P::kBarrierAt + (values ? 32 : 0),
          P::kLoadBytes};
}

struct Job {
  WideAttention attention;
  Rows rows;
  WideTiles tiles;
  int group;       // query heads of a KV head
  int block_rows;  // rows that a thread block takes of a tile
};

// The rows of a thread block.
struct Block {
  int first_row = 0;
  int num_rows = 0;
  int sequence = -1;
  int first_position = 0;
  int first_key = 0;    // that any row sees
  int chunk_begin = 0;  // positions from here on are rows of the pass
  int chunk_row = 0;    // the row of position 0, as it were

  __device__ int last_position() const { return first_position + num_rows - 1; }
  __device__ int first_step() const { return first_key / kKeys; }
  __device__ int last_step() const { return last_position() / kKeys; }
};

__device__ Block load_block(const Job& job) {
  // The last rows of a prompt see the most keys: they begin first.
  const int index = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  const int of_tile = (kWideTileRows + job.block_rows - 1) / job.block_rows;
  const int tile = index / of_tile;
  const int skipped = index % of_tile * job.block_rows;
  Block block;
  block.num_rows = min(job.tiles.num_rows[tile] - skipped, job.block_rows);
  if (block.num_rows <= 0) return block;
  block.first_row = job.tiles.first_rows[tile] + skipped;
  block.sequence = job.rows.sequences[block.first_row];
  block.first_position = job.rows.positions[block.first_row];
  block.first_key = first_key_of(job.attention.window, block.first_position);
  block.chunk_begin = job.tiles.chunk_begins[tile];
  block.chunk_row = block.first_row - block.first_position;
  return block;
}

// Where 16 bytes of row `row`, columns 8 * chunk on, lie in a matrix of `num_rows` rows.
__device__ inline uint32_t chunk_at(int num_rows, int row, int chunk) {
  return static_cast<uint32_t>((chunk / 8 * num_rows + row) * 128 + (chunk % 8 ^ row % 8) * 16);
}

// The queries of both warpgroups; zeros where there is no pair or no column.
template <int kDim>
__device__ void load_queries(const Job& job, const Block& block, int kv_head, uint32_t shared) {
  constexpr int kChunks = kDim / 8;
  constexpr int kCount = Plan<kDim>::kBlockPairs * kChunks / 256;  // of a thread
  const WideAttention& attention = job.attention;
  const int num_pairs = block.num_rows * job.group;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const int first_pair = static_cast<int>(threadIdx.x) / kChunks;
  uint4 values[kCount];  // all on their way at once
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int pair = first_pair + i * (256 / kChunks);
    const int64_t row = block.first_row + pair / job.group;
    const int head = kv_head * job.group + pair % job.group;
    const bool exists = pair < num_pairs && chunk * 8 < attention.head_dim;
    const int64_t offset = (row * attention.num_heads + head) * attention.head_dim + chunk * 8;
    values[i] = exists ? *reinterpret_cast<const uint4*>(attention.q + offset) : uint4{};
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int pair = first_pair + i * (256 / kChunks);
    ptx::store_shared(
        shared + pair / kPairs * (kPairs * kDim * 2) + chunk_at(kPairs, pair % kPairs, chunk),
        values[i]);
  }
  ptx::fence_async_shared();
  ptx::named_barrier(1, 256);
}

// Whether some row sees a position's key, and whether that lies in the chunk.
__device__ inline bool is_seen(const Block& block, int key) {
  return key >= block.first_key && key <= block.last_position();
}
__device__ inline bool is_in_chunk(const Job& job, const Block& block, int key) {
  return job.attention.chunk.k != nullptr && key >= block.chunk_begin;
}
__device__ inline const uint16_t* chunk_key(const Job& job, const Block& block, int kv_head,
                                            int key, bool values) {
  const WideAttention& attention = job.attention;
  const int64_t line = static_cast<int64_t>(block.chunk_row + key) * attention.num_kv_heads;
  return bf16_rows(values ? attention.chunk.v : attention.chunk.k) +
         (line + kv_head) * attention.head_dim;
}

// Where this lane's key of a step lies; null: nobody sees it.
__device__ const uint16_t* locate(const Job& job, const Block& block, int kv_head, int key,
                                  bool values) {
  const WideAttention& attention = job.attention;
  if (!is_seen(block, key)) return nullptr;
  if (is_in_chunk(job, block, key)) return chunk_key(job, block, kv_head, key, values);
  return bf16_rows(values ? attention.kv.v : attention.kv.k) +
         kv_offset(attention.places, attention.num_kv_heads, attention.head_dim, block.sequence,
                   kv_head, key);
}

// Starts this warp's part of one load: kWarpKeys keys, a lane each, columns `first_column` on.
// `spare`: an address that may be read where there is no key, though nothing is. With kSome those
// from `first` on.
template <int kDim, int kWarpKeys, bool kSome = false>
__device__ void start_load(const uint16_t* own_key, const uint16_t* spare, int first_column,
                           int head_dim, int warp_of_keys, uint32_t target, int first = 0) {
  constexpr int kChunks = Plan<kDim>::kLoadColumns / 8;
  constexpr int kKeysAtOnce = 32 / kChunks;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int chunk = lane % kChunks;
  const int column = first_column + chunk * 8;
#pragma unroll(kSome ? 4 : 8)
  for (int begin = 0; begin < kWarpKeys; begin += kKeysAtOnce) {
    const int from = begin + lane / kChunks;
    const auto address = __shfl_sync(0xffffffffU, reinterpret_cast<uint64_t>(own_key), from);
    const auto* const source = reinterpret_cast<const uint16_t*>(address);
    const bool valid = source != nullptr && column < head_dim;
    const uint32_t place = target + chunk_at(kKeys, warp_of_keys * kWarpKeys + from, chunk);
    if constexpr (kSome)
      ptx::copy_async_if(from >= first, place, valid ? source + column : spare, valid);
    else
      ptx::copy_async(place, valid ? source + column : spare, valid);
  }
}

// Two warps copy the keys, or the values, of every step. Their copies arrive at the barrier by
// themselves; who waits there makes them visible to the tensor cores.
template <int kDim>
__device__ void copy_steps(const Job& job, const Block& block, int kv_head, uint32_t shared) {
  using P = Plan<kDim>;
  const int warp = static_cast<int>(threadIdx.x - kComputing) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool values = warp >= 2;
  Loads loads = loads_of<kDim>(shared, values);
  for (int step = block.first_step(); step <= block.last_step(); ++step) {
    const int key = step * kKeys + warp % 2 * 32 + lane;
    const uint16_t* const own = locate(job, block, kv_head, key, values);
#pragma unroll
    for (int load = 0; load < P::kLoads; ++load, ++loads.index) {
      loads.wait_empty();
      start_load<kDim, 32>(own, job.attention.q, load * P::kLoadColumns, job.attention.head_dim,
                           warp % 2, loads.address());
      ptx::copy_arrive(loads.full());
    }
  }
  ptx::copy_commit();
  ptx::copy_wait(0);  // none outlives its thread
}

// The slot in the cache of this lane's key; -1: nobody sees it, or it is in the chunk.
__device__ inline int cache_slot(const Job& job, const Block& block, int kv_head, int key) {
  if (!is_seen(block, key) || is_in_chunk(job, block, key)) return -1;
  return static_cast<int>(
      kv_offset(job.attention.places, job.attention.num_kv_heads, 1, block.sequence, kv_head, key));
}

// One load of a warp.
struct CodeSource {
  int slot;  // of the lane's key, cache_slot()
  int first_column;
};

// How a warp brings its part of a load of E4M3: 16 columns a lane, a line what all lanes take at
// once. Eight lanes beside each other have two keys and 64 columns: then no two of them store to
// the same banks. Each lane reads the codes that it copied itself.
template <int kDim>
struct Codes {
  static constexpr int kWarpKeys = kKeys / kCopyWarps<true>;
  static constexpr int kPieces = Plan<kDim>::kLoadColumns / 16;  // of a key
  static constexpr int kKeysAtOnce = 32 / kPieces;
  static constexpr int kLines = kWarpKeys / kKeysAtOnce;
  static constexpr int kTogether = kLines < 4 ? kLines : 4;  // lines in a group of copies

  const uint8_t* rows;  // the layer's keys, or values
  int head_dim;
  uint32_t staged;  // where this lane's codes of line 0 lie

  static __device__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
  static __device__ int piece() { return lane() % 4 + lane() / 8 % (kPieces / 4) * 4; }
  static __device__ int key_of_line() { return lane() / 4 % 2 + lane() / (kPieces * 2) * 2; }
  // Where this lane's columns of line 0 go.
  static __device__ uint32_t place(uint32_t load, int warp_of_keys) {
    return load + chunk_at(kKeys, warp_of_keys * kWarpKeys + key_of_line(), piece() * 2);
  }

  // Starts copying lines `line` .. line + kTogether - 1; zeros where a key's slot is -1.
  __device__ void copy(int line, const CodeSource& source) const {
    const int column = source.first_column + piece() * 16;
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int from = (line + i) * kKeysAtOnce + key_of_line();
      const int slot = __shfl_sync(0xffffffffU, source.slot, from);
      // Nothing is read there where there is no key.
      const uint8_t* const codes = rows + column + static_cast<int64_t>(max(slot, 0)) * head_dim;
      ptx::copy_async(staged + (line + i) * 512, codes, slot >= 0 && column < head_dim);
    }
    ptx::copy_commit();
  }
  __device__ void copy_all(const CodeSource& source) const {
#pragma unroll 1
    for (int line = 0; line < kLines; line += kTogether) copy(line, source);
  }
  // Stores them, of keys 0 .. `beside` - 1 of the warp's, for `place` of line 0.
  __device__ void widen(int line, int beside, uint32_t place) const {
    uint4 codes[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) codes[i] = ptx::load_shared(staged + (line + i) * 512);
    // Chunks are exchanged by the row's last three bits.
    const int first_key = line * kKeysAtOnce;
    const uint32_t first = (place ^ (first_key % 8 * 16)) + first_key * 128;
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const uint2 a = ptx::widen_e4m3(codes[i].x);
      const uint2 b = ptx::widen_e4m3(codes[i].y);
      const uint2 c = ptx::widen_e4m3(codes[i].z);
      const uint2 d = ptx::widen_e4m3(codes[i].w);
      const uint32_t at = (first ^ (i * kKeysAtOnce % 8 * 16)) + i * kKeysAtOnce * 128;
      const bool stores = first_key + i * kKeysAtOnce + key_of_line() < beside;
      ptx::store_shared_if(stores, at, make_uint4(a.x, a.y, b.x, b.y));
      ptx::store_shared_if(stores, at ^ 16, make_uint4(c.x, c.y, d.x, d.y));
    }
  }
};

// What a warp takes from the chunk for one load.
struct ChunkPart {
  int key;  // of this lane
  int first_column;
  int first;  // of the warp's keys: from here on they are in the chunk, or nobody sees them
};
template <int kDim>
__device__ void start_chunk(const Job& job, const Block& block, int kv_head, bool values,
                            const ChunkPart& part, int warp, uint32_t target) {
  const uint16_t* const own = is_seen(block, part.key) && is_in_chunk(job, block, part.key)
                                  ? chunk_key(job, block, kv_head, part.key, values)
                                  : nullptr;
  start_load<kDim, Codes<kDim>::kWarpKeys, true>(own, job.attention.q, part.first_column,
                                                 job.attention.head_dim, warp, target, part.first);
}

// copy_steps over a cache of E4M3. A warp's keys of a step are in the chunk, and copied; or in the
// cache; or, once for a thread block, in both.
template <int kDim>
__device__ void widen_steps(const Job& job, const Block& block, int kv_head, uint32_t shared) {
  using P = Plan<kDim>;
  using C = Codes<kDim>;
  const WideAttention& attention = job.attention;
  const int copier = static_cast<int>(threadIdx.x - kComputing) / 32;
  const int warp = copier % kCopyWarps<true>;  // of those with the same job
  const bool values = copier >= kCopyWarps<true>;
  const C codes{static_cast<const uint8_t*>(values ? attention.kv.v : attention.kv.k),
                attention.head_dim,
                shared + P::kCodesAt + copier * C::kLines * 512 + C::lane() * 16};
  Loads loads = loads_of<kDim>(shared, values);
  // Lanes beyond the warp's keys have none.
  const int own_key = C::lane() < C::kWarpKeys ? warp * C::kWarpKeys + C::lane() : 1 << 30;
  int slot = cache_slot(job, block, kv_head, block.first_step() * kKeys + own_key);
  if (__any_sync(0xffffffffU, slot >= 0)) codes.copy_all({slot, 0});
#pragma unroll 1
  for (int step = block.first_step(); step <= block.last_step(); ++step) {
    const int key = step * kKeys + own_key;
    const int next = cache_slot(job, block, kv_head, key + kKeys);
    const bool cached = __any_sync(0xffffffffU, slot >= 0);
    // Of the warp's keys, those from here on are in the chunk.
    const int beside = !cached ? 0
                       : attention.chunk.k == nullptr
                           ? C::kWarpKeys
                           : block.chunk_begin - step * kKeys - warp * C::kWarpKeys;
#pragma unroll 1
    for (int load = 0; load < P::kLoads; ++load, ++loads.index) {
      const int column = load * P::kLoadColumns;
      const bool last = load + 1 == P::kLoads;
      const CodeSource following{last ? next : slot, last ? 0 : column + P::kLoadColumns};
      loads.wait_empty();
      if (beside < C::kWarpKeys)
        start_chunk<kDim>(job, block, kv_head, values, {key, column, beside}, warp,
                          loads.address());
      if (!cached) {
        ptx::copy_arrive(loads.full());
        if (__any_sync(0xffffffffU, following.slot >= 0)) codes.copy_all(following);
        continue;
      }
      if (beside < C::kWarpKeys) {
        ptx::copy_commit();
        ptx::copy_wait(0);
      }
      const uint32_t place = C::place(loads.address(), warp);
#pragma unroll 1
      for (int line = 0; line < C::kLines; line += C::kTogether) {
        ptx::copy_wait(C::kLines / C::kTogether - 1);
        codes.widen(line, beside, place);
        codes.copy(line, following);
      }
      ptx::barrier_arrive(loads.full());
    }
    slot = next;
  }
  ptx::copy_commit();
  ptx::copy_wait(0);
}

// A pair of this thread: fragment row g (half 0) or g + 8 of its warp's 16.
struct Pair {
  int row = -1;  // -1: none
  int head = 0;
  int first_key = 0;
  int last_key = -1;
};

__device__ Pair load_pair(const Job& job, const Block& block, int kv_head, int index) {
  Pair pair;
  if (index >= block.num_rows * job.group) return pair;
  pair.row = block.first_row + index / job.group;
  pair.head = kv_head * job.group + index % job.group;
  pair.last_key = block.first_position + index / job.group;
  pair.first_key = first_key_of(job.attention.window, pair.last_key);
  return pair;
}

// The softmax so far of a thread's two pairs: `largest` of the scores before their scale, totals
// are of this thread's keys.
struct Running {
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {0.0F, 0.0F};
};

__device__ inline void hide(const Pair (&pairs)[2], int first_key, float (&scores)[32]) {
  const int own = first_key + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int key = own + i / 4 * 8 + i % 2;
    const Pair& pair = pairs[i / 2 % 2];
    if (key < pair.first_key || key > pair.last_key) scores[i] = -INFINITY;
  }
}

// Scores, times `scale` / log2(e), become weights, in pairs of BF16: weights[4 k + ...] are the
// left side of the product with keys 16 k .. 16 k + 15. Returns by how much what was summed before
// is to be scaled.
__device__ inline float2 weigh(const float (&scores)[32], float scale, Running& running,
                               uint32_t (&weights)[16]) {
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < 32; i += 4)
      largest = fmaxf(largest, fmaxf(scores[i + half * 2], scores[i + half * 2 + 1]));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
    largest = fmaxf(largest, running.largest[half]);
    // Nothing seen yet: every weight is e^-inf.
    const float base = largest == -INFINITY ? 0.0F : largest * scale;
    factor[half] = largest == running.largest[half]
                       ? 1.0F
                       : ptx::exp2_approx(fmaf(running.largest[half], scale, -base));
    running.largest[half] = largest;
    float total = 0.0F;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint32_t two =
          bf16x2(ptx::exp2_approx(fmaf(scores[i * 4 + half * 2], scale, -base)),
                 ptx::exp2_approx(fmaf(scores[i * 4 + half * 2 + 1], scale, -base)));
      weights[i / 2 * 4 + i % 2 * 2 + half] = two;
      total += low_bf16(two) + high_bf16(two);
    }
    running.total[half] = fmaf(running.total[half], factor[half], total);
  }
  return make_float2(factor[0], factor[1]);
}

// The scores of one step; gives the places of its keys back.
template <int kDim>
__device__ inline void score(uint32_t queries, Loads& keys, float (&scores)[32]) {
  using P = Plan<kDim>;
  constexpr int kBlocks = P::kLoadColumns / 64;  // of a load
  Loads done = keys;
  ptx::pin(scores);
#pragma unroll
  for (int load = 0; load < P::kLoads; ++load, ++keys.index) {
    keys.wait_full();
    ptx::fence_async_shared();
    ptx::warpgroup_fence();
    const uint32_t left = queries + load * kBlocks * (kPairs * 128);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        ptx::wgmma_bf16(scores, ptx::matrix_of(left + block * (kPairs * 128) + i * 32, 1024),
                        ptx::matrix_of(keys.address() + block * P::kColumnBytes + i * 32, 1024),
                        load + block + i);
    ptx::warpgroup_commit();
  }
#pragma unroll
  for (int load = 0; load < P::kLoads; ++load, ++done.index) {
    if (load + 1 < P::kLoads)
      ptx::warpgroup_wait<1>();
    else
      ptx::warpgroup_wait<0>();
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(done.empty());
  }
  ptx::pin(scores);
}

template <int kDim>
struct Sums {
  float parts[Plan<kDim>::kParts][Plan<kDim>::kWidth / 2] = {};

  // Columns 8 j + 2t (c 0, 2) and 8 j + 2t + 1 of pair g (c 0, 1) and g + 8.
  __device__ float& at(int j, int c) {
    constexpr int kTiles = Plan<kDim>::kWidth / 8;
    return parts[j / kTiles][j % kTiles * 4 + c];
  }
};

template <int kDim>
__device__ inline void add_values(uint32_t values, const float2& factor, uint32_t (&weights)[16],
                                  Sums<kDim>& sums) {
  using P = Plan<kDim>;
  // Most steps find no larger score.
  if (!__all_sync(0xffffffffU, factor.x == 1.0F && factor.y == 1.0F)) {
#pragma unroll
    for (auto& part : sums.parts)
#pragma unroll
      for (int i = 0; i < P::kWidth / 2; ++i) part[i] *= i / 2 % 2 == 0 ? factor.x : factor.y;
  }
#pragma unroll
  for (auto& part : sums.parts) ptx::pin(part);
  ptx::pin(weights);
  ptx::warpgroup_fence();
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int part = 0; part < P::kParts; ++part)
      ptx::wgmma_bf16_rows(
          sums.parts[part], weights + i * 4,
          ptx::matrix_of(values + part * (P::kWidth / 64) * P::kColumnBytes + i * 2048, 1024,
                         P::kColumnBytes));
  ptx::warpgroup_commit();
  ptx::warpgroup_wait<0>();
#pragma unroll
  for (auto& part : sums.parts) ptx::pin(part);
}

// A thread's columns of 16 are one word of the operand.
template <int kDim, bool kFp8>
__device__ void store_pairs(const Job& job, const Pair (&pairs)[2], const Running& running,
                            int first_column, Sums<kDim>& sums) {
  const WideAttention& attention = job.attention;
  const WideOperand& out = attention.out;
  const float inverse_scale = __frcp_rn(out.input_scale);
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = running.total[half];
    total += __shfl_xor_sync(0xffffffffU, total, 1);
    total += __shfl_xor_sync(0xffffffffU, total, 2);
    const Pair& pair = pairs[half];
    if (pair.row < 0) continue;
    float inverse = __frcp_rn(total);
    if constexpr (kFp8) inverse *= attention.kv.v_scale;
#pragma unroll
    for (int j = 0; j < Plan<kDim>::kColumns / 8; j += 2) {
      const int column = first_column + j * 8;
      if (column >= attention.head_dim) continue;
      uint32_t two[2];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        two[i] = e4m3x2(round_bf16(sums.at(j + i, half * 2) * inverse),
                        round_bf16(sums.at(j + i, half * 2 + 1) * inverse), out.input_scale,
                        inverse_scale);
      *reinterpret_cast<uint32_t*>(out.data + wide_word(out.capacity, pair.row,
                                                        pair.head * attention.head_dim + column,
                                                        t)) = two[0] | (two[1] << 16);
    }
  }
}

template <int kDim, bool kFp8>
__device__ void attend(const Job& job, const Block& block, int kv_head, uint32_t shared) {
  using P = Plan<kDim>;
  const int thread = static_cast<int>(threadIdx.x);
  // Through a shuffle, so that the compiler knows it is one value for the warp.
  const int warpgroup = __shfl_sync(0xffffffffU, thread / 128, 0);
  const int first_pair = P::kSplit ? 0 : warpgroup * kPairs;
  const int first_column = P::kSplit ? warpgroup * P::kColumns : 0;
  const int own = first_pair + thread % 128 / 32 * 16 + thread % 32 / 4;
  const Pair pairs[2] = {load_pair(job, block, kv_head, own),
                         load_pair(job, block, kv_head, own + 8)};
  load_queries<kDim>(job, block, kv_head, shared);
  const uint32_t queries = shared + first_pair * kDim * 2;
  // Every pair sees all keys from the first to the second of these.
  const int sees_from = first_key_of(job.attention.window, block.last_position());
  const int sees_to = block.first_position;
  Loads keys = loads_of<kDim>(shared, false);
  Loads values = loads_of<kDim>(shared, true);
  if (P::kSplit) values.index = static_cast<uint32_t>(warpgroup);  // every second load is its own
  const float scale = kFp8 ? job.attention.kv.k_scale * kLog2E : kLog2E;
  Running running;
  Sums<kDim> sums;
  for (int step = block.first_step(); step <= block.last_step(); ++step) {
    // Scores by turns: while one warpgroup's scores become weights, the other's are made. Not where
    // they share what is loaded next and would keep it waiting.
    if (!P::kSplit && (warpgroup == 1 || step > block.first_step()))
      ptx::named_barrier(kTurnBarrier + warpgroup, 256);
    float scores[32];
    score<kDim>(queries, keys, scores);
    if (!P::kSplit && (warpgroup == 0 || step < block.last_step()))
      ptx::named_arrive(kTurnBarrier + 1 - warpgroup, 256);
    if (step * kKeys < sees_from || (step + 1) * kKeys - 1 > sees_to)
      hide(pairs, step * kKeys, scores);
    uint32_t weights[16];
    const float2 factor = weigh(scores, scale, running, weights);
    values.wait_full();
    ptx::fence_async_shared();
    add_values<kDim>(values.address(), factor, weights, sums);
    if (thread % 32 == 0) ptx::barrier_arrive(values.empty());
    values.index += P::kLoads;
  }
  store_pairs<kDim, kFp8>(job, pairs, running, first_column, sums);
}

// grid (rows, KV head)
template <int kDim, bool kFp8>
__global__ void __launch_bounds__(kThreads<kFp8>, 1) wide_attention_kernel(const Job job) {
  if (!card::kWarpgroupProducts) __trap();  // never launched
  using P = Plan<kDim>;
  extern __shared__ __align__(1024) uint8_t memory[];
  allow_next();
  const uint32_t shared = ptx::shared_address(memory);
  if (threadIdx.x == 0) {
    for (const bool values : {false, true}) {
      const uint32_t barriers = loads_of<kDim>(shared, values).barriers;
      // Full when the copies of all its threads are done, empty when every warp that uses it says
      // so.
      for (int i = 0; i < 2; ++i) {
        ptx::barrier_init(barriers + i * 8, 32 * kCopyWarps<kFp8>);
        ptx::barrier_init(barriers + 16 + i * 8, P::kSplit && values ? 4 : 8);
      }
    }
    ptx::fence_barrier_init();
  }
  __syncthreads();
  wait_for_previous();
  const Block block = load_block(job);
  if (block.num_rows <= 0) return;
  const int kv_head = static_cast<int>(blockIdx.y);
  if (threadIdx.x >= kComputing) {
    ptx::lower_registers<kFp8 ? 64 : 56>();
    if constexpr (kFp8)
      widen_steps<kDim>(job, block, kv_head, shared);
    else
      copy_steps<kDim>(job, block, kv_head, shared);
  } else {
    ptx::raise_registers<kFp8 ? 192 : 224>();
    attend<kDim, kFp8>(job, block, kv_head, shared);
  }
}

template <int kDim, bool kFp8>
void launch_as(const Stream& stream, Job job) {
  using P = Plan<kDim>;
  auto* const kernel = wide_attention_kernel<kDim, kFp8>;
  constexpr int kBytes = kFp8 ? P::kBytesFp8 : P::kBytes;
  static const bool configured = [kernel] {
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
    return true;
  }();
  (void)configured;
  job.block_rows = P::kBlockPairs / job.group;
  if (job.block_rows > kWideTileRows) job.block_rows = kWideTileRows;
  const int of_tile = (kWideTileRows + job.block_rows - 1) / job.block_rows;
  launch(stream, kernel,
         dim3(static_cast<unsigned>(job.tiles.num_tiles * of_tile),
              static_cast<unsigned>(job.attention.num_kv_heads)),
         dim3(kThreads<kFp8>), kBytes, job);
}

template <int kDim>
void launch_all(const Stream& stream, const Job& job) {
  if (job.attention.kv.is_fp8)
    launch_as<kDim, true>(stream, job);
  else
    launch_as<kDim, false>(stream, job);
}

}  // namespace

void wide_attention(const Stream& stream, const Rows& rows, const WideTiles& tiles,
                    const WideAttention& job) {
  TANDEM_GPU_CHECK(job.num_kv_heads > 0 && job.num_heads % job.num_kv_heads == 0);
  TANDEM_GPU_CHECK(job.num_heads / job.num_kv_heads <= kPairs && has_warpgroup_products());
  TANDEM_GPU_CHECK(rows.num_rows > 0 && rows.num_rows <= job.out.capacity && tiles.num_tiles > 0);
  TANDEM_GPU_CHECK(!job.chunk.is_fp8 && job.kv.k_scale > 0);
  const Job all{job, rows, tiles, job.num_heads / job.num_kv_heads, 0};
  switch (job.head_dim) {
    case 32:
    case 64:
      return launch_all<64>(stream, all);
    case 128:
      return launch_all<128>(stream, all);
    case 256:
      return launch_all<256>(stream, all);
    case 512:
      return launch_all<512>(stream, all);
    default:
      TANDEM_GPU_CHECK(!"wide_attention: head_dim 32, 64, 128, 256 or 512");
  }
}

}  // namespace tandem::ops::cuda
