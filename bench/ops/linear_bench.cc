// Times ops::linear beside the read bandwidth of the same process: `bench_linear [threads]`.
// Every block: one projection of one model. Copies of its weight are used in turn, as many as the
// model has bytes of weights, so that a weight comes from where it comes from in the model: memory
// for the 12B, a large cache for the demo pair. Times are the best of many calls, the bandwidth the
// best of three readings just before. One thread is timed by its own CPU clock, which a busy
// machine does not stretch; several threads by the wall clock.
#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "core/buffer.h"
#include "ops/cpu/isa.h"
#include "ops/linear.h"
#include "ops/parallel.h"

namespace tandem {
namespace {

using core::DType;
using core::Shape;
using core::TensorView;

class Watch {
 public:
  explicit Watch(const ops::Context& context)
      : clock_(ops::num_threads(context) == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC),
        start_(now()) {}
  double seconds() const { return now() - start_; }

 private:
  double now() const {
    timespec time{};
    clock_gettime(clock_, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  clockid_t clock_;
  double start_;
};

struct Projection {
  const char* name;
  int64_t in;
  int64_t out;
  size_t model_bytes;  // of weights between two uses of this one
};
constexpr size_t kDemoBytes = size_t{24} << 20;
constexpr size_t kLargeBytes = size_t{1} << 30;
constexpr Projection kProjections[] = {
    {"demo gate", 256, 1024, kDemoBytes},       {"demo down", 1024, 256, kDemoBytes},
    {"demo q", 256, 256, kDemoBytes},           {"demo head", 256, 4096, kDemoBytes},
    {"12B gate", 3840, 15360, kLargeBytes},     {"12B down", 15360, 3840, kLargeBytes},
    {"12B sliding q", 3840, 4096, kLargeBytes}, {"12B sliding o", 4096, 3840, kLargeBytes}};

__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t sum_of(const uint64_t* words,
                                                                             int64_t count) {
  uint64_t sums[64] = {};
  for (int64_t i = 0; i < count; i += 64)
    for (int64_t lane = 0; lane < 64; ++lane) sums[lane] += words[i + lane];
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

// GB/s of adding up a buffer, best of several.
double read_bandwidth(const ops::Context& context, const core::Buffer& memory) {
  const auto* const words = static_cast<const uint64_t*>(memory.data());
  constexpr int64_t kPiece = 1 << 15;
  const auto pieces = static_cast<int64_t>(memory.size_bytes() / sizeof(uint64_t)) / kPiece;
  double best = 0.0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const Watch watch(context);
    ops::parallel_for(context, pieces, 1, [&](int64_t begin, int64_t end) {
      volatile uint64_t sink = sum_of(words + begin * kPiece, (end - begin) * kPiece);
      (void)sink;
    });
    best = std::max(best, static_cast<double>(memory.size_bytes()) / watch.seconds() * 1e-9);
  }
  return best;
}

ops::LinearWeight make_weight(ops::LinearFormat format, void* data, const Projection& p) {
  const bool fp8 = format == ops::LinearFormat::kFp8Tensor;
  ops::LinearWeight weight;
  weight.format = format;
  weight.activation =
      fp8 ? ops::ActivationQuantization::kStatic : ops::ActivationQuantization::kNone;
  weight.weight = TensorView(data, fp8 ? DType::kF8E4M3 : DType::kBF16, Shape{p.out, p.in});
  return weight;
}

// Seconds of one call: the best of many, on copies of the weight taken in turn.
double time_linear(const ops::Context& context, const Projection& p, ops::LinearFormat format,
                   int64_t n, const core::Buffer& memory) {
  const size_t bytes =
      static_cast<size_t>(p.in * p.out) * (format == ops::LinearFormat::kFp8Tensor ? 1U : 2U);
  const size_t copies = std::max<size_t>(1, std::min(memory.size_bytes(), p.model_bytes) / bytes);
  core::Buffer x(DType::kBF16, Shape{n, p.in});
  core::Buffer y(DType::kBF16, Shape{n, p.out});
  for (int64_t i = 0; i < n * p.in; ++i)
    x.view().ptr<core::BFloat16>()[i] = core::to_bf16(static_cast<float>(i % 7) - 3.0F);
  double best = 1e9;
  const Watch all(context);
  for (size_t call = 0; call < 12 || all.seconds() < 0.2; ++call) {
    void* const data = static_cast<char*>(memory.data()) + call % copies * bytes;
    const ops::LinearWeight weights[] = {make_weight(format, data, p)};
    const TensorView outputs[] = {y.view()};
    const Watch watch(context);
    ops::linear(context, x.view(), weights, outputs);
    best = std::min(best, watch.seconds());
  }
  return best;
}

void print_projection(const ops::Context& context, const Projection& p, ops::LinearFormat format,
                      const core::Buffer& memory) {
  const bool fp8 = format == ops::LinearFormat::kFp8Tensor;
  const double bytes = static_cast<double>(p.in * p.out) * (fp8 ? 1.0 : 2.0);
  const double bandwidth = read_bandwidth(context, memory);
  fmt::print("{} {} -> {} {}: {:.2f} MB, reading memory {:.1f} GB/s\n", p.name, p.in, p.out,
             fp8 ? "fp8" : "bf16", bytes * 1e-6, bandwidth);
  double one_row = 0.0;
  for (const int64_t n : {1, 5, 16, 64}) {
    const double seconds = time_linear(context, p, format, n, memory);
    if (n == 1) one_row = seconds;
    fmt::print(
        "  n = {:<3} {:>10.1f} us {:>7.2f} GB/s ({:>3.0f} % of read) {:>7.1f} GFLOP/s"
        " {:>7.2f} x n = 1\n",
        n, seconds * 1e6, bytes / seconds * 1e-9, bytes / seconds * 1e-7 / bandwidth,
        2e-9 * static_cast<double>(n * p.in * p.out) / seconds, seconds / one_row);
    std::fflush(stdout);
  }
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  using namespace tandem;
  core::ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : 0);
  const ops::Context context{ops::Backend::kCpu, &pool};
  // More than the last-level cache of most machines. Bytes of 0x3c are small finite BF16 and E4M3.
  core::Buffer memory(core::DType::kU8, core::Shape{int64_t{1} << 30});
  memory.fill_bytes(0x3c);
  const char* const isas[] = {"reference", "avx2", "avx512"};
  fmt::print("{} threads ({} clock), {}\n", pool.num_threads(),
             pool.num_threads() == 1 ? "CPU" : "wall", isas[static_cast<size_t>(ops::cpu::isa())]);
  for (const auto format : {ops::LinearFormat::kBF16, ops::LinearFormat::kFp8Tensor})
    for (const Projection& p : kProjections) print_projection(context, p, format, memory);
  return 0;
}
