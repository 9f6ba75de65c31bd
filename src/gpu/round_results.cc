#include "gpu/round_results.h"

#include <algorithm>
#include <atomic>

#include "base/check.h"

namespace tandem::gpu {
namespace {

using ops::cuda::RoundResult;

bool is_there(RoundResult& result) {
  return std::atomic_ref(result.finished).load(std::memory_order_acquire) != 0;
}

}  // namespace

void RoundResults::expect(size_t count) {
  TANDEM_CHECK_LE(count, most_);
  expected_ = count;
  for (size_t i = 0; i < count; ++i) device()[i].finished = 0;
}

std::span<const RoundResult> RoundResults::wait(const ops::cuda::Stream& stream) const {
  const std::span<RoundResult> results(device(), expected_);
  const auto end = std::chrono::steady_clock::now() + patience_;
  auto next = results.begin();
  while (true) {
    next = std::find_if_not(next, results.end(), is_there);
    if (next == results.end() && !results.empty()) return results;
    if (results.empty() || std::chrono::steady_clock::now() > end) break;
    __builtin_ia32_pause();
  }
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream.handle));
  TANDEM_CHECK(std::ranges::all_of(results, is_there));
  return results;
}

}  // namespace tandem::gpu
