// Made-up keys and queries of the rows of prompts, and where they lie.
#pragma once

#include <cmath>
#include <vector>

#include "ops/cuda/wide_attention.h"
#include "tests/gpu/attention_support.h"
#include "tests/gpu/kv_support.h"
#include "tests/gpu/support.h"

namespace tandem::ops::test {

// Keys and values of each position, BF16 and the same wherever they are kept.
template <int kWhich>
auto value_of(int sequence, int position) {
  return [sequence, position](int head, int column) {
    uint32_t x = static_cast<uint32_t>(((sequence * 9001 + position) * 17 + head) * 1031 + column) *
                     2654435761U +
                 kWhich * 977U;
    x = (x ^ (x >> 15)) * 2246822519U;
    x = (x ^ (x >> 13)) * 3266489917U;
    return core::round_to_bf16((static_cast<float>(x >> 8) / 8388608.0F - 1.0F) * 1.7F);
  };
}

// A sequence's part of a pass: positions begin .. end - 1, of which `rows` is what is asked for.
struct Chunk {
  int sequence;
  int begin;
  int end;
};

struct PassSetup {
  Heads heads;
  int window;
  std::vector<Chunk> chunks;
  int tile_rows = cuda::kWideTileRows;
  bool in_chunk = false;  // the pass's keys are beside the cache
  int block_size = 16;
  bool widened = false;  // keys are widened in front of the attention
};

// Everything up to each chunk's end, in the reference's layout.
inline Cache reference_cache(const PassSetup& setup) {
  std::vector<int> lengths;
  for (const Chunk& chunk : setup.chunks) lengths.push_back(chunk.end);
  Cache cache(setup.heads, {setup.block_size, 0, setup.window, lengths});
  for (size_t s = 0; s < lengths.size(); ++s)
    for (int p = 0; p < lengths[s]; ++p)
      cache.write(static_cast<int>(s), p, value_of<1>(setup.chunks[s].sequence, p),
                  value_of<2>(setup.chunks[s].sequence, p));
  return cache;
}

// What the device has: all of it in pages, or old keys in a ring and the chunk's own apart.
inline Cache device_cache(const PassSetup& setup) {
  if (!setup.in_chunk) return reference_cache(setup);
  std::vector<int> lengths;
  for (const Chunk& chunk : setup.chunks) lengths.push_back(std::max(chunk.begin, 1));
  const int ring_len = (setup.window + 15) / 16 * 16;
  Cache cache(setup.heads, {16, ring_len, setup.window, lengths});
  for (size_t s = 0; s < lengths.size(); ++s)
    for (int p = 0; p < setup.chunks[s].begin; ++p)
      cache.write(static_cast<int>(s), p, value_of<1>(setup.chunks[s].sequence, p),
                  value_of<2>(setup.chunks[s].sequence, p));
  return cache;
}

template <int kWhich>
std::vector<BFloat16> chunk_rows(const PassSetup& setup) {
  std::vector<BFloat16> rows;
  for (const Chunk& chunk : setup.chunks)
    for (int p = chunk.begin; p < chunk.end; ++p)
      for (int h = 0; h < setup.heads.num_kv_heads; ++h)
        for (int c = 0; c < setup.heads.head_dim; ++c)
          rows.push_back(core::to_bf16(value_of<kWhich>(chunk.sequence, p)(h, c)));
  if (!setup.heads.e4m3_cache) return rows;
  return tests::widened(
      tests::stored_by_cpu(rows, setup.heads.head_dim, kWhich == 1 ? kKeyScale : kValueScale));
}

struct Lists {
  explicit Lists(const PassSetup& setup, int tile_rows) {
    for (size_t s = 0; s < setup.chunks.size(); ++s) {
      const Chunk& chunk = setup.chunks[s];
      for (int p = chunk.begin; p < chunk.end; ++p) {
        if ((p - chunk.begin) % tile_rows == 0) {
          first_rows.push_back(static_cast<int32_t>(positions.size()));
          num_rows.push_back(0);
          begins.push_back(chunk.begin);
          ends.push_back(chunk.end);
          widened_rows.push_back(num_widened);
        }
        ++num_rows.back();
        positions.push_back(p);
        sequences.push_back(static_cast<int32_t>(s));
      }
      num_widened += (chunk.end + 63) / 64 * 64;
    }
  }
  explicit Lists(const PassSetup& setup) : Lists(setup, setup.tile_rows) {}
  std::vector<int32_t> positions, sequences, first_rows, num_rows, begins, ends, widened_rows;
  int32_t num_widened = 0;
};

// The same on the device.
struct DeviceLists {
  explicit DeviceLists(const Lists& lists)
      : num_rows(static_cast<int>(lists.positions.size())),
        num_tiles(static_cast<int>(lists.first_rows.size())) {
    for (const auto* list : {&lists.positions, &lists.sequences, &lists.first_rows, &lists.num_rows,
                             &lists.begins, &lists.ends, &lists.widened_rows})
      arrays.push_back(tests::to_device(*list));
  }
  const int32_t* array(size_t i) const { return arrays[i].as<int32_t>(); }
  cuda::Rows rows() const {
    cuda::Rows rows;
    rows.num_rows = num_rows;
    rows.positions = array(0);
    rows.sequences = array(1);
    return rows;
  }
  cuda::WideTiles tiles() const {
    return {num_tiles, array(2), array(3), array(4), array(5), array(6)};
  }
  int num_rows;
  int num_tiles;
  std::vector<cuda::DeviceBuffer> arrays;
};

// Queries whose scores have a standard deviation of about 2, a function of sequence and position.
inline std::vector<BFloat16> queries(const PassSetup& setup) {
  std::vector<BFloat16> q;
  const float scale = 2.0F / std::sqrt(static_cast<float>(setup.heads.head_dim));
  for (const Chunk& chunk : setup.chunks)
    for (int p = chunk.begin; p < chunk.end; ++p)
      for (int h = 0; h < setup.heads.num_heads; ++h)
        for (int c = 0; c < setup.heads.head_dim; ++c)
          q.push_back(core::to_bf16(scale * value_of<3>(chunk.sequence, p)(h, c)));
  return q;
}

}  // namespace tandem::ops::test
