#include "bench/cpu_device.h"

#include <algorithm>

#include "base/clock.h"
#include "bench/machine.h"
#include "ops/cpu/isa.h"
#include "ops/parallel.h"

namespace tandem::bench {
namespace {

constexpr int64_t kReadBytes = int64_t{1} << 30;  // more than any last-level cache
constexpr int kMaxCallsPerMinimum = 1000;
// Small and finite in BF16 and in E4M3.
constexpr uint8_t kFill = 0x3c;

__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t sum_of(const uint64_t* words,
                                                                             int64_t count) {
  uint64_t sums[64] = {};
  for (int64_t i = 0; i < count; i += 64)
    for (int64_t lane = 0; lane < 64; ++lane) sums[lane] += words[i + lane];
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

}  // namespace

CpuDevice::CpuDevice(int num_threads) : pool_(num_threads), context_{ops::Backend::kCpu, &pool_} {}

std::string CpuDevice::description() const {
  return fmt::format("{}, {} thread{}, {}", cpu_model(), pool_.num_threads(),
                     pool_.num_threads() == 1 ? "" : "s", ops::cpu::isa_name(ops::cpu::isa()));
}

core::TensorView CpuDevice::allocate(core::DType dtype, const core::Shape& shape) {
  buffers_.emplace_back(dtype, shape);
  buffers_.back().fill_bytes(kFill);
  return buffers_.back().view();
}

std::vector<double> CpuDevice::time(const Timing& timing,
                                    const std::function<void(int64_t call)>& work) {
  return time_calls(timing, work);
}

double CpuDevice::read_bandwidth() {
  if (read_.empty()) {
    read_ = core::Buffer(core::DType::kU8, core::Shape{kReadBytes});
    read_.fill_bytes(kFill);
  }
  return measure_read_bandwidth(context_, read_.view());
}

std::vector<double> time_calls(const Timing& timing,
                               const std::function<void(int64_t call)>& work) {
  work(0);
  std::vector<double> seconds;
  const base::Stopwatch all;
  for (int64_t call = 1;; ++call) {
    const base::Stopwatch watch;
    work(call);
    seconds.push_back(watch.seconds());
    if (call >= int64_t{timing.min_calls} * kMaxCallsPerMinimum) break;
    if (call >= timing.min_calls && all.seconds() >= timing.min_seconds) break;
  }
  return seconds;
}

double measure_read_bandwidth(const ops::Context& context, const core::TensorView& bytes) {
  constexpr int64_t kPiece = 1 << 15;  // words that one thread takes at a time
  const auto* const words = static_cast<const uint64_t*>(bytes.data);
  const int64_t pieces =
      bytes.shape.num_elements() / static_cast<int64_t>(sizeof(uint64_t)) / kPiece;
  const auto covered = static_cast<double>(pieces * kPiece) * sizeof(uint64_t);
  double best = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const base::Stopwatch watch;
    ops::parallel_for(context, pieces, 1, [&](int64_t begin, int64_t end) {
      volatile uint64_t sink = sum_of(words + begin * kPiece, (end - begin) * kPiece);
      (void)sink;
    });
    best = std::max(best, covered / watch.seconds());
  }
  return best;
}

}  // namespace tandem::bench
