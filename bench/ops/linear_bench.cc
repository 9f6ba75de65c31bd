// Times ops::linear beside the read bandwidth of the same process: `bench_linear [threads]`.
// Every line: one projection of one model, its weights taken in turn from copies that together do
// not fit the caches, so that a weight comes from memory as it does in a model.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/clock.h"
#include "core/buffer.h"
#include "ops/cpu/isa.h"
#include "ops/linear.h"
#include "ops/parallel.h"

namespace tandem {
namespace {

using core::DType;
using core::Shape;
using core::TensorView;

struct Projection {
  const char* name;
  int64_t in;
  int64_t out;
};
constexpr Projection kDemo[] = {{"demo gate or up", 256, 1024},
                                {"demo down", 1024, 256},
                                {"demo q", 256, 256},
                                {"demo head", 256, 4096}};
constexpr Projection kTwelve[] = {{"12B gate or up", 3840, 15360},
                                  {"12B down", 15360, 3840},
                                  {"12B sliding q", 3840, 4096},
                                  {"12B sliding o", 4096, 3840}};

// Sums a buffer with as many independent streams as the compiler likes; GB/s, best of several.
double read_bandwidth(const ops::Context& context, const core::Buffer& memory) {
  const auto* const words = static_cast<const uint64_t*>(memory.data());
  const auto count = static_cast<int64_t>(memory.size_bytes() / sizeof(uint64_t));
  double best = 0.0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const base::Stopwatch watch;
    ops::parallel_for(context, count / 1024, 1, [&](int64_t begin, int64_t end) {
      uint64_t sums[32] = {};
      for (int64_t i = begin * 1024; i < end * 1024; i += 32)
        for (int64_t lane = 0; lane < 32; ++lane) sums[lane] += words[i + lane];
      uint64_t total = 0;
      for (const uint64_t sum : sums) total += sum;
      volatile uint64_t sink = total;
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

// Seconds of one call: the median over calls on fresh copies of the weight.
double time_linear(const ops::Context& context, const Projection& p, ops::LinearFormat format,
                   int64_t n, const core::Buffer& memory) {
  const size_t bytes =
      static_cast<size_t>(p.in * p.out) * (format == ops::LinearFormat::kFp8Tensor ? 1U : 2U);
  const size_t copies = std::max<size_t>(1, memory.size_bytes() / bytes);
  core::Buffer x(DType::kBF16, Shape{n, p.in});
  core::Buffer y(DType::kBF16, Shape{n, p.out});
  for (int64_t i = 0; i < n * p.in; ++i)
    x.view().ptr<core::BFloat16>()[i] = core::to_bf16(static_cast<float>(i % 7) - 3.0F);
  std::vector<double> seconds;
  double total = 0.0;
  for (size_t call = 0; seconds.size() < 7 || (total < 0.5 && seconds.size() < 2000); ++call) {
    void* const data = static_cast<char*>(memory.data()) + call % copies * bytes;
    const ops::LinearWeight weights[] = {make_weight(format, data, p)};
    const TensorView outputs[] = {y.view()};
    const base::Stopwatch watch;
    ops::linear(context, x.view(), weights, outputs);
    seconds.push_back(watch.seconds());
    total += seconds.back();
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<long>(seconds.size() / 2),
                   seconds.end());
  return seconds[seconds.size() / 2];
}

void print_projection(const ops::Context& context, const Projection& p, ops::LinearFormat format,
                      const core::Buffer& memory, double bandwidth) {
  const bool fp8 = format == ops::LinearFormat::kFp8Tensor;
  const double bytes = static_cast<double>(p.in * p.out) * (fp8 ? 1.0 : 2.0);
  double one_row = 0.0;
  for (const int64_t n : {1, 5, 64}) {
    const double seconds = time_linear(context, p, format, n, memory);
    if (n == 1) one_row = seconds;
    fmt::print(
        "{:<16} {:>5} -> {:<6} {:<5} n = {:<3} {:>10.1f} us {:>7.2f} GB/s ({:>3.0f} % of read) "
        "{:>7.1f} GFLOP/s  {:>5.2f} x n = 1\n",
        p.name, p.in, p.out, fp8 ? "fp8" : "bf16", n, seconds * 1e6, bytes / seconds * 1e-9,
        bytes / seconds * 1e-7 / bandwidth, 2e-9 * static_cast<double>(n * p.in * p.out) / seconds,
        seconds / one_row);
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
  const double bandwidth = read_bandwidth(context, memory);
  const char* const isas[] = {"reference", "avx2", "avx512"};
  fmt::print("{} threads, {}, read {:.1f} GB/s\n", pool.num_threads(),
             isas[static_cast<size_t>(ops::cpu::isa())], bandwidth);
  for (const auto format : {ops::LinearFormat::kBF16, ops::LinearFormat::kFp8Tensor}) {
    for (const Projection& p : kDemo) print_projection(context, p, format, memory, bandwidth);
    for (const Projection& p : kTwelve) print_projection(context, p, format, memory, bandwidth);
  }
  fmt::print("read again {:.1f} GB/s\n", read_bandwidth(context, memory));
  return 0;
}
