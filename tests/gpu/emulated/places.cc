#include "tests/gpu/emulated/places.h"

#include <algorithm>

#include "tests/gpu/emulated/device.h"
#include "tests/gpu/emulated/text.h"

namespace tandem::emulated {
namespace {

uint64_t content(int64_t position, int32_t token) {
  return static_cast<uint64_t>(position + 1) << 32 | static_cast<uint32_t>(token);
}

// Null where there is none.
uint64_t* place(const ops::cuda::KvLayer& layer, int64_t num_blocks,
                const ops::cuda::KvTable& table, int sequence, int64_t position) {
  const int64_t within = table.ring_len > 0 ? position % table.ring_len : position;
  const int64_t index = within / table.block_size;
  if (index >= table.max_blocks) {
    fault("blocks in the table of a sequence", index + 1, table.max_blocks);
    return nullptr;
  }
  const int64_t block = table.table[int64_t{sequence} * table.max_blocks + index];
  if (block < 0 || block >= num_blocks) {
    fault("a block of the cache, at most", num_blocks - 1, block);
    return nullptr;
  }
  return static_cast<uint64_t*>(layer.k) + block * table.block_size + within % table.block_size;
}

uint64_t* ring_place(const Places& places, int sequence, int64_t position) {
  return place(places.kv->layer(kSlidingLayer), places.kv->config().num_ring_blocks, places.ring,
               sequence, position);
}

uint64_t* page_place(const Places& places, int sequence, int64_t position) {
  return place(places.kv->layer(kFullLayer), places.kv->config().num_page_blocks, places.pages,
               sequence, position);
}

}  // namespace

void Places::write_ring(int sequence, int64_t position, int32_t token) const {
  if (uint64_t* to = ring_place(*this, sequence, position)) *to = content(position, token);
}

void Places::write_pages(int sequence, int64_t position, int32_t token) const {
  if (uint64_t* to = page_place(*this, sequence, position)) *to = content(position, token);
}

uint64_t Places::hash_up_to(int sequence, int64_t last) const {
  uint64_t hash = kNoText;
  for (int64_t position = 0; position <= last; ++position) {
    const uint64_t* found = page_place(*this, sequence, position);
    if (found == nullptr) return hash;
    expect_equal("the position that a page's place was written for", position,
                 static_cast<int64_t>(*found >> 32) - 1);
    hash = extend(hash, static_cast<int32_t>(*found));
  }
  return hash;
}

void Places::check_ring(int sequence, int64_t position, int64_t end) const {
  const int64_t first = std::max<int64_t>(0, position - device().settings.window + 1);
  for (int64_t key = first; key <= position && key < end; ++key) {
    const uint64_t* in_ring = ring_place(*this, sequence, key);
    const uint64_t* in_pages = page_place(*this, sequence, key);
    if (in_ring == nullptr || in_pages == nullptr) return;
    expect_equal("the position of a key in the ring", key,
                 static_cast<int64_t>(*in_ring >> 32) - 1);
    expect_equal("the token of a key in the ring", static_cast<int32_t>(*in_pages),
                 static_cast<int32_t>(*in_ring));
  }
}

}  // namespace tandem::emulated
