// Times the kernels between the products, and the ends of a round, at the shapes of the 12B pair.
//
//   bench_rows               one line per kernel and number of rows
//
// A kernel follows itself in a CUDA graph, with and without dependent launch. What it reads was
// written a moment ago in a step and lies in L2 here too, so the bound is not memory: beside each
// time stand the bytes it reads. The time of an empty row, a 32-wide start_layer, is the floor.
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "bench/gpu/graph_timer.h"
#include "ops/cuda/head.h"
#include "ops/cuda/packed_linear.h"
#include "ops/cuda/row_ops.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using ops::cuda::Partials;
using ops::cuda::Stream;

constexpr int kHidden = 3840;
constexpr int kAssistantHidden = 1024;
constexpr int kIntermediate = 15360;
constexpr int kVocab = 262144;
constexpr int kMaxRows = 64;
constexpr int kLaunches = 200;

void report(const char* name, int rows, double bytes,
            const std::function<void(const Stream&)>& launch) {
  fmt::print("{:<28} {:>2} rows, reads {:>8.1f} KB |", name, rows, bytes / 1024);
  for (const bool dependent : {false, true}) {
    const double us = bench::time_graph(
                          [&](const Stream& stream) {
                            for (int i = 0; i < kLaunches; ++i) launch(stream);
                          },
                          dependent) /
                      kLaunches;
    fmt::print(" {} {:>6.2f} us", dependent ? "dependent" : "independent", us);
  }
  fmt::print("\n");
  std::fflush(stdout);
}

// Random sums, one buffer for all: a normal spread of 4, as logits have.
class Sums {
 public:
  Sums() : data_(size_t{kVocab} * kMaxRows * 2 * sizeof(float)) {
    std::vector<float> values(data_.size_bytes() / sizeof(float));
    uint32_t state = 1;
    for (float& value : values) {
      float sum = 0.0F;
      for (int i = 0; i < 4; ++i) {
        state = state * 1664525U + 1013904223U;
        sum += static_cast<float>(state >> 8) * 0x1p-24F - 0.5F;
      }
      value = 7.0F * sum;
    }
    TANDEM_CUDA_CHECK(
        cudaMemcpy(data_.data(), values.data(), data_.size_bytes(), cudaMemcpyHostToDevice));
  }
  // Of a product in -> out, cut as packed_linear.h cuts it.
  Partials of(int in, int out, int rows, int multiprocessors) const {
    Partials sums;
    sums.data = data_.as<float>();
    sums.num_rows = rows;
    sums.set_blocks = in / 32;
    const int num_sets = (out + ops::cuda::kSetColumns - 1) / ops::cuda::kSetColumns;
    sums.total_blocks = num_sets * sums.set_blocks;
    sums.num_shares = std::clamp(static_cast<int>(sums.total_blocks) / 4, 1, multiprocessors);
    for (int set = 0; set < num_sets; ++set)
      sums.max_pieces = std::max(sums.max_pieces, sums.num_pieces(set));
    const size_t floats = static_cast<size_t>(num_sets) * static_cast<size_t>(sums.max_pieces) *
                          static_cast<size_t>(rows * ops::cuda::kSetColumns);
    TANDEM_GPU_CHECK(floats * sizeof(float) <= data_.size_bytes());
    return sums;
  }

 private:
  DeviceBuffer data_;
};

double bytes_of(const Partials& sums, int columns) {
  double bytes = 0;
  for (int column = 0; column < columns; column += ops::cuda::kSetColumns)
    bytes += sums.num_pieces(column / ops::cuda::kSetColumns) * ops::cuda::kSetColumns * 4.0;
  return bytes * sums.num_rows;
}

DeviceBuffer zeros(size_t size_bytes) {
  DeviceBuffer buffer(size_bytes);
  TANDEM_CUDA_CHECK(cudaMemset(buffer.data(), 0, size_bytes));
  return buffer;
}

struct Memory {
  Sums sums;
  DeviceBuffer x = zeros(size_t{kMaxRows} * kHidden * 2);
  DeviceBuffer operand = zeros(size_t{kMaxRows} * kIntermediate * 2);
  DeviceBuffer weight = zeros(size_t{kHidden} * 2);
  DeviceBuffer indices = zeros(size_t{kMaxRows} * 16 * 4);
  DeviceBuffer tokens = zeros(size_t{kMaxRows} * 4);
  DeviceBuffer scratch = zeros(ops::cuda::top_scratch_bytes(kMaxRows, kVocab));
  DeviceBuffer argmax_scratch = zeros(ops::cuda::argmax_scratch_bytes(kMaxRows));
  DeviceBuffer results = zeros(kMaxRows * sizeof(ops::cuda::RoundResult));
  DeviceBuffer top = zeros(kMaxRows * sizeof(ops::cuda::TopTokens));
  DeviceBuffer logits = zeros(size_t{kVocab} * 8 * 4);
  DeviceBuffer table = zeros(size_t{128} * kHidden * 2);

  ops::cuda::NextNorm next(int rows) const {
    return {weight.as<uint16_t>(), 1e-6F, {operand.as<uint16_t>(), rows / 8, 0.03F}, nullptr};
  }
  ops::cuda::EmbedTable embed() const { return {table.as<uint8_t>(), kHidden / 32, 62.0F}; }
};

void bench_layer(const Memory& m, int rows, int mps) {
  const auto residual = [&](const char* name, int in, int hidden) {
    const Partials sums = m.sums.of(in, hidden, rows, mps);
    report(name, rows, bytes_of(sums, hidden), [&, sums](const Stream& stream) {
      ops::cuda::residual_norm(stream, {rows, hidden, sums, 0.01F, m.weight.as<uint16_t>(), 1e-6F,
                                        1.0F, m.x.as<uint16_t>(), m.next(rows)});
    });
  };
  const auto start = [&](const char* name, int in, int hidden) {
    const Partials sums = m.sums.of(in, hidden, rows, mps);
    report(name, rows, bytes_of(sums, hidden), [&, sums](const Stream& stream) {
      ops::cuda::start_layer(stream, {rows, hidden, sums, 0.01F, m.x.as<uint16_t>(), m.next(rows)});
    });
  };
  start("floor: 32 wide", 32, 32);
  residual("residual_norm sliding o", 4096, kHidden);
  residual("residual_norm down", kIntermediate, kHidden);
  residual("residual_norm assistant down", 8192, kAssistantHidden);
  start("start_layer", 2 * kHidden, kAssistantHidden);
  const Partials gate_up = m.sums.of(kHidden, 2 * kIntermediate, rows, mps);
  report("gelu_operand", rows, bytes_of(gate_up, 2 * kIntermediate), [&](const Stream& stream) {
    ops::cuda::gelu_operand(
        stream,
        {rows, kIntermediate, gate_up, 0.01F, 0.01F, {m.operand.as<uint16_t>(), rows / 8, 0.03F}});
  });
  report("embed_norm", rows, 2.0 * rows * kHidden, [&](const Stream& stream) {
    ops::cuda::embed_norm(stream, {rows, kHidden, m.tokens.as<int32_t>(), m.embed(),
                                   m.x.as<uint16_t>(), m.next(rows)});
  });
  ops::cuda::AssistantInput input;
  input.num_rows = rows;
  input.hidden = kHidden;
  input.tokens = m.tokens.as<int32_t>();
  input.table = m.embed();
  input.state_sums = m.sums.of(kAssistantHidden, kHidden, rows, mps);
  input.operand = {m.operand.as<uint16_t>(), rows / 8, 0.0F};
  report("assistant_input", rows, bytes_of(input.state_sums, kHidden) + 2.0 * rows * kHidden,
         [&](const Stream& stream) { ops::cuda::assistant_input(stream, input); });
}

void bench_head(const Memory& m, int rows, int mps) {
  ops::cuda::HeadLogits head;
  head.num_rows = rows;
  head.vocab_size = kVocab;
  head.suppressed = m.tokens.as<int32_t>();
  head.num_suppressed = 2;
  const auto argmax = [&](const char* name, int in, float cap, int padded) {
    head.sums = m.sums.of(in, kVocab, padded, mps);
    head.cap = cap;
    report(name, rows, bytes_of(head.sums, kVocab) * rows / padded, [&](const Stream& stream) {
      ops::cuda::argmax_rows(stream, head, m.argmax_scratch.data(), m.indices.as<int32_t>());
    });
  };
  const int padded = (rows + 7) / 8 * 8;
  argmax("argmax of the assistant", kAssistantHidden, 0.0F, padded);
  argmax("argmax of the target", kHidden, 30.0F, padded);
  const double bytes = bytes_of(head.sums, kVocab) * rows / padded;
  report("the 64 likeliest", rows, bytes, [&](const Stream& stream) {
    ops::cuda::top_rows(stream, head, m.scratch.data(), m.top.as<ops::cuda::TopTokens>());
  });
  if (rows <= 8)
    report("full logits", rows, bytes, [&](const Stream& stream) {
      ops::cuda::full_logits(stream, head, nullptr, rows, m.logits.as<float>());
    });
}

void bench_accept(const Memory& m, int entries) {
  ops::cuda::AcceptDrafts op;
  op.num_entries = entries;
  op.hidden = kHidden;
  // Zeros: every entry has the same rows and accepts no draft, since it has none.
  op.first_rows = op.num_drafts = op.slots = op.positions = m.tokens.as<int32_t>();
  op.tokens = op.chosen = m.tokens.as<int32_t>();
  op.hidden_rows = m.x.as<uint16_t>();
  op.states = m.operand.as<uint16_t>();
  op.results = m.results.as<ops::cuda::RoundResult>();
  report("accept_drafts", entries, 2.0 * entries * kHidden,
         [&](const Stream& stream) { ops::cuda::accept_drafts(stream, op); });
}

int run() {
  cudaDeviceProp properties;
  TANDEM_CUDA_CHECK(cudaGetDeviceProperties(&properties, 0));
  const int mps = properties.multiProcessorCount;
  fmt::print("{}: {} multiprocessors; {} launches in a graph, medians of 9\n",
             static_cast<const char*>(properties.name), mps, kLaunches);
  const Memory memory;
  for (const int rows : {8, 64}) bench_layer(memory, rows, mps);
  for (const int rows : {1, 5, 8, 64}) bench_head(memory, rows, mps);
  for (const int entries : {1, 32}) bench_accept(memory, entries);
  return 0;
}

}  // namespace
}  // namespace tandem

int main() {
  return tandem::run();
}
