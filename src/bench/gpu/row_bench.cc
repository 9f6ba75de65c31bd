// The kernels between the products, and the ends of a round, at a model's shapes. A kernel follows
// itself; an empty row, 32 wide, is the floor.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/gpu/kernel_bench.h"
#include "ops/cuda/draw.h"
#include "ops/cuda/head.h"
#include "ops/cuda/row_facts.h"
#include "ops/cuda/row_ops.h"
#include "ops/cuda/wide_rows.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;
using ops::cuda::DeviceBuffer;
using ops::cuda::Partials;
using ops::cuda::Stream;

constexpr int kMaxRows = 64;  // of a head
constexpr int kLaunches = 200;

// Gemma's own defaults, of one sequence.
DeviceBuffer default_rules() {
  ops::cuda::DrawRules rules;
  rules.temperature = 1.0;
  rules.top_p = 0.95;
  rules.min_p_depth = -std::numeric_limits<double>::infinity();
  rules.top_k = 64;
  DeviceBuffer buffer(sizeof(rules));
  TANDEM_CUDA_CHECK(cudaMemcpy(buffer.data(), &rules, sizeof(rules), cudaMemcpyHostToDevice));
  return buffer;
}

// Random sums, one buffer for all: a normal spread of 4, as logits have.
DeviceBuffer random_sums(int64_t vocab_size) {
  DeviceBuffer buffer(static_cast<size_t>(vocab_size) * kMaxRows * 2 * sizeof(float));
  std::vector<float> values(buffer.size_bytes() / sizeof(float));
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
      cudaMemcpy(buffer.data(), values.data(), buffer.size_bytes(), cudaMemcpyHostToDevice));
  return buffer;
}

class RowBench {
 public:
  RowBench(const GpuFacts& facts, const GpuModel& model, const std::string& only,
           ordered_json& results)
      : facts_(facts),
        prefix_(model.prefix),
        only_(only),
        results_(results),
        is_target_(model.config.kind == io::ModelKind::kTarget),
        hidden_(static_cast<int>(model.config.text.hidden_size)),
        backbone_(static_cast<int>(is_target_ ? hidden_ : model.config.backbone_hidden_size)),
        intermediate_(static_cast<int>(model.config.text.intermediate_size)),
        vocab_(static_cast<int>(model.config.text.vocab_size)),
        sums_(random_sums(vocab_)) {
    for (const io::LayerConfig& layer : model.config.text.layers)
      q_dim_ = std::max(q_dim_, model.config.text.num_attention_heads * layer.head_dim);
  }

  void layer(int rows) {
    start("floor: 32 wide", rows, 32, 32);
    residual("residual_norm o", rows, q_dim_);
    residual("residual_norm down", rows, intermediate_);
    const Partials gate_up = sums(hidden_, 2 * int64_t{intermediate_}, rows);
    add("gelu_operand", rows, partial_bytes(gate_up, 2 * int64_t{intermediate_}, rows),
        [&](const Stream& stream) {
          ops::cuda::gelu_operand(stream,
                                  {rows, intermediate_, gate_up, 0.01F, 0.01F, operand(rows)});
        });
    if (is_target_)
      add("embed_norm", rows, 2.0 * rows * hidden_, [&](const Stream& stream) {
        ops::cuda::embed_norm(
            stream, {rows, hidden_, tokens_.as<int32_t>(), table(), x_.as<uint16_t>(), next(rows)});
      });
    if (is_target_) return;
    start("start_layer", rows, 2 * int64_t{backbone_}, hidden_);
    assistant_input(rows);
  }

  // The norms between the products of a prompt.
  void prompt_layer(int rows) {
    if (!wanted(prefix_ + "wide_residual", only_)) return;
    const auto capacity = static_cast<int>(ops::cuda::whole_wide_tiles(rows));
    const int64_t bytes = int64_t{rows} * hidden_ * 2;
    const DeviceBuffer y = zeros(bytes);
    const DeviceBuffer x = zeros(bytes);
    const DeviceBuffer operand = zeros(ops::cuda::wide_operand_bytes(hidden_, capacity));
    const ops::cuda::WideNorm next = {
        weight_.as<uint16_t>(), 1e-6F, {operand.as<uint8_t>(), capacity, 0.03F}, nullptr};
    add("wide_residual", rows, 2.0 * static_cast<double>(bytes), [&](const Stream& stream) {
      ops::cuda::wide_residual(stream, {rows, hidden_, y.as<uint16_t>(), weight_.as<uint16_t>(),
                                        1e-6F, 0.7F, x.as<uint16_t>(), next});
    });
  }

  void head(int rows) {
    ops::cuda::HeadLogits head;
    head.num_rows = rows;
    head.vocab_size = vocab_;
    head.suppressed = tokens_.as<int32_t>();
    head.num_suppressed = 2;
    head.cap = is_target_ ? 30.0F : 0.0F;
    head.sums = sums(hidden_, vocab_, (rows + 7) / 8 * 8);
    const double bytes = partial_bytes(head.sums, vocab_, rows);
    add("argmax", rows, bytes, [&](const Stream& stream) {
      ops::cuda::argmax_rows(stream, head, argmax_scratch_.data(), indices_.as<int32_t>());
    });
    if (!is_target_) return;
    const DeviceBuffer logits = zeros(int64_t{vocab_} * rows * 4);
    add("full logits", rows, bytes, [&](const Stream& stream) {
      ops::cuda::full_logits(stream, head, nullptr, rows, logits.as<float>());
    });
    const DeviceBuffer scratch =
        zeros(static_cast<int64_t>(ops::cuda::row_facts_scratch_bytes(rows, vocab_)));
    const DeviceBuffer facts = zeros(rows * static_cast<int64_t>(sizeof(ops::cuda::RowFacts)));
    ops::cuda::full_logits({}, head, nullptr, rows, logits.as<float>());
    const auto find = [&](const Stream& stream) {
      ops::cuda::row_facts(stream,
                           {.num_rows = rows, .vocab_size = vocab_, .logits = logits.as<float>()},
                           scratch.data(), facts.as<ops::cuda::RowFacts>());
    };
    add("row facts", rows, 4.0 * vocab_ * rows, find);
    find({});
    add("draw", rows, static_cast<double>(rows) * sizeof(ops::cuda::Likeliest),
        [&](const Stream& stream) {
          ops::cuda::draw_tokens(stream, {.num_rows = rows,
                                          .likeliest = &facts.as<ops::cuda::RowFacts>()->likeliest,
                                          .stride = sizeof(ops::cuda::RowFacts),
                                          .sequences = tokens_.as<int32_t>(),
                                          .positions = tokens_.as<int32_t>(),
                                          .rules = draw_rules_.as<ops::cuda::DrawRules>(),
                                          .tokens = indices_.as<int32_t>()});
        });
  }

  void accept(int entries) {
    ops::cuda::AcceptDrafts op;
    op.num_entries = entries;
    op.hidden = hidden_;
    // Zeros: every entry has the same rows and accepts no draft, since it has none.
    op.first_rows = op.num_drafts = op.slots = op.positions = tokens_.as<int32_t>();
    op.tokens = op.chosen = tokens_.as<int32_t>();
    op.hidden_rows = x_.as<uint16_t>();
    op.states = operand_.as<uint16_t>();
    op.results = round_results_.as<ops::cuda::RoundResult>();
    add("accept_drafts", entries, 2.0 * entries * hidden_,
        [&](const Stream& stream) { ops::cuda::accept_drafts(stream, op); });
  }

 private:
  void add(const std::string& name, int rows, double bytes,
           const std::function<void(const Stream&)>& launch) {
    if (!wanted(prefix_ + name, only_)) return;
    add_kernel(results_, {{"name", prefix_ + name}, {"rows", rows}, {"bytes", bytes}}, kLaunches,
               [&](const Stream& stream, int) { launch(stream); });
  }
  void start(const char* name, int rows, int64_t in, int hidden) {
    const Partials one = sums(in, hidden, rows);
    add(name, rows, partial_bytes(one, hidden, rows), [&](const Stream& stream) {
      ops::cuda::start_layer(stream, {rows, hidden, one, 0.01F, x_.as<uint16_t>(), next(rows)});
    });
  }
  void residual(const char* name, int rows, int64_t in) {
    const Partials one = sums(in, hidden_, rows);
    add(name, rows, partial_bytes(one, hidden_, rows), [&](const Stream& stream) {
      ops::cuda::residual_norm(stream, {rows, hidden_, one, 0.01F, weight_.as<uint16_t>(), 1e-6F,
                                        1.0F, x_.as<uint16_t>(), next(rows)});
    });
  }
  void assistant_input(int rows) {
    ops::cuda::AssistantInput input;
    input.num_rows = rows;
    input.hidden = backbone_;
    input.tokens = tokens_.as<int32_t>();
    input.table = table();
    input.state_sums = sums(hidden_, backbone_, rows);
    input.operand = {operand_.as<uint16_t>(), rows / 8, 0.0F};
    add("assistant_input", rows,
        partial_bytes(input.state_sums, backbone_, rows) + 2.0 * rows * backbone_,
        [&](const Stream& stream) { ops::cuda::assistant_input(stream, input); });
  }

  Partials sums(int64_t in, int64_t out, int rows) const {
    Partials made = partials_of(facts_, in, out, rows);
    made.data = sums_.as<float>();
    const double bytes = static_cast<double>(out) * made.max_pieces * rows * sizeof(float);
    TANDEM_GPU_CHECK(bytes <= static_cast<double>(sums_.size_bytes()));
    return made;
  }
  ops::cuda::Operand operand(int rows) const { return {operand_.as<uint16_t>(), rows / 8, 0.03F}; }
  ops::cuda::NextNorm next(int rows) const {
    return {weight_.as<uint16_t>(), 1e-6F, operand(rows), nullptr};
  }
  ops::cuda::EmbedTable table() const { return {table_.as<uint8_t>(), backbone_ / 32, 62.0F}; }

  const GpuFacts& facts_;
  std::string prefix_;
  std::string only_;
  ordered_json& results_;
  bool is_target_;
  int hidden_;
  int backbone_;  // the target's hidden size
  int intermediate_;
  int vocab_;
  int64_t q_dim_ = 0;  // the widest
  DeviceBuffer sums_;
  DeviceBuffer x_ = zeros(int64_t{ops::cuda::kMaxProductRows} * backbone_ * 2);
  DeviceBuffer operand_ =
      zeros(int64_t{ops::cuda::kMaxProductRows} * std::max(intermediate_, 2 * backbone_) * 2);
  DeviceBuffer weight_ = zeros(int64_t{backbone_} * 2);
  DeviceBuffer indices_ = zeros(kMaxRows * 16 * 4);
  DeviceBuffer tokens_ = zeros(ops::cuda::kMaxProductRows * 4);
  DeviceBuffer draw_rules_ = default_rules();
  DeviceBuffer argmax_scratch_ =
      zeros(static_cast<int64_t>(ops::cuda::argmax_scratch_bytes(kMaxRows)));
  DeviceBuffer round_results_ = zeros(kMaxRows * sizeof(ops::cuda::RoundResult));
  DeviceBuffer table_ = zeros(int64_t{128} * backbone_ * 2);
};

}  // namespace

void bench_row_kernels(const GpuFacts& facts, const GpuModel& model, const std::string& only,
                       ordered_json& results) {
  RowBench bench(facts, model, only, results);
  for (const int rows : {8, 64, 96, 128, 192}) bench.layer(rows);
  for (const int rows : {1, 5, 8, 64}) bench.head(rows);
  if (model.config.kind != io::ModelKind::kTarget) return;
  for (const int rows : {512, 2048}) bench.prompt_layer(rows);
  for (const int entries : {1, 32}) bench.accept(entries);
}

}  // namespace tandem::bench
