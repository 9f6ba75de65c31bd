#include "core/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace tandem::core {
namespace {

TEST(ThreadPool, EveryIndexIsVisitedOnce) {
  for (const int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 64, 1000})
      for (const int64_t grain : {1, 3, 8, 2000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          EXPECT_LT(begin, end);
          // Whole grains, but for the end: register tiles do not straddle ranges.
          EXPECT_EQ(begin % grain, 0);
          EXPECT_TRUE(end % grain == 0 || end == count);
          for (int64_t i = begin; i < end; ++i) visits[static_cast<size_t>(i)].fetch_add(1);
        });
        for (const auto& visit : visits) EXPECT_EQ(visit.load(), 1);
      }
  }
}

// Few parts, and small ones at the end: a slow thread is waited for for the time of a small one.
TEST(ThreadPool, PartsShrinkTowardsTheEnd) {
  for (const int threads : {2, 5, 16}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int64_t>> lengths(1200);  // of the part that begins there
    pool.parallel_for(1200, 3, [&](int64_t begin, int64_t end) {
      lengths[static_cast<size_t>(begin)].store(end - begin);
    });
    std::vector<int64_t> parts;
    for (const auto& length : lengths)
      if (length.load() > 0) parts.push_back(length.load());
    EXPECT_GE(parts.front(), 1200 / threads / 3);
    EXPECT_LE(parts.front(), 1200 / threads / 2);
    EXPECT_EQ(parts.back(), 3);
    EXPECT_TRUE(std::is_sorted(parts.rbegin(), parts.rend()));
    EXPECT_LE(parts.size(), static_cast<size_t>(threads) * 10);
  }
}

TEST(ThreadPool, SmallCountsStayOnTheCaller) {
  ThreadPool pool(4);
  const auto caller = std::this_thread::get_id();
  pool.parallel_for(8, 8, [&](int64_t begin, int64_t end) {
    EXPECT_EQ(std::this_thread::get_id(), caller);
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 8);
  });
}

TEST(ThreadPool, WritesAreVisibleAfterwards) {
  ThreadPool pool(3);
  std::vector<int64_t> values(997);
  for (int64_t round = 0; round < 3000; ++round) {
    pool.parallel_for(997, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i + round;
    });
    ASSERT_EQ(values[996], 996 * (round + 1) + round * (round + 1) / 2);
    ASSERT_EQ(values[1], round + 1 + round * (round + 1) / 2);
  }
}

TEST(ThreadPool, WorkersThatFellAsleepComeBack) {
  ThreadPool pool(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    // Both ranges wait for each other, so they must run on two threads.
    std::atomic<int> arrived{0};
    pool.parallel_for(2, 1, [&](int64_t, int64_t) {
      arrived.fetch_add(1);
      while (arrived.load() < 2) std::this_thread::yield();
    });
    EXPECT_EQ(arrived.load(), 2);
  }
}

TEST(ThreadPool, ManyPoolsStartAndStop) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(1 + round % 4);
    std::atomic<int64_t> sum{0};
    pool.parallel_for(10, 1, [&](int64_t begin, int64_t end) { sum.fetch_add(end - begin); });
    EXPECT_EQ(sum.load(), 10);
  }
}

TEST(ThreadPool, ZeroAsksForTheUsableCores) {
  ThreadPool pool(0);
  EXPECT_GE(pool.num_threads(), 1);
}

}  // namespace
}  // namespace tandem::core
