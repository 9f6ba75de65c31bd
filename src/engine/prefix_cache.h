// Pages that outlive their request, found again by the tokens they hold.
//
// A node is a full page behind the page before it. The cache owns the page and counts the sequences
// that use it; who uses a node uses all before it. What nobody uses counts as free: when pages run
// short, the page that was unused longest goes, and never one before those that continue it.
//
// To go on behind a page the sliding layers need the keys and values of the window before it. The
// ring that held them has moved on, so a node may carry a snapshot: copies of the ring's blocks.
// Without one its page is known but nothing can start there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/block_pool.h"

namespace tandem::engine {

struct PrefixNode {
  PrefixNode* parent = nullptr;  // null for a first page
  int64_t depth = 1;             // pages from the first one on
  uint64_t hash = 0;
  std::string salt;             // of a first page
  std::vector<int32_t> tokens;  // [block_size]
  int32_t page = 0;
  int64_t num_users = 0;
  int64_t num_children = 0;
  uint64_t last_used = 0;
  bool has_snapshot = false;
  std::vector<int32_t> snapshot;  // ring blocks of the last positions, in order
  uint64_t snapshot_used = 0;
  mutable uint64_t visit = 0;  // of count_unvisited
};

// Of a page's tokens behind all those before it.
using PrefixHash = std::function<uint64_t(uint64_t parent, std::span<const int32_t> tokens)>;

// What a sequence is looked up by; the hashes are made once and grow with it.
struct PrefixKey {
  std::string salt;              // sequences of different salts share nothing
  std::vector<uint64_t> hashes;  // of its full pages
};

struct PrefixMatch {
  PrefixNode* tail = nullptr;   // the last page to start behind; null: none
  int64_t num_pages = 0;        // up to and with it
  int64_t num_known_pages = 0;  // that hold the right tokens, with a snapshot or without
  int64_t num_unused = 0;       // of num_pages: those that count as free
};

class PrefixCache {
 public:
  // snapshot_blocks: of a ring, as many as hold a window. Without a hash: a good one.
  PrefixCache(int64_t block_size, int64_t snapshot_blocks, BlockPool& pages, BlockPool snapshots,
              PrefixHash hash = {});

  // Pages that allocate() can give.
  int64_t num_available() const { return pages_.num_free() + num_unused_; }
  int64_t num_unused() const { return num_unused_; }
  void allocate(int64_t count, std::vector<int32_t>& blocks);

  // The longest known prefix of `tokens`, at most `max_pages` of it.
  PrefixMatch find(PrefixKey& key, std::span<const int32_t> tokens, int64_t max_pages) const;
  // Pages in which two sequences are alike, by their hashes; at most `max_pages`.
  int64_t num_common_pages(PrefixKey& a, std::span<const int32_t> a_tokens, PrefixKey& b,
                           std::span<const int32_t> b_tokens, int64_t max_pages) const;
  // One more user of `tail` and all before it; appends their pages.
  void acquire(PrefixNode* tail, std::vector<int32_t>& blocks);
  // A page that a user of `parent` has filled; it becomes the node's user. When the page is known
  // already, `page` goes back to the pool: the node's has the same bytes.
  PrefixNode* insert(PrefixNode* parent, PrefixKey& key, std::span<const int32_t> tokens,
                     int32_t page);
  void release(PrefixNode* tail);

  // Blocks for a snapshot of the ring behind `node`; those used longest ago make room. False when
  // there is one already, or none can be had.
  bool add_snapshot(PrefixNode& node);
  int64_t snapshot_blocks_at(int64_t depth) const { return std::min(depth, snapshot_blocks_); }
  bool has_room_for_snapshot_at(int64_t depth) const {
    return snapshot_blocks_at(depth) <= snapshots_.num_blocks();
  }
  void touch_snapshot(PrefixNode& node);

  // Of tail's pages, those not counted under this `visit` before. Visits count up.
  static int64_t count_unvisited(const PrefixNode* tail, uint64_t visit);

  // Every page the cache owns, for BlockPool::find_fault.
  std::vector<int32_t> owned_pages() const;
  // Empty when all counts agree with `tails`, the users; else what is wrong.
  std::string find_fault(std::span<PrefixNode* const> tails) const;

 private:
  void extend(PrefixKey& key, std::span<const int32_t> tokens, int64_t num_pages) const;
  PrefixNode* look_up(const PrefixNode* parent, const PrefixKey& key,
                      std::span<const int32_t> tokens) const;
  std::span<const int32_t> page_tokens(std::span<const int32_t> tokens, int64_t page) const;
  void add_user(PrefixNode& node);
  void evict_one();
  void drop_snapshot(PrefixNode& node);

  int64_t block_size_;
  int64_t snapshot_blocks_;
  BlockPool& pages_;
  BlockPool snapshots_;
  PrefixHash hash_;
  uint64_t root_;  // hashes of different processes differ
  std::unordered_multimap<uint64_t, std::unique_ptr<PrefixNode>> nodes_;
  std::set<std::pair<uint64_t, PrefixNode*>> unused_leaves_;  // by last use
  std::set<std::pair<uint64_t, PrefixNode*>> by_snapshot_;    // by last use of the snapshot
  int64_t num_unused_ = 0;
  uint64_t clock_ = 0;
};

}  // namespace tandem::engine
