// The prefix cache alone: what is found, what is given up, what is counted.
#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <utility>

namespace tandem::engine {
namespace {

constexpr int64_t kBlock = 2;

std::vector<int32_t> tokens(std::initializer_list<int32_t> ids) {
  return ids;
}

// A sequence as the engine treats it: pages of its own are handed to the cache as they fill.
struct User {
  PrefixKey key;
  PrefixNode* tail = nullptr;
  std::vector<int32_t> blocks;
};

class PrefixCacheTest : public testing::Test {
 protected:
  explicit PrefixCacheTest(PrefixHash hash = {})
      : cache_(kBlock, 2, pages_, BlockPool(4, 100), std::move(hash)) {}

  // Runs a sequence over all its full pages, with a snapshot behind the last.
  User run(const std::vector<int32_t>& ids, const std::string& salt = "") {
    User user;
    user.key.salt = salt;
    const auto num_pages = static_cast<int64_t>(ids.size()) / kBlock;
    const PrefixMatch match = cache_.find(user.key, ids, num_pages);
    if (match.tail != nullptr) cache_.acquire(match.tail, user.blocks);
    user.tail = match.tail;
    cache_.allocate(num_pages - match.num_pages, user.blocks);
    for (int64_t page = match.num_pages; page < num_pages; ++page) {
      user.tail = cache_.insert(user.tail, user.key, ids, user.blocks[static_cast<size_t>(page)]);
      user.blocks[static_cast<size_t>(page)] = user.tail->page;
    }
    cache_.add_snapshot(*user.tail);
    return user;
  }
  void leave(User& user) { cache_.release(std::exchange(user.tail, nullptr)); }
  void run_and_leave(const std::vector<int32_t>& ids, const std::string& salt = "") {
    User user = run(ids, salt);
    leave(user);
  }
  PrefixMatch find(const std::vector<int32_t>& ids, const std::string& salt = "") {
    PrefixKey key{salt, {}};
    return cache_.find(key, ids, static_cast<int64_t>(ids.size()) / kBlock);
  }
  void expect_sound(std::vector<PrefixNode*> tails = {}) {
    EXPECT_EQ(cache_.find_fault(tails), "");
    const std::vector<int32_t> owned = cache_.owned_pages();
    EXPECT_EQ(pages_.find_fault({&owned}), "");
  }

  void expect_sound_with(const std::vector<int32_t>& held) {
    EXPECT_EQ(cache_.find_fault({}), "");
    const std::vector<int32_t> owned = cache_.owned_pages();
    EXPECT_EQ(pages_.find_fault({&owned, &held}), "");
  }

  BlockPool pages_{6};
  PrefixCache cache_;
};

TEST_F(PrefixCacheTest, FindsWhatWasThereToTheLastSnapshot) {
  run_and_leave(tokens({1, 2, 3, 4, 5, 6}));
  const PrefixMatch whole = find(tokens({1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(whole.num_pages, 3);
  EXPECT_EQ(whole.num_unused, 3);
  EXPECT_EQ(whole.tail->snapshot.size(), 2U);  // a window, not the whole prefix
  // Known pages without a snapshot: nothing can start there.
  const PrefixMatch part = find(tokens({1, 2, 3, 4, 9, 9}));
  EXPECT_EQ(part.num_pages, 0);
  EXPECT_EQ(part.num_known_pages, 2);
  EXPECT_EQ(find(tokens({1, 9})).num_known_pages, 0);
  EXPECT_EQ(find(tokens({3, 4, 5, 6})).num_known_pages, 0);
  expect_sound();
}

TEST_F(PrefixCacheTest, SaltsShareNothing) {
  run_and_leave(tokens({1, 2, 3, 4}), "a");
  EXPECT_EQ(find(tokens({1, 2, 3, 4})).num_known_pages, 0);
  EXPECT_EQ(find(tokens({1, 2, 3, 4}), "b").num_known_pages, 0);
  EXPECT_EQ(find(tokens({1, 2, 3, 4}), "a").num_pages, 2);
}

TEST_F(PrefixCacheTest, EqualPagesBecomeOne) {
  User first = run(tokens({1, 2, 3, 4}));
  cache_.release(first.tail);  // as if it had not been there when the second began
  PrefixKey key;
  std::vector<int32_t> own;
  cache_.allocate(1, own);
  const int64_t free_before = pages_.num_free();
  PrefixNode* const node = cache_.insert(nullptr, key, tokens({1, 2}), own[0]);
  EXPECT_NE(node->page, own[0]);
  EXPECT_EQ(pages_.num_free(), free_before + 1);
  expect_sound({node});
}

TEST_F(PrefixCacheTest, GivesUpTheLongestUnusedAndEndsFirst) {
  run_and_leave(tokens({1, 2, 3, 4}));
  run_and_leave(tokens({5, 6}));
  run_and_leave(tokens({7, 8, 9, 9}));
  EXPECT_EQ(cache_.num_available(), 6);
  EXPECT_EQ(pages_.num_free(), 1);
  std::vector<int32_t> blocks;
  cache_.allocate(2, blocks);  // the end of the first goes
  EXPECT_EQ(find(tokens({1, 2, 3, 4})).num_known_pages, 1);
  expect_sound_with(blocks);
  cache_.allocate(2, blocks);  // then its beginning, then the second
  EXPECT_EQ(find(tokens({1, 2})).num_known_pages, 0);
  EXPECT_EQ(find(tokens({5, 6})).num_known_pages, 0);
  EXPECT_EQ(find(tokens({7, 8, 9, 9})).num_pages, 2);
  EXPECT_EQ(cache_.num_available(), 2);
}

TEST_F(PrefixCacheTest, WhatIsUsedStays) {
  User user = run(tokens({1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(cache_.num_available(), 2);
  std::vector<int32_t> blocks;
  cache_.allocate(2, blocks);
  EXPECT_EQ(find(tokens({1, 2, 3, 4, 5, 6, 7, 8})).num_pages, 4);
  EXPECT_DEATH(cache_.allocate(1, blocks), "check failed");
  leave(user);
  EXPECT_EQ(cache_.num_available(), 4);
}

TEST_F(PrefixCacheTest, SnapshotsMakeRoomForNewerOnes) {
  run_and_leave(tokens({1, 2, 3, 4}));
  run_and_leave(tokens({5, 6, 7, 8}));
  PrefixNode* const first = find(tokens({1, 2, 3, 4})).tail;
  cache_.touch_snapshot(*first);
  run_and_leave(tokens({9, 9}));  // one block of the four is needed: the second's two go
  EXPECT_EQ(find(tokens({5, 6, 7, 8})).num_pages, 0);
  EXPECT_EQ(find(tokens({1, 2, 3, 4})).num_pages, 2);
  EXPECT_EQ(find(tokens({9, 9})).num_pages, 1);
  EXPECT_FALSE(cache_.add_snapshot(*first));  // it has one
  expect_sound();
}

class WeakHashTest : public PrefixCacheTest {
 protected:
  WeakHashTest() : PrefixCacheTest([](uint64_t, std::span<const int32_t>) { return 7; }) {}
};

TEST_F(WeakHashTest, TokensDecideWhereHashesCollide) {
  run_and_leave(tokens({1, 2, 3, 4}));
  run_and_leave(tokens({5, 6, 3, 4}), "a");
  EXPECT_EQ(find(tokens({1, 2, 3, 4})).num_pages, 2);
  EXPECT_EQ(find(tokens({5, 6, 3, 4})).num_pages, 0);
  EXPECT_EQ(find(tokens({5, 6, 3, 4}), "a").num_pages, 2);
  EXPECT_EQ(find(tokens({1, 2, 1, 2})).num_known_pages, 1);
  EXPECT_EQ(find(tokens({3, 4})).num_known_pages, 0);
  EXPECT_NE(find(tokens({1, 2, 3, 4})).tail, find(tokens({5, 6, 3, 4}), "a").tail);
  expect_sound();
}

}  // namespace
}  // namespace tandem::engine
