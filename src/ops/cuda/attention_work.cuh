// How the work of an attention is cut into items, and these spread over the thread blocks.
#pragma once

#include "ops/cuda/attention_job.cuh"
#include "ops/cuda/packed_linear.h"

namespace tandem::ops::cuda {

// Pairs of row and head that a thread block takes at a time: 16, or one of these.
inline constexpr int kMediumPairs = 24;
inline constexpr int kWidePairs = 48;
inline constexpr int kMaxEntries = kMaxProductRows;  // a row belongs to one

// Neighbouring rows of a tile, which share the keys they see: all items of these rows, ordered by
// group of query heads (of KV heads), segment of keys, part of the value columns.
struct Entry {
  int first_item = 0;
  int first_key = 0x7fffffff;  // of any row
  int last_key = -1;
  int fresh_key = 0x7fffffff;  // keys from here on may be of this very pass
  int16_t sequence = -1;
  uint8_t first_row = 0;
  uint8_t num_rows = 0;
};
static_assert(kMaxEntries <= 256);

// The work of a launch, as list_attention() leaves it.
struct alignas(16) SharedWork {
  int num_items;
  int num_entries;
  int column_parts;  // thread blocks that take the same keys, each a part of the value columns
  int16_t sequences[kMaxEntries];  // of every row
  int last_keys[kMaxEntries];
  Entry entries[kMaxEntries];
};
static_assert(sizeof(SharedWork) % sizeof(uint4) == 0);
inline constexpr int kWorkChunks = sizeof(SharedWork) / sizeof(uint4);

// The same in shared memory, with a thread block's part.
struct WorkList : SharedWork {
  int first_drawn;  // items from here on are nobody's share; num_items: there are none
  int begin;        // of the items of this thread block
  int count;
  int begin_entry;  // of the first of them
};

struct Item {
  int entry;
  int group;  // of query heads
  int segment;
  int column_part;
};

__device__ inline int kv_head_of(const AttentionJob& job, const Item& item) {
  return item.group >> job.group_shift;
}

template <int kKeys>
__device__ int num_segments(const Entry& entry) {
  return entry.last_key < 0 ? 0 : entry.last_key / kKeys - entry.first_key / kKeys + 1;
}

// `entry` is its own or a later one.
template <int kKeys>
__device__ Item item_at(const WorkList& list, int index, int entry) {
  while (index < list.entries[entry].first_item) --entry;
  const Entry& own = list.entries[entry];
  const int of_segment = list.column_parts;
  const int of_head = num_segments<kKeys>(own) * of_segment;
  const int local = index - own.first_item;
  const int within = local % of_head;
  return {entry, local / of_head, own.first_key / kKeys + within / of_segment, within % of_segment};
}

// The first item of this thread block.
template <int kKeys>
__device__ Item first_item_of(const WorkList& list) {
  return item_at<kKeys>(list, list.begin, list.begin_entry);
}

// The item behind another one. Returns whether it is of other rows or another group.
template <int kKeys>
__device__ bool go_on(const AttentionJob& job, const WorkList& list, Item& item) {
  if (++item.column_part < list.column_parts) return false;
  item.column_part = 0;
  if (++item.segment <= list.entries[item.entry].last_key / kKeys) return false;
  if (++item.group == job.num_groups) {
    item.group = 0;
    ++item.entry;  // of the list's end: none
  }
  if (item.entry < list.num_entries) item.segment = list.entries[item.entry].first_key / kKeys;
  return true;
}

namespace work {

// Last keys of neighbouring rows.
struct Span {
  int low = 0x7fffffff;
  int high = -1;
};

__device__ __forceinline__ Span span_of(const WorkList& list, int first_row, int num_rows) {
  Span span;
#pragma unroll
  for (int r = 0; r < kTileRows; ++r) {
    const int last = r < num_rows ? list.last_keys[first_row + r] : -1;
    if (last >= 0) span.low = min(span.low, last);
    span.high = max(span.high, last);
  }
  return span;
}

struct Tile {
  int first_row = 0;
  int num_rows = 0;  // 0: nothing to do
  Span span;
};

template <int kKeys>
__device__ int num_segments(const AttentionJob& job, const Span& span) {
  return span.high < 0
             ? 0
             : span.high / kKeys - first_key_of(job.attention.window, span.low) / kKeys + 1;
}

// Parts of at most `most` rows that `num_rows` <= kTileRows are split into.
__device__ inline int num_parts(int num_rows, int most) {
  int parts = 1;
  while (parts * most < num_rows) ++parts;
  return parts;
}

// Calls each(first row, rows, span) for every part of a tile that sees a key: parts of equal size,
// at most `most` rows each.
template <typename Each>
__device__ __forceinline__ void for_parts(const WorkList& list, const Tile& tile, int most,
                                          const Each& each) {
  if (tile.span.high < 0) return;
  if (tile.num_rows <= most) return each(tile.first_row, tile.num_rows, tile.span);
  const int rows = num_parts(tile.num_rows, num_parts(tile.num_rows, most));
  for (int begin = 0; begin < tile.num_rows; begin += rows) {
    const int count = min(rows, tile.num_rows - begin);
    const Span span = span_of(list, tile.first_row + begin, count);
    if (span.high >= 0) each(tile.first_row + begin, count, span);
  }
}

// The sum of what lower lanes have.
template <typename T>
__device__ T sum_before(T value, int lane) {
  T sum = value;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const T other = __shfl_up_sync(0xffffffffU, sum, distance);
    if (lane >= distance) sum += other;
  }
  return sum - value;
}

// All rows into the list, by a warp.
__device__ __forceinline__ void copy_rows(const AttentionJob& job, WorkList& list, int lane) {
  constexpr int kEach = kMaxEntries / 32;
  int sequences[kEach];
  int last_keys[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int row = i * 32 + lane;
    sequences[i] = row < job.rows.num_rows ? job.rows.sequences[row] : -1;
    last_keys[i] = row < job.rows.num_rows ? job.rows.last_keys[row] : -1;
  }
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    list.sequences[i * 32 + lane] = static_cast<int16_t>(sequences[i]);
    list.last_keys[i * 32 + lane] = last_keys[i];
  }
  __syncwarp();
}

// A launch's tiles, several for each lane of a warp where there are many.
struct Tiles {
  const AttentionJob& job;
  const WorkList& list;
  int lane = static_cast<int>(threadIdx.x) % 32;
  int num_tiles = job.tiles.num_tiles;
  int own_tiles = (num_tiles + 31) / 32;
  int first_row = row_of(lane * own_tiles);
  int num_rows = rows_of(lane * own_tiles);

  __device__ int row_of(int tile) const {
    return tile < num_tiles ? job.tiles.first_rows[tile] : 0;
  }
  __device__ int rows_of(int tile) const { return tile < num_tiles ? job.tiles.num_rows[tile] : 0; }

  // The lane's i-th tile, when rows are in the list.
  __device__ __forceinline__ Tile load(int i) const {
    Tile tile{i == 0 ? first_row : row_of(lane * own_tiles + i),
              i == 0 ? num_rows : rows_of(lane * own_tiles + i),
              {}};
    if (tile.num_rows > 0 && list.sequences[tile.first_row] >= 0)
      tile.span = span_of(list, tile.first_row, tile.num_rows);
    return tile;
  }
};

// How the items are split so that they keep `blocks` thread blocks busy.
struct Split {
  int column_parts;
  int most_rows;
};

template <int kKeys>
__device__ Split choose_split(const AttentionJob& job, const Tiles& tiles, int max_column_parts,
                              int blocks) {
  if (max_column_parts == 1 && job.least_rows == job.most_rows) return {1, job.most_rows};
  int coarse = 0;  // items if rows are split as little as possible
  int fine = 0;    // and as much as is of any use
#pragma unroll 1
  for (int i = 0; i < tiles.own_tiles; ++i) {
    const Tile tile = tiles.load(i);
    const int items = num_segments<kKeys>(job, tile.span) * job.num_groups;
    coarse += items * num_parts(tile.num_rows, job.most_rows);
    fine += items * num_parts(tile.num_rows, job.least_rows);
    __syncwarp();
  }
  coarse = __reduce_add_sync(0xffffffffU, coarse);
  fine = __reduce_add_sync(0xffffffffU, fine);
  int column_parts = 1;
  while (column_parts < max_column_parts && coarse * column_parts * 2 <= blocks) column_parts *= 2;
  return {column_parts, fine * column_parts <= blocks ? job.least_rows : job.most_rows};
}

// Notes entry number `index` of `items` items, and whether this thread block begins in it.
__device__ __forceinline__ void add_entry(WorkList& list, int index, const Entry& entry, int items,
                                          int begin) {
  list.entries[index] = entry;
  if (begin >= entry.first_item && begin < entry.first_item + items) list.begin_entry = index;
}

// How items are spread: every thread block has `each` to begin with, or an equal share of them all.
struct Shares {
  int num_items;
  int blocks;
  int each = 0;

  __device__ __forceinline__ Shares(const AttentionJob& job, int items, int blocks_in)
      : num_items(items), blocks(blocks_in) {
    // A few items each are better off without: what is drawn comes from far and near (measured).
    constexpr int kLong = 8;
    if (!job.draws || items < kLong * blocks) return;
    const int equal = items / blocks;
    each = equal - 1 - equal / 8;
  }
  __device__ __forceinline__ int begin(int block) const {
    if (each > 0) return each * block;
    if (num_items <= blocks) return min(block, num_items);
    return static_cast<int>(static_cast<unsigned>(num_items) * static_cast<unsigned>(block) /
                            static_cast<unsigned>(blocks));
  }
  __device__ __forceinline__ void note(WorkList& list) const {
    list.num_items = num_items;
    list.first_drawn = each > 0 ? each * blocks : num_items;
    list.begin = begin(static_cast<int>(blockIdx.x));
    list.count = begin(static_cast<int>(blockIdx.x) + 1) - list.begin;
  }
};

// The work of one tile among at most 32 rows, a lane for each: few instructions, since nothing of
// attention can begin before.
template <int kKeys>
__device__ void list_one_tile(const AttentionJob& job, int max_column_parts, int blocks,
                              WorkList& list) {
  constexpr unsigned kAll = 0xffffffffU;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_row = job.tiles.first_rows[0];
  int num_rows = job.tiles.num_rows[0];
  int row_sequence = -1;
  int row_last = -1;
  if (lane < job.rows.num_rows) {
    row_sequence = job.rows.sequences[lane];
    row_last = job.rows.last_keys[lane];
    list.last_keys[lane] = row_last;
  }
  const int sequence = __shfl_sync(kAll, row_sequence, first_row);
  int last = __shfl_sync(kAll, row_last, first_row + lane);  // of the tile's row `lane`
  if (sequence < 0) num_rows = 0;
  if (lane >= num_rows) last = -1;
  const int low = __reduce_min_sync(kAll, last < 0 ? 0x7fffffff : last);
  const int high = __reduce_max_sync(kAll, last);
  const auto segments = [&](int from, int to) {
    return to < 0 ? 0 : to / kKeys - first_key_of(job.attention.window, from) / kKeys + 1;
  };
  const int items = segments(low, high) * job.num_groups;
  int column_parts = 1;
  const int coarse = items * num_parts(num_rows, job.most_rows);
  while (column_parts < max_column_parts && coarse * column_parts * 2 <= blocks) column_parts *= 2;
  const int fine = items * num_parts(num_rows, job.least_rows);
  const int most = fine * column_parts <= blocks ? job.least_rows : job.most_rows;
  const int rows = num_parts(num_rows, num_parts(num_rows, most));
  // The lane's entry.
  const int begin = lane * rows;
  int from = 0x7fffffff;
  int to = -1;
  for (int r = 0; r < rows; ++r) {
    const int own = __shfl_sync(kAll, last, min(begin + r, 31));
    if (own >= 0) from = min(from, own);
    to = max(to, own);
  }
  const int own_items = segments(from, to) * (job.num_groups * column_parts);
  const unsigned exist = __ballot_sync(kAll, to >= 0);
  const int before = sum_before(own_items, lane);
  const int all_items = __shfl_sync(kAll, before + own_items, 31);
  const Shares shares(job, all_items, blocks);
  const int own_begin = shares.begin(static_cast<int>(blockIdx.x));
  if (to >= 0) {
    if (segments(from, to) > job.attention.max_segments) __trap();
    add_entry(list, __popc(exist & ((1U << lane) - 1U)),
              {before, first_key_of(job.attention.window, from), to,
               job.attention.has_fresh_keys ? low : 0x7fffffff, static_cast<int16_t>(sequence),
               static_cast<uint8_t>(first_row + begin),
               static_cast<uint8_t>(min(rows, num_rows - begin))},
              own_items, own_begin);
  }
  if (lane == 31) {
    list.num_entries = __popc(exist);
    list.column_parts = column_parts;
    shares.note(list);
  }
}

// The work of several tiles. A warp that runs code for the first time waits for most of it: there
// is little.
template <int kKeys>
__device__ void list_tiles(const AttentionJob& job, int max_column_parts, int blocks,
                           WorkList& list) {
  const Tiles tiles{job, list};  // on their way while the rows are
  copy_rows(job, list, tiles.lane);
  const Split split = choose_split<kKeys>(job, tiles, max_column_parts, blocks);
  const int of_segment = job.num_groups * split.column_parts;
  int num_items = 0;
  int begin = 0;  // of this thread block
  int item = 0;
  int part = 0;
#pragma unroll 1
  for (int turn = 0; turn < 2; ++turn) {  // counts, then lists
    if (turn == 1) {
      constexpr unsigned kPart = 1U << 24;  // counts parts above items
      const unsigned own = static_cast<unsigned>(part) * kPart + static_cast<unsigned>(item);
      const unsigned before = sum_before(own, tiles.lane);
      item = static_cast<int>(before % kPart);
      part = static_cast<int>(before / kPart);
      num_items = static_cast<int>(__shfl_sync(0xffffffffU, before + own, 31) % kPart);
      begin = Shares(job, num_items, blocks).begin(static_cast<int>(blockIdx.x));
    }
#pragma unroll 1
    for (int i = 0; i < tiles.own_tiles; ++i) {
      const Tile tile = tiles.load(i);
      for_parts(list, tile, split.most_rows, [&](int first_row, int num_rows, const Span& span) {
        const int segments = num_segments<kKeys>(job, span);
        if (segments > job.attention.max_segments || part >= kMaxEntries) __trap();
        if (turn == 1)
          add_entry(
              list, part,
              {item, first_key_of(job.attention.window, span.low), span.high,
               job.attention.has_fresh_keys ? tile.span.low : 0x7fffffff, list.sequences[first_row],
               static_cast<uint8_t>(first_row), static_cast<uint8_t>(num_rows)},
              segments * of_segment, begin);
        ++part;
        item += segments * of_segment;
      });
      __syncwarp();
    }
  }
  if (tiles.lane == 31) {
    list.num_entries = part;
    list.column_parts = split.column_parts;
    Shares(job, num_items, blocks).note(list);
  }
}

}  // namespace work

// Cuts the work so that it keeps `blocks` thread blocks busy: few segments are split by value
// columns, at most `max_column_parts`, and by rows. One warp calls it; the others wait for it.
template <int kKeys>
__device__ void list_work(const AttentionJob& job, int max_column_parts, int blocks,
                          WorkList& list) {
  if (job.tiles.num_tiles == 1 && job.rows.num_rows <= 32)
    return work::list_one_tile<kKeys>(job, max_column_parts, blocks, list);
  work::list_tiles<kKeys>(job, max_column_parts, blocks, list);
}

// The list that list_attention() left, and this thread block's part. All threads, kMaxEntries at
// least; they wait for each other behind it.
__device__ inline void take_list(const AttentionJob& job, WorkList& list) {
  const int thread = static_cast<int>(threadIdx.x);
  const auto* const source = static_cast<const uint4*>(job.attention.list);
  auto* const target = reinterpret_cast<uint4*>(static_cast<SharedWork*>(&list));
  for (int i = thread; i < kWorkChunks; i += static_cast<int>(blockDim.x))
    target[i] = __ldcg(source + i);
  __syncthreads();
  const work::Shares shares(job, list.num_items, static_cast<int>(gridDim.x));
  const int begin = shares.begin(static_cast<int>(blockIdx.x));
  if (thread < list.num_entries) {
    const bool is_last = thread + 1 == list.num_entries;
    const int end = is_last ? list.num_items : list.entries[thread + 1].first_item;
    if (begin >= list.entries[thread].first_item && begin < end) list.begin_entry = thread;
  }
  if (thread == 0) shares.note(list);
}

// One warp.
template <int kKeys>
__global__ void __launch_bounds__(32)
    list_kernel(const AttentionJob job, int max_column_parts, int blocks) {
  __shared__ WorkList list;
  allow_next();
  list_work<kKeys>(job, max_column_parts, blocks, list);
  __syncwarp();
  const auto* const source = reinterpret_cast<const uint4*>(static_cast<SharedWork*>(&list));
  for (int i = static_cast<int>(threadIdx.x); i < kWorkChunks; i += 32)
    static_cast<uint4*>(job.attention.list)[i] = source[i];
  wait_for_previous();
}

}  // namespace tandem::ops::cuda
