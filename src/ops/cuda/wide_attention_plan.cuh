// How attention of many rows (wide_attention.cu) divides its work and its shared memory.
#pragma once

#include "ops/cuda/attention.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/wide_attention.h"
#include "ops/cuda/wide_ptx.cuh"

namespace tandem::ops::cuda::wide {

// Where keys and values come from, and how.
enum class Source {
  kBf16,  // a cache of BF16, or the pass's own rows
  kE4m3,  // a cache of E4M3, or the pass's own rows
  // Pages of BF16 alone, or widened keys: two thread blocks that form a cluster copy half each, to
  // both.
  kShared,
};

inline constexpr int kComputing = 256;  // threads: two warpgroups
inline constexpr int kKeys = 64;        // of a step
inline constexpr int kPairs = 64;       // of a warpgroup
inline constexpr int kTurnBarrier = 2;  // and 3: whose turn it is

inline constexpr int kCluster = 2;  // thread blocks that share keys

// Warps that bring keys, and as many that bring values.
template <Source kSource>
constexpr int kCopyWarps = kSource == Source::kE4m3 ? 4 : 2;
template <Source kSource>
constexpr int kThreads = kComputing + 64 * kCopyWarps<kSource>;

template <int kDim>  // head_dim, rounded up to 64
struct Plan {
  static constexpr bool kSplit = kDim == 512;  // the warpgroups split the value columns
  static constexpr int kBlockPairs = kSplit ? kPairs : 2 * kPairs;
  static constexpr int kColumns = kSplit ? kDim / 2 : kDim;  // value columns of a warpgroup
  static constexpr int kLoads = kSplit ? 2 : 1;              // of a step
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
  // Or what warpgroups with the same pairs tell each other: maxima, and the weights of two steps.
  static constexpr int kMaximaAt = kBytes;
  static constexpr int kWeightsAt = (kMaximaAt + 2 * kPairs * 4 + 1023) / 1024 * 1024;
  static constexpr int kBytesHalves = kWeightsAt + 2 * kPairs * 128;
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
__device__ inline Loads loads_of(uint32_t shared, bool values) {
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
  int widened_row = 0;  // the same among widened keys
  int last_key = -1;    // that any row sees

  __device__ int last_position() const { return first_position + num_rows - 1; }
  __device__ int first_step() const { return first_key / kKeys; }
  __device__ int last_step() const { return last_key / kKeys; }
};

// `together`: thread blocks that go through the same keys; those without rows follow the others.
__device__ inline Block load_block(const Job& job, int together) {
  // The last rows of a prompt see the most keys: they begin first.
  const int index = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  const int of_tile = (kWideTileRows + job.block_rows - 1) / job.block_rows;
  const int tile = index / of_tile;
  const int skipped = index % of_tile * job.block_rows;
  const int skipped_by_all = skipped - index % together * job.block_rows;
  const int rows_of_all = min(job.tiles.num_rows[tile] - skipped_by_all, together * job.block_rows);
  Block block;
  if (rows_of_all <= 0) return block;
  const int first_row = job.tiles.first_rows[tile] + skipped_by_all;
  const int first_position = job.rows.positions[first_row];
  const int begin = min(skipped - skipped_by_all, rows_of_all);
  block.num_rows = min(rows_of_all - begin, job.block_rows);
  block.first_row = first_row + begin;
  block.sequence = job.rows.sequences[first_row];
  block.first_position = first_position + begin;
  block.first_key = first_key_of(job.attention.window, first_position);
  block.chunk_begin = job.tiles.chunk_begins[tile];
  block.chunk_row = first_row - first_position;
  if (job.tiles.widened_rows != nullptr) block.widened_row = job.tiles.widened_rows[tile];
  block.last_key = first_position + rows_of_all - 1;
  return block;
}

// Where 16 bytes of row `row`, columns 8 * chunk on, lie in a matrix of `num_rows` rows.
__device__ inline uint32_t chunk_at(int num_rows, int row, int chunk) {
  return static_cast<uint32_t>((chunk / 8 * num_rows + row) * 128 + (chunk % 8 ^ row % 8) * 16);
}

}  // namespace tandem::ops::cuda::wide
