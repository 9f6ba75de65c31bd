// The warps of a thread block of attention (wide_attention.cu) that copy keys and values, for
// itself alone, as they are or widened from E4M3.
#pragma once

#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/wide_attention_plan.cuh"

namespace tandem::ops::cuda::wide {

// Whether some row sees a position's key, and whether that lies in the chunk.
__device__ inline bool is_seen(const Block& block, int key) {
  return key >= block.first_key && key <= block.last_key;
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
__device__ inline const uint16_t* locate(const Job& job, const Block& block, int kv_head, int key,
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
  static constexpr int kWarpKeys = kKeys / kCopyWarps<Source::kE4m3>;
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
  const int warp = copier % kCopyWarps<Source::kE4m3>;  // of those with the same job
  const bool values = copier >= kCopyWarps<Source::kE4m3>;
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

}  // namespace tandem::ops::cuda::wide
