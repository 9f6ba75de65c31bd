#include "server/connection_table.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>

namespace tandem::server {
namespace {

// Time must pass between two waits for their order to be known.
void pause() {
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

TEST(ConnectionTable, TheOneThatWasWaitedForLongestGoes) {
  ConnectionTable table;
  std::string closed;
  ConnectionTable::Entry a(table, [&] { closed += 'a'; });
  ConnectionTable::Entry b(table, [&] { closed += 'b'; });
  ConnectionTable::Entry c(table, [&] { closed += 'c'; });
  EXPECT_FALSE(table.evict());  // nobody is waited for
  const ConnectionTable::Waiting for_b(b);
  pause();
  std::optional<ConnectionTable::Waiting> for_a(std::in_place, a);
  EXPECT_TRUE(table.evict());
  EXPECT_EQ(closed, "b");
  EXPECT_TRUE(table.evict());  // b is on its way: not again
  EXPECT_EQ(closed, "ba");
  EXPECT_FALSE(table.evict());  // c is being answered
}

TEST(ConnectionTable, WhoIsAnsweredStays) {
  ConnectionTable table;
  std::string closed;
  ConnectionTable::Entry early(table, [&] { closed += 'e'; });
  ConnectionTable::Entry late(table, [&] { closed += 'l'; });
  {
    const ConnectionTable::Waiting head(early);
  }
  pause();
  const ConnectionTable::Waiting waiting(late);
  pause();
  // Waited for a second time: what counts is this time.
  const ConnectionTable::Waiting again(early);
  EXPECT_TRUE(table.evict());
  EXPECT_EQ(closed, "l");
}

TEST(ConnectionTable, WhoIsGoneIsForgotten) {
  ConnectionTable table;
  int closed = 0;
  {
    ConnectionTable::Entry entry(table, [&] { ++closed; });
    const ConnectionTable::Waiting waiting(entry);
  }
  EXPECT_FALSE(table.evict());
  EXPECT_EQ(closed, 0);
}

}  // namespace
}  // namespace tandem::server
