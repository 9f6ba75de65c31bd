#include "engine/prefix_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/check.h"

namespace tandem::engine {
namespace {

constexpr uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

uint64_t hash_tokens(uint64_t parent, std::span<const int32_t> tokens) {
  uint64_t hash = parent;
  for (const int32_t token : tokens)
    hash = mix(hash + 0x9e3779b97f4a7c15ULL + static_cast<uint32_t>(token));
  return hash;
}

}  // namespace

PrefixCache::PrefixCache(int64_t block_size, int64_t snapshot_blocks, BlockPool& pages,
                         BlockPool snapshots, PrefixHash hash)
    : block_size_(block_size),
      snapshot_blocks_(snapshot_blocks),
      pages_(pages),
      snapshots_(std::move(snapshots)),
      hash_(hash ? std::move(hash) : hash_tokens),
      root_(mix(std::random_device{}()) ^ std::random_device{}()) {}

std::span<const int32_t> PrefixCache::page_tokens(std::span<const int32_t> tokens,
                                                  int64_t page) const {
  return tokens.subspan(static_cast<size_t>(page * block_size_), static_cast<size_t>(block_size_));
}

void PrefixCache::extend(PrefixKey& key, std::span<const int32_t> tokens, int64_t num_pages) const {
  while (static_cast<int64_t>(key.hashes.size()) < num_pages) {
    const auto page = static_cast<int64_t>(key.hashes.size());
    const uint64_t parent =
        page > 0 ? key.hashes.back() : root_ ^ std::hash<std::string>{}(key.salt);
    key.hashes.push_back(hash_(parent, page_tokens(tokens, page)));
  }
}

// The hash finds candidates; the tokens decide, and those before them by the parent.
PrefixNode* PrefixCache::look_up(const PrefixNode* parent, const PrefixKey& key,
                                 std::span<const int32_t> tokens) const {
  const int64_t page = parent == nullptr ? 0 : parent->depth;
  const auto wanted = page_tokens(tokens, page);
  const auto [begin, end] = nodes_.equal_range(key.hashes[static_cast<size_t>(page)]);
  for (auto it = begin; it != end; ++it) {
    PrefixNode& node = *it->second;
    if (node.parent != parent || (parent == nullptr && node.salt != key.salt)) continue;
    if (std::ranges::equal(node.tokens, wanted)) return &node;
  }
  return nullptr;
}

void PrefixCache::allocate(int64_t count, std::vector<int32_t>& blocks) {
  TANDEM_CHECK_LE(count, num_available());
  while (pages_.num_free() < count) evict_one();
  pages_.allocate(count, blocks);
}

PrefixMatch PrefixCache::find(PrefixKey& key, std::span<const int32_t> tokens,
                              int64_t max_pages) const {
  PrefixMatch match;
  int64_t num_unused = 0;
  PrefixNode* tail = nullptr;
  while (match.num_known_pages < max_pages) {
    extend(key, tokens, match.num_known_pages + 1);
    PrefixNode* const next = look_up(tail, key, tokens);
    if (next == nullptr) break;
    tail = next;
    ++match.num_known_pages;
    if (tail->num_users == 0) ++num_unused;
    if (!tail->has_snapshot) continue;
    match.tail = tail;
    match.num_pages = match.num_known_pages;
    match.num_unused = num_unused;
  }
  return match;
}

int64_t PrefixCache::num_common_pages(PrefixKey& a, std::span<const int32_t> a_tokens, PrefixKey& b,
                                      std::span<const int32_t> b_tokens, int64_t max_pages) const {
  if (a.salt != b.salt) return 0;
  const auto shorter = static_cast<int64_t>(std::min(a_tokens.size(), b_tokens.size()));
  const int64_t most = std::min(max_pages, shorter / block_size_);
  for (int64_t page = 0; page < most; ++page) {
    extend(a, a_tokens, page + 1);
    extend(b, b_tokens, page + 1);
    if (a.hashes[static_cast<size_t>(page)] != b.hashes[static_cast<size_t>(page)]) return page;
  }
  return most;
}

void PrefixCache::add_user(PrefixNode& node) {
  if (++node.num_users > 1) return;
  --num_unused_;
  unused_leaves_.erase({node.last_used, &node});
}

void PrefixCache::acquire(PrefixNode* tail, std::vector<int32_t>& blocks) {
  const size_t begin = blocks.size();
  for (PrefixNode* node = tail; node != nullptr; node = node->parent) {
    add_user(*node);
    blocks.push_back(node->page);
  }
  std::reverse(blocks.begin() + static_cast<std::ptrdiff_t>(begin), blocks.end());
}

PrefixNode* PrefixCache::insert(PrefixNode* parent, PrefixKey& key, std::span<const int32_t> tokens,
                                int32_t page) {
  const int64_t depth = parent == nullptr ? 1 : parent->depth + 1;
  extend(key, tokens, depth);
  if (PrefixNode* const known = look_up(parent, key, tokens)) {
    pages_.release(page);
    add_user(*known);
    return known;
  }
  auto node = std::make_unique<PrefixNode>();
  const auto own = page_tokens(tokens, depth - 1);
  node->parent = parent;
  node->depth = depth;
  node->hash = key.hashes[static_cast<size_t>(depth - 1)];
  if (parent == nullptr) node->salt = key.salt;
  node->tokens.assign(own.begin(), own.end());
  node->page = page;
  node->num_users = 1;
  if (parent != nullptr) {
    TANDEM_CHECK_GT(parent->num_users, 0);  // so it is no unused leaf
    ++parent->num_children;
  }
  return nodes_.emplace(node->hash, std::move(node))->second.get();
}

// The end of a prefix is less likely to be asked for again than its beginning: it counts as unused
// for longer.
void PrefixCache::release(PrefixNode* tail) {
  for (PrefixNode* node = tail; node != nullptr; node = node->parent) {
    TANDEM_CHECK_GT(node->num_users, 0);
    if (--node->num_users > 0) continue;
    ++num_unused_;
    node->last_used = ++clock_;
    if (node->num_children == 0) unused_leaves_.emplace(node->last_used, node);
  }
}

void PrefixCache::evict_one() {
  TANDEM_CHECK(!unused_leaves_.empty());
  PrefixNode* const node = unused_leaves_.begin()->second;
  unused_leaves_.erase(unused_leaves_.begin());
  drop_snapshot(*node);
  pages_.release(node->page);
  --num_unused_;
  if (PrefixNode* const parent = node->parent) {
    --parent->num_children;
    if (parent->num_children == 0 && parent->num_users == 0)
      unused_leaves_.emplace(parent->last_used, parent);
  }
  const auto [begin, end] = nodes_.equal_range(node->hash);
  nodes_.erase(std::find_if(begin, end, [&](const auto& it) { return it.second.get() == node; }));
}

bool PrefixCache::add_snapshot(PrefixNode& node) {
  if (node.has_snapshot || !has_room_for_snapshot_at(node.depth)) return false;
  const int64_t needed = snapshot_blocks_at(node.depth);
  while (snapshots_.num_free() < needed) drop_snapshot(*by_snapshot_.begin()->second);
  snapshots_.allocate(needed, node.snapshot);
  node.has_snapshot = true;
  node.snapshot_used = ++clock_;
  by_snapshot_.emplace(node.snapshot_used, &node);
  return true;
}

void PrefixCache::drop_snapshot(PrefixNode& node) {
  if (!node.has_snapshot) return;
  by_snapshot_.erase({node.snapshot_used, &node});
  snapshots_.release(node.snapshot);
  node.has_snapshot = false;
}

void PrefixCache::touch_snapshot(PrefixNode& node) {
  TANDEM_CHECK(node.has_snapshot);
  by_snapshot_.erase({node.snapshot_used, &node});
  node.snapshot_used = ++clock_;
  by_snapshot_.emplace(node.snapshot_used, &node);
}

int64_t PrefixCache::count_unvisited(const PrefixNode* tail, uint64_t visit) {
  int64_t count = 0;
  for (; tail != nullptr && tail->visit != visit; tail = tail->parent) {
    tail->visit = visit;
    ++count;
  }
  return count;
}

std::vector<int32_t> PrefixCache::owned_pages() const {
  std::vector<int32_t> pages;
  for (const auto& [hash, node] : nodes_) pages.push_back(node->page);
  return pages;
}

std::string PrefixCache::find_fault(std::span<PrefixNode* const> tails) const {
  std::unordered_map<const PrefixNode*, int64_t> users, children;
  for (const PrefixNode* node : tails)
    for (; node != nullptr; node = node->parent) ++users[node];
  std::vector<const std::vector<int32_t>*> snapshots;
  int64_t num_unused = 0, num_leaves = 0, num_snapshots = 0;
  for (const auto& [hash, node] : nodes_) {
    ++children[node->parent];
    if (node->has_snapshot) {
      ++num_snapshots;
      snapshots.push_back(&node->snapshot);
      if (!by_snapshot_.contains({node->snapshot_used, node.get()}))
        return fmt::format("page {}: its snapshot is not listed", node->page);
    }
  }
  for (const auto& [hash, node] : nodes_) {
    if (node->num_users != users[node.get()] || node->num_children != children[node.get()])
      return fmt::format("page {}: {} users and {} children, counted {} and {}", node->page,
                         node->num_users, node->num_children, users[node.get()],
                         children[node.get()]);
    if (node->num_users > 0) continue;
    ++num_unused;
    if (node->num_children > 0) continue;
    ++num_leaves;
    if (!unused_leaves_.contains({node->last_used, node.get()}))
      return fmt::format("page {}: unused, but not listed", node->page);
  }
  if (num_unused != num_unused_ || num_leaves != static_cast<int64_t>(unused_leaves_.size()) ||
      num_snapshots != static_cast<int64_t>(by_snapshot_.size()))
    return fmt::format("unused {} of {}, leaves {} of {}, snapshots {} of {}", num_unused_,
                       num_unused, unused_leaves_.size(), num_leaves, by_snapshot_.size(),
                       num_snapshots);
  return snapshots_.find_fault(snapshots);
}

}  // namespace tandem::engine
