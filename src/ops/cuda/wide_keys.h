// Keys and values of a cache of E4M3 as rows of BF16, once for all rows of a prompt's pass: the
// attention of a full layer would widen them again for every few rows, which takes longer than its
// products.
#pragma once

#include <cstdint>

#include "ops/cuda/device.h"
#include "ops/cuda/rows.h"
#include "ops/cuda/wide_rows.h"

namespace tandem::ops::cuda {

inline constexpr int kWidenedTogether = 64;  // keys that a thread block widens

struct WidenKeys {
  int num_kv_heads = 0;
  int head_dim = 0;  // a multiple of 16
  KvLayer kv;        // E4M3
  KvTable places;    // pages
  // [rows][num_kv_heads][head_dim] BF16, codes without their scales: the key of a position goes to
  // row WideTiles::widened_rows + position.
  uint16_t* k = nullptr;
  uint16_t* v = nullptr;
  // Thread blocks of a tile: the tiles of a sequence share its keys, kWidenedTogether at a time.
  int blocks_of_tile = 1;
};

// The keys of positions 0 .. chunk_ends - 1 of every tile's sequence. All tiles of a sequence are
// there, kWideTileRows rows each but for the last one.
void widen_keys(const Stream& stream, const Rows& rows, const WideTiles& tiles,
                const WidenKeys& op);

}  // namespace tandem::ops::cuda
