// Times ops::linear beside the read bandwidth of the same moments. One projection of one model at a
// time: copies of its weight are used in turn, as many as the model has bytes of weights, so that a
// weight comes from where it comes from in the model: memory for the 12B, a large cache for the
// demo pair. --places says what kind of memory: large pages, small ones, or a mapped file, as a
// checkpoint is. Round by round, reading memory and the variants (instruction sets, numbers of
// rows) take turns of some milliseconds; a variant's share of the bandwidth is the median over the
// rounds of its own speed over that of the readings just before and after it. So what else the
// machine does meets both sides of a ratio alike. One thread is timed by its own CPU clock, which a
// busy machine does not stretch; several threads by the wall clock.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "core/buffer.h"
#include "ops/cpu/isa.h"
#include "ops/linear.h"
#include "ops/parallel.h"

namespace tandem {
namespace {

using core::DType;
using core::Shape;
using core::TensorView;
using nlohmann::json;
using ops::cpu::Isa;

struct Options {
  int threads = 0;
  std::vector<std::string> isas = {"auto"};
  std::vector<std::string> formats = {"bf16", "fp8"};
  std::vector<std::string> places = {"large-pages"};
  std::vector<int64_t> rows = {1, 5, 16, 64};
  std::string only;
  int rounds = 20;
  double seconds = 0.005;
  size_t memory_mib = 1024;
  std::string commit;
  std::string json_file;
};

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
constexpr size_t kLargeBytes = size_t{1} << 40;
constexpr Projection kProjections[] = {{"demo gate", 256, 1024, kDemoBytes},
                                       {"demo down", 1024, 256, kDemoBytes},
                                       {"demo q", 256, 256, kDemoBytes},
                                       {"demo head", 256, 4096, kDemoBytes},
                                       {"12B gate", 3840, 15360, kLargeBytes},
                                       {"12B down", 15360, 3840, kLargeBytes},
                                       {"12B sliding q", 3840, 4096, kLargeBytes},
                                       {"12B sliding o", 4096, 3840, kLargeBytes},
                                       {"12B global o", 8192, 3840, kLargeBytes},
                                       {"12B draft gate", 1024, 8192, kLargeBytes},
                                       {"12B draft down", 8192, 1024, kLargeBytes},
                                       {"12B draft head", 1024, 262144, kLargeBytes}};

__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t sum_of(const uint64_t* words,
                                                                             int64_t count) {
  uint64_t sums[64] = {};
  for (int64_t i = 0; i < count; i += 64)
    for (int64_t lane = 0; lane < 64; ++lane) sums[lane] += words[i + lane];
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

// Bytes of 0x3c, small finite BF16 and E4M3, in one kind of memory.
class Place {
 public:
  Place(const std::string& name, size_t bytes) : name_(name), bytes_(bytes) {
    if (name == "file") {
      map_file();
    } else if (name == "small-pages") {
      data_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      TANDEM_CHECK(data_ != MAP_FAILED);
      ::madvise(data_, bytes, MADV_NOHUGEPAGE);
      std::memset(data_, kByte, bytes);
    } else {
      large_ = core::Buffer(DType::kU8, Shape{static_cast<int64_t>(bytes)});
      large_.fill_bytes(kByte);
      data_ = large_.data();
    }
  }
  ~Place() {
    if (large_.empty()) ::munmap(data_, offset_ + bytes_);
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  const std::string& name() const { return name_; }
  size_t size_bytes() const { return bytes_; }
  char* data() const { return static_cast<char*>(data_) + offset_; }

 private:
  static constexpr uint8_t kByte = 0x3c;

  // The tensors of a checkpoint begin at any multiple of eight bytes.
  void map_file() {
    constexpr size_t kHeader = 40;
    bytes_ -= kHeader;
    offset_ = kHeader;

    std::FILE* const file = std::tmpfile();
    TANDEM_CHECK(file != nullptr);
    const std::vector<char> piece(size_t{1} << 20, static_cast<char>(kByte));
    for (size_t done = 0; done < offset_ + bytes_; done += piece.size())
      TANDEM_CHECK_EQ(std::fwrite(piece.data(), 1, piece.size(), file), piece.size());
    std::fflush(file);
    data_ =
        ::mmap(nullptr, offset_ + bytes_, PROT_READ, MAP_SHARED | MAP_POPULATE, ::fileno(file), 0);
    TANDEM_CHECK(data_ != MAP_FAILED);
    std::fclose(file);
  }

  std::string name_;
  size_t bytes_;
  core::Buffer large_;
  void* data_ = nullptr;
  size_t offset_ = 0;
};

// Reads memory piece by piece, the next one at every call.
class Reader {
 public:
  Reader(const ops::Context& context, const Place& memory) : context_(context), memory_(memory) {}

  // GB/s of adding up some milliseconds' worth.
  double read() {
    constexpr int64_t kTurn = 1 << 23;   // words
    constexpr int64_t kPiece = 1 << 15;  // that one thread takes at a time
    if ((next_ + kTurn) * static_cast<int64_t>(sizeof(uint64_t)) >
        static_cast<int64_t>(memory_.size_bytes()))
      next_ = 0;
    const uint64_t* const words = reinterpret_cast<const uint64_t*>(memory_.data()) + next_;
    next_ += kTurn;
    const Watch watch(context_);
    ops::parallel_for(context_, kTurn / kPiece, 1, [&](int64_t begin, int64_t end) {
      volatile uint64_t sink = sum_of(words + begin * kPiece, (end - begin) * kPiece);
      (void)sink;
    });
    return static_cast<double>(kTurn) * sizeof(uint64_t) / watch.seconds() * 1e-9;
  }

 private:
  const ops::Context& context_;
  const Place& memory_;
  int64_t next_ = 0;
};

ops::LinearWeight make_weight(bool fp8, void* data, const Projection& p) {
  ops::LinearWeight weight;
  weight.format = fp8 ? ops::LinearFormat::kFp8Tensor : ops::LinearFormat::kBF16;
  weight.activation =
      fp8 ? ops::ActivationQuantization::kStatic : ops::ActivationQuantization::kNone;
  weight.weight = TensorView(data, fp8 ? DType::kF8E4M3 : DType::kBF16, Shape{p.out, p.in});
  return weight;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// One instruction set, place of the weights and number of rows.
class Variant {
 public:
  Variant(Isa isa, const Place& place, int64_t rows, const Projection& p)
      : isa_(isa),
        place_(place),
        x_(DType::kBF16, Shape{rows, p.in}),
        y_(DType::kBF16, Shape{rows, p.out}) {
    for (int64_t i = 0; i < rows * p.in; ++i)
      x_.view().ptr<core::BFloat16>()[i] = core::to_bf16(static_cast<float>(i % 7) - 3.0F);
  }

  Isa isa() const { return isa_; }
  const std::string& place() const { return place_.name(); }
  int64_t rows() const { return x_.view().rows(); }

  // The median seconds of some calls, on copies of the weight taken in turn.
  double time(const ops::Context& context, const Projection& p, bool fp8, double wanted_seconds) {
    const ops::cpu::ScopedIsa scope(isa_);
    const size_t bytes = static_cast<size_t>(p.in * p.out) * (fp8 ? 1U : 2U);
    const size_t copies = std::max<size_t>(1, std::min(place_.size_bytes(), p.model_bytes) / bytes);
    std::vector<double> seconds;
    const Watch all(context);
    for (size_t call = 0; call < 2 || all.seconds() < wanted_seconds; ++call, ++next_) {
      void* const data = place_.data() + next_ % copies * bytes;
      const ops::LinearWeight weights[] = {make_weight(fp8, data, p)};
      const TensorView outputs[] = {y_.view()};
      const Watch watch(context);
      ops::linear(context, x_.view(), weights, outputs);
      if (call > 0) seconds.push_back(watch.seconds());
    }
    return median(std::move(seconds));
  }

 private:
  Isa isa_;
  const Place& place_;
  core::Buffer x_;  // [rows, in] bf16
  core::Buffer y_;  // [rows, out] bf16
  size_t next_ = 0;
};

// By round.
struct Times {
  std::vector<double> seconds;
  std::vector<double> shares;         // of the bandwidth of the same moments
  std::vector<double> times_one_row;  // beside the first variant of the instruction set
};

json result_of(const Projection& p, const Variant& variant, const Times& times) {
  const double seconds = median(times.seconds);
  const double best = *std::min_element(times.seconds.begin(), times.seconds.end());
  const double flops = 2.0 * static_cast<double>(variant.rows() * p.in * p.out);
  return {{"isa", ops::cpu::isa_name(variant.isa())},
          {"weights", variant.place()},
          {"rows", variant.rows()},
          {"us_median", seconds * 1e6},
          {"us_best", best * 1e6},
          {"share_of_read_bandwidth", median(times.shares)},
          {"gflop_per_s", flops / seconds * 1e-9},
          {"times_of_first", median(times.times_one_row)}};
}

void print(const json& result) {
  fmt::print(
      "  {:<12} {:<11} n = {:<4} {:>10.1f} us (best {:>10.1f}) {:>3.0f} % of read {:>7.1f} "
      "GFLOP/s {:>6.2f} x\n",
      result["isa"].get<std::string>(), result["weights"].get<std::string>(),
      result["rows"].get<int64_t>(), result["us_median"].get<double>(),
      result["us_best"].get<double>(), result["share_of_read_bandwidth"].get<double>() * 100,
      result["gflop_per_s"].get<double>(), result["times_of_first"].get<double>());
}

json measure(const ops::Context& context, const Projection& p, bool fp8, const Options& options,
             std::span<const std::unique_ptr<Place>> places) {
  std::vector<Variant> variants;
  for (const std::string& name : options.isas)
    for (const auto& place : places)
      for (const int64_t rows : options.rows)
        variants.emplace_back(*ops::cpu::parse_isa(name), *place, rows, p);
  const double gigabytes = static_cast<double>(p.in * p.out) * (fp8 ? 1e-9 : 2e-9);
  Reader reader(context, *places.front());
  std::vector<double> readings;
  std::vector<Times> times(variants.size());
  for (int round = 0; round < options.rounds; ++round) {
    std::map<Isa, double> first;
    readings.push_back(reader.read());
    for (size_t i = 0; i < variants.size(); ++i) {
      const double seconds = variants[i].time(context, p, fp8, options.seconds);
      const double before = readings.back();
      readings.push_back(reader.read());
      // Seconds per byte are what adds up.
      const double reading = gigabytes * (1 / before + 1 / readings.back()) / 2;
      times[i].seconds.push_back(seconds);
      times[i].shares.push_back(reading / seconds);
      first.try_emplace(variants[i].isa(), seconds);
      times[i].times_one_row.push_back(seconds / first[variants[i].isa()]);
    }
  }
  fmt::print("{} {} -> {} {}: {:.2f} MB, reading memory {:.1f} GB/s\n", p.name, p.in, p.out,
             fp8 ? "fp8" : "bf16", gigabytes * 1e3, median(readings));
  json results = json::array();
  for (size_t i = 0; i < variants.size(); ++i) {
    results.push_back(result_of(p, variants[i], times[i]));
    print(results.back());
  }
  std::fflush(stdout);
  return {{"projection", p.name},
          {"in", p.in},
          {"out", p.out},
          {"format", fp8 ? "fp8 static" : "bf16"},
          {"read_bandwidth_gb_per_s", median(readings)},
          {"results", results}};
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown";
}

json load_average() {
  double loads[3] = {};
  getloadavg(loads, 3);
  return {loads[0], loads[1], loads[2]};
}

int run(const Options& options) {
  for (const std::string& name : options.isas)
    if (const auto isa = ops::cpu::parse_isa(name); !isa) {
      fmt::print(stderr, "--isas: {}\n", isa.error().message);
      return 2;
    }
  core::ThreadPool pool(options.threads);
  const ops::Context context{ops::Backend::kCpu, &pool};
  // More than the last-level cache of most machines.
  std::vector<std::unique_ptr<Place>> places;
  for (const std::string& name : options.places)
    places.push_back(std::make_unique<Place>(name, options.memory_mib << 20));
  const char* const clock = pool.num_threads() == 1 ? "CPU" : "wall";
  fmt::print("{} threads ({} clock), {}\n", pool.num_threads(), clock, options.isas);
  json report = {{"what", "ops::linear, one projection at a time"},
                 {"cpu", cpu_name()},
                 {"commit", options.commit},
                 {"threads", pool.num_threads()},
                 {"clock", clock},
                 {"rounds", options.rounds},
                 {"memory_mib", options.memory_mib},
                 {"load_average_before", load_average()},
                 {"projections", json::array()}};
  for (const std::string& format : options.formats)
    for (const Projection& p : kProjections)
      if (std::string_view(p.name).find(options.only) != std::string_view::npos)
        report["projections"].push_back(measure(context, p, format == "fp8", options, places));
  report["load_average_after"] = load_average();
  if (!options.json_file.empty()) std::ofstream(options.json_file) << report.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  tandem::Options options;
  CLI::App app("times ops::linear beside the read bandwidth");
  app.add_option("--threads", options.threads, "0: all cores")->check(CLI::Range(0, 1024));
  app.add_option("--isas", options.isas, "auto, avx2, avx512, amx, ...")->delimiter(',');
  app.add_option("--formats", options.formats)
      ->delimiter(',')
      ->check(CLI::IsMember({"bf16", "fp8"}));
  app.add_option("--places", options.places, "of the weights; memory is read in the first")
      ->delimiter(',')
      ->check(CLI::IsMember({"large-pages", "small-pages", "file"}));
  app.add_option("--rows", options.rows)->delimiter(',')->check(CLI::Range(1, 4096));
  app.add_option("--only", options.only, "projections whose name holds this: 12B, demo, gate, ...");
  app.add_option("--rounds", options.rounds)->check(CLI::Range(1, 1000));
  app.add_option("--seconds", options.seconds, "of each variant in each round, at least");
  app.add_option("--memory-mib", options.memory_mib)->check(CLI::Range(128, 1 << 17));
  app.add_option("--commit", options.commit, "for the report");
  app.add_option("--json", options.json_file, "report as JSON");
  CLI11_PARSE(app, argc, argv);
  return tandem::run(options);
}
