// How the work of an attention is cut into items, and these spread over the thread blocks.
#pragma once

#include "ops/cuda/attention_job.cuh"

namespace tandem::ops::cuda {

// Pairs of row and head that a thread block takes at a time.
inline constexpr int kMaxPairs = 48;
inline constexpr int kMaxEntries = 128;  // a row belongs to one

// Neighbouring rows of a tile, which share the keys they see: all items of these rows, ordered by
// group of query heads (of KV heads), segment of keys, part of the value columns.
struct Entry {
  int first_item = 0;
  int first_row = 0;
  int num_rows = 0;
  int sequence = -1;
  int first_key = 0x7fffffff;  // of any row
  int last_key = -1;
  int fresh_key = 0x7fffffff;  // keys from here on may be of this very pass
};

// The work of a launch, in shared memory. Every thread block works it out by itself, the same.
struct WorkList {
  int num_entries;
  int num_items;
  int column_parts;  // thread blocks that take the same keys, each a part of the value columns
  int sequences[kMaxEntries];  // of every row
  int last_keys[kMaxEntries];
  Entry entries[kMaxEntries];
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

// `entry` is that of an item before.
template <int kKeys>
__device__ Item item_at(const AttentionJob& job, const WorkList& list, int index, int entry) {
  while (entry + 1 < list.num_entries && index >= list.entries[entry + 1].first_item) ++entry;
  const Entry& own = list.entries[entry];
  const int of_segment = list.column_parts;
  const int of_head = num_segments<kKeys>(own) * of_segment;
  const int local = index - own.first_item;
  const int within = local % of_head;
  return {entry, local / of_head, own.first_key / kKeys + within / of_segment, within % of_segment};
}

namespace work {

struct Tile {
  int first_row = 0;
  int num_rows = 0;
  int sequence = -1;
  int last_keys[kTileRows];

  // The rows begin .. begin + count - 1 of the tile.
  __device__ __forceinline__ Entry part(const AttentionJob& job, int begin, int count) const {
    Entry entry;
    entry.first_row = first_row + begin;
    entry.num_rows = count;
    entry.sequence = sequence;
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) {
      const int last = last_keys[r];
      if (last < 0) continue;
      if (job.attention.has_fresh_keys) entry.fresh_key = min(entry.fresh_key, last);
      if (r < begin || r >= begin + count) continue;
      entry.first_key = min(entry.first_key, first_key_of(job.attention.window, last));
      entry.last_key = max(entry.last_key, last);
    }
    return entry;
  }
};

// Parts of at most `most` rows that `num_rows` <= kTileRows are split into.
__device__ inline int num_parts(int num_rows, int most) {
  int parts = 1;
  while (parts * most < num_rows) ++parts;
  return parts;
}

// Calls each(entry) for every part of a tile that sees a key: parts of equal size, at most `most`
// rows each.
template <typename Each>
__device__ __forceinline__ void for_parts(const AttentionJob& job, const Tile& tile, int most,
                                          const Each& each) {
  if (tile.num_rows <= 0) return;
  const int rows = num_parts(tile.num_rows, num_parts(tile.num_rows, most));
  for (int begin = 0; begin < tile.num_rows; begin += rows) {
    const Entry entry = tile.part(job, begin, min(rows, tile.num_rows - begin));
    if (entry.last_key >= 0) each(entry);
  }
}

// The sum of what lower lanes have.
__device__ inline int sum_before(int value, int lane) {
  int sum = value;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(0xffffffffU, sum, distance);
    if (lane >= distance) sum += other;
  }
  return sum - value;
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

  // The lane's i-th tile.
  __device__ __forceinline__ Tile load(int i) const {
    Tile tile;
    tile.first_row = i == 0 ? first_row : row_of(lane * own_tiles + i);
    tile.num_rows = i == 0 ? num_rows : rows_of(lane * own_tiles + i);
    if (tile.num_rows <= 0) tile.first_row = tile.num_rows = 0;
    tile.sequence = list.sequences[tile.first_row];
#pragma unroll
    for (int r = 0; r < kTileRows; ++r)
      tile.last_keys[r] = r < tile.num_rows ? list.last_keys[tile.first_row + r] : -1;
    if (tile.sequence < 0) tile.num_rows = 0;
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
  int coarse = 0;  // items if rows are split as little as possible
  int fine = 0;    // and as much as is of any use
  for (int i = 0; i < tiles.own_tiles; ++i) {
    const Tile tile = tiles.load(i);
    if (tile.num_rows > 0) {
      const int items = num_segments<kKeys>(tile.part(job, 0, tile.num_rows)) * job.num_groups;
      coarse += items * num_parts(tile.num_rows, job.most_rows);
      fine += items * num_parts(tile.num_rows, job.least_rows);
    }
    __syncwarp();
  }
  coarse = __reduce_add_sync(0xffffffffU, coarse);
  fine = __reduce_add_sync(0xffffffffU, fine);
  int column_parts = 1;
  while (column_parts < max_column_parts && coarse * column_parts * 2 <= blocks) column_parts *= 2;
  return {column_parts, fine * column_parts <= blocks ? job.least_rows : job.most_rows};
}

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
  if (to >= 0) {
    if (segments(from, to) > job.attention.max_segments) __trap();
    list.entries[__popc(exist & ((1U << lane) - 1U))] = {
        before,
        first_row + begin,
        min(rows, num_rows - begin),
        sequence,
        first_key_of(job.attention.window, from),
        to,
        job.attention.has_fresh_keys ? low : 0x7fffffff};
  }
  if (lane == 31) {
    list.num_items = before + own_items;
    list.num_entries = __popc(exist);
    list.column_parts = column_parts;
  }
}

}  // namespace work

// Cuts the work so that it keeps gridDim.x thread blocks busy: few segments are split by value
// columns, at most `max_column_parts`, and by rows. One warp calls it; the others wait for it.
template <int kKeys>
__device__ void list_work(const AttentionJob& job, int max_column_parts, WorkList& list) {
  if (job.tiles.num_tiles == 1 && job.rows.num_rows <= 32)
    return work::list_one_tile<kKeys>(job, max_column_parts, static_cast<int>(gridDim.x), list);
  const work::Tiles tiles{job, list};  // on their way while the rows are
  for (int row = tiles.lane; row < job.rows.num_rows; row += 32) {
    list.sequences[row] = job.rows.sequences[row];
    list.last_keys[row] = job.rows.last_keys[row];
  }
  __syncwarp();
  const work::Split split =
      work::choose_split<kKeys>(job, tiles, max_column_parts, static_cast<int>(gridDim.x));
  const auto items_of = [&](const Entry& entry) {
    return num_segments<kKeys>(entry) * job.num_groups * split.column_parts;
  };
  int items = 0;
  int parts = 0;
  for (int i = 0; i < tiles.own_tiles; ++i) {
    work::for_parts(job, tiles.load(i), split.most_rows, [&](const Entry& entry) {
      if (num_segments<kKeys>(entry) > job.attention.max_segments) __trap();
      items += items_of(entry);
      ++parts;
    });
    __syncwarp();
  }
  int item = work::sum_before(items, tiles.lane);
  int part = work::sum_before(parts, tiles.lane);
  for (int i = 0; i < tiles.own_tiles; ++i) {
    work::for_parts(job, tiles.load(i), split.most_rows, [&](Entry entry) {
      entry.first_item = item;
      if (part >= kMaxEntries) __trap();
      list.entries[part++] = entry;
      item += items_of(entry);
    });
    __syncwarp();
  }
  if (tiles.lane == 31) {
    list.num_items = item;
    list.num_entries = part;
    list.column_parts = split.column_parts;
  }
}

}  // namespace tandem::ops::cuda
