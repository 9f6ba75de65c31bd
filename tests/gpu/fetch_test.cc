// Blocks that a kernel brings from the host's memory.
#include "ops/cuda/fetch.h"

#include <atomic>
#include <chrono>
#include <numeric>

#include "ops/cuda/accept.h"
#include "tests/gpu/support.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using ops::cuda::PinnedBuffer;

constexpr size_t kMost = 300000;  // integers: more than one turn of all threads

TEST(Fetch, BringsWhatTheHostWroteLastAndNoMore) {
  PinnedBuffer host(kMost * sizeof(int32_t));
  PinnedBuffer time(sizeof(uint64_t));
  const DeviceBuffer device = tests::poisoned(kMost * sizeof(int32_t));
  uint64_t last = 0;
  int32_t first = 0;
  for (const size_t count : {size_t{4}, size_t{8188}, size_t{8192}, size_t{8196}, kMost - 4}) {
    SCOPED_TRACE(count);
    first += 1000003;
    std::iota(host.as<int32_t>(), host.as<int32_t>() + kMost, first);
    *time.as<uint64_t>() = 0;
    ops::cuda::fetch({}, host.as<void>(), device.data(), count * sizeof(int32_t),
                     time.as<uint64_t>());
    tests::synchronize();
    const auto got = tests::to_host<int32_t>(device, count + 4);
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(got[i], first + static_cast<int32_t>(i)) << i;
    EXPECT_EQ(got[count], -1);
    EXPECT_GE(*time.as<uint64_t>(), last);
    last = *time.as<uint64_t>();
    EXPECT_NE(last, 0U);
  }
}

// The host reads each result as soon as it is marked, while the kernel may still run; replayed with
// other numbers, which come through the same places.
TEST(Fetch, ARoundsResultIsWholeWhenItIsMarked) {
  constexpr int kEntries = 64;
  constexpr int kHidden = 3840;
  constexpr size_t kBlock = 4 * kEntries;  // first rows, slots, tokens, positions
  PinnedBuffer host(kBlock * sizeof(int32_t));
  PinnedBuffer results(kEntries * sizeof(ops::cuda::RoundResult));
  const DeviceBuffer block(kBlock * sizeof(int32_t));
  const DeviceBuffer rows(size_t{kEntries} * kHidden * 2);
  const DeviceBuffer states(size_t{kEntries} * kHidden * 2);
  const ops::cuda::Stream stream;
  auto* const numbers = host.as<int32_t>();
  for (int i = 0; i < kEntries; ++i) numbers[i] = numbers[kEntries + i] = i;
  for (int32_t round = 1; round <= 200; ++round) {
    auto* const result = results.as<ops::cuda::RoundResult>();
    for (int i = 0; i < kEntries; ++i) {
      result[i] = {};
      numbers[2 * kEntries + i] = round * kEntries + i;  // chosen: no drafts, so it is the token
      numbers[3 * kEntries + i] = i;
    }
    ops::cuda::fetch(stream, numbers, block.data(), kBlock * sizeof(int32_t), nullptr);
    const auto* const on_device = block.as<int32_t>();
    ops::cuda::accept_drafts(stream, {.num_entries = kEntries,
                                      .hidden = kHidden,
                                      .first_rows = on_device,
                                      .num_drafts = nullptr,
                                      .slots = on_device + kEntries,
                                      .tokens = on_device + 2 * kEntries,
                                      .positions = on_device + 3 * kEntries,
                                      .chosen = on_device + 2 * kEntries,
                                      .hidden_rows = rows.as<uint16_t>(),
                                      .states = states.as<uint16_t>(),
                                      .results = result,
                                      .synthetic = {},
                                      .next = {}});
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    for (int i = 0; i < kEntries; ++i) {
      while (std::atomic_ref(result[i].finished).load(std::memory_order_acquire) == 0)
        ASSERT_LT(std::chrono::steady_clock::now(), end) << "entry " << i << " never came";
      ASSERT_EQ(result[i].num_tokens, 1) << i;
      ASSERT_EQ(result[i].tokens[0], round * kEntries + i) << i;
    }
  }
  tests::synchronize();
}

}  // namespace
}  // namespace tandem
