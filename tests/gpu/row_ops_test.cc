// The kernels between products against ops/reference, and the bits of a row in every company.
// Sums and single products are compared bit for bit; what follows a norm by one step of BF16.
#include "ops/cuda/row_ops.h"

#include "ops/activation.h"
#include "ops/cuda/packed_linear.h"
#include "ops/rms_norm.h"
#include "tests/gpu/row_support.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using tests::bf16_step;
using tests::Bf16Rows;
using tests::HostSums;
using tests::norm_of;
using tests::TestOperand;

// Large enough to be missed, and two of them, so that they cannot stand for each other.
constexpr float kPostEps = 0.02F;
constexpr float kNextEps = 0.07F;
const ops::Context kReference{ops::Backend::kReference, nullptr};

Bf16Rows weights(int count, uint32_t seed) {
  return tests::random_bf16(static_cast<size_t>(count), seed);
}

core::TensorView vector_view(Bf16Rows& values) {
  return core::TensorView(values.data(), core::DType::kBF16,
                          core::Shape{static_cast<int64_t>(values.size())});
}

// The norm that follows a residual, with everything it can write.
struct NextResults {
  NextResults(int num_rows, int hidden, float input_scale, Bf16Rows norm_weight)
      : rows(num_rows),
        columns(hidden),
        weight(std::move(norm_weight)),
        weight_device(tests::to_device(weight)),
        normed_device(tests::poisoned(static_cast<size_t>(num_rows * hidden) * 2)),
        operand(num_rows, hidden, input_scale) {}

  ops::cuda::NextNorm view() const {
    return {weight_device.as<uint16_t>(), kNextEps, operand.view(), normed_device.as<uint16_t>()};
  }
  void read() {
    normed = tests::to_host<core::BFloat16>(normed_device, static_cast<size_t>(rows * columns));
    operand.read();
  }
  // x as the device has it, so that the steps before add nothing to the tolerance.
  void expect_norm_of(const Bf16Rows& x) {
    const Bf16Rows expected = norm_of(x, weight, kNextEps);
    tests::expect_rows("norm", expected, normed, columns,
                       [&](size_t i) { return 1.01F * bf16_step(core::to_float(expected[i])); });
    operand.expect("operand", normed, rows, columns);
  }

  int rows, columns;
  Bf16Rows weight;
  DeviceBuffer weight_device, normed_device;
  TestOperand operand;
  Bf16Rows normed;
};

struct Case {
  int hidden;
  int num_rows;
  int set_blocks;
  int num_shares;
  float input_scale;  // 0: BF16
  float layer_scalar;
};

std::string name_of(const testing::TestParamInfo<Case>& info) {
  return std::to_string(info.param.hidden) + "_rows_" + std::to_string(info.param.num_rows) +
         "_shares_" + std::to_string(info.param.num_shares);
}

class RowOps : public testing::TestWithParam<Case> {
 protected:
  RowOps()
      : hidden_(GetParam().hidden),
        rows_(GetParam().num_rows),
        sums_((rows_ + 7) / 8 * 8, hidden_, GetParam().set_blocks, GetParam().num_shares) {
    sums_.fill_normal(1, 0.7F, rows_);
  }
  size_t count() const { return static_cast<size_t>(rows_ * hidden_); }

  int hidden_, rows_;
  HostSums sums_;
};

TEST_P(RowOps, ResidualNormIsThatOfTheReference) {
  const Case& c = GetParam();
  constexpr float kScale = 0.83F;
  Bf16Rows x = tests::random_bf16(count(), 2, 2.0F);
  Bf16Rows post = weights(hidden_, 3);
  const auto x_device = tests::to_device(x);
  const auto post_device = tests::to_device(post);
  NextResults next(rows_, hidden_, c.input_scale, weights(hidden_, 4));
  ops::cuda::residual_norm({}, {rows_, hidden_, sums_.upload(), kScale, post_device.as<uint16_t>(),
                                kPostEps, c.layer_scalar, x_device.as<uint16_t>(), next.view()});
  tests::synchronize();
  next.read();
  const auto got = tests::to_host<core::BFloat16>(x_device, count());

  Bf16Rows y = sums_.bf16(rows_, 0, hidden_, kScale);
  const Bf16Rows branch = norm_of(y, post, kPostEps);
  const Bf16Rows before = x;
  ops::add_rms_norm(kReference, tests::matrix(y, hidden_), vector_view(post), kPostEps,
                    c.layer_scalar, tests::matrix(x, hidden_));
  // One step of the norm moves the sum by as much; then the sum and the product round.
  tests::expect_rows("residual", x, got, hidden_, [&](size_t i) {
    const float sum = std::fabs(core::to_float(before[i])) + std::fabs(core::to_float(branch[i]));
    return 1.01F * (bf16_step(core::to_float(branch[i])) + bf16_step(sum)) * c.layer_scalar +
           bf16_step(core::to_float(x[i]));
  });
  next.expect_norm_of(got);
}

TEST_P(RowOps, ResidualNormWritesWhatIsAskedFor) {
  const Case& c = GetParam();
  const Bf16Rows x = tests::random_bf16(count(), 2, 2.0F);
  const auto post = tests::to_device(weights(hidden_, 3));
  std::vector<std::vector<uint16_t>> normed, operands;
  for (const int which : {1, 2, 3}) {
    const auto x_device = tests::to_device(x);
    NextResults next(rows_, hidden_, c.input_scale, weights(hidden_, 4));
    ops::cuda::NextNorm view = next.view();
    if ((which & 1) == 0) view.normed = nullptr;
    if ((which & 2) == 0) view.operand = {};
    ops::cuda::residual_norm({}, {rows_, hidden_, sums_.upload(), 1.0F, post.as<uint16_t>(),
                                  kPostEps, 1.0F, x_device.as<uint16_t>(), view});
    tests::synchronize();
    next.read();
    std::vector<uint16_t> n, o;
    for (const core::BFloat16 value : next.normed) n.push_back(value.bits);
    for (int r = 0; r < rows_; ++r)
      for (int k = 0; k < hidden_; ++k) o.push_back(next.operand.bits(r, k));
    normed.push_back(n);
    operands.push_back(o);
  }
  EXPECT_TRUE(operands[0] == std::vector<uint16_t>(count(), c.input_scale > 0 ? 0xff : 0xffff));
  EXPECT_TRUE(normed[1] == std::vector<uint16_t>(count(), 0xffff));
  EXPECT_TRUE(normed[0] == normed[2]);
  EXPECT_TRUE(operands[1] == operands[2]);
}

TEST_P(RowOps, StartLayerRoundsTheSumOnce) {
  constexpr float kScale = 1.37F;
  const auto x_device = tests::poisoned(count() * 2);
  NextResults next(rows_, hidden_, GetParam().input_scale, weights(hidden_, 4));
  const ops::cuda::Partials sums = sums_.upload();
  ops::cuda::start_layer({}, {rows_, hidden_, sums, kScale, x_device.as<uint16_t>(), next.view()});
  tests::synchronize();
  next.read();
  const auto got = tests::to_host<core::BFloat16>(x_device, count());
  const int groups = ops::cuda::piece_groups(sums, hidden_);
  EXPECT_EQ(groups, sums.max_pieces > 8 && hidden_ <= 2048 ? 4 : 1);
  tests::expect_rows("x", sums_.bf16(rows_, 0, hidden_, kScale, groups), got, hidden_,
                     [](size_t) { return 0.0F; });
  next.expect_norm_of(got);
}

TEST_P(RowOps, StoreStateRoundsTheSumOnce) {
  constexpr float kScale = 1.37F;
  const auto states = tests::poisoned(count() * 2);
  ops::cuda::store_state({}, {rows_, hidden_, sums_.upload(), kScale, states.as<uint16_t>()});
  tests::synchronize();
  tests::expect_rows("states", sums_.bf16(rows_, 0, hidden_, kScale),
                     tests::to_host<core::BFloat16>(states, count()), hidden_,
                     [](size_t) { return 0.0F; });
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, RowOps,
    testing::Values(Case{32, 8, 4, 1, 0.0F, 1.0F}, Case{96, 5, 7, 3, 0.031F, 0.4375F},
                    Case{128, 8, 12, 132, 0.031F, 1.0F}, Case{256, 64, 40, 80, 0.0F, 0.328125F},
                    Case{1024, 16, 240, 132, 0.031F, 0.4375F}, Case{1056, 8, 3, 132, 0.031F, 1.0F},
                    Case{3840, 8, 480, 132, 0.031F, 1.0F}, Case{5376, 3, 32, 132, 0.0F, 0.4375F},
                    Case{8192, 8, 4, 132, 0.031F, 0.4375F}, Case{512, 72, 8, 4, 0.031F, 0.4375F},
                    Case{2592, 96, 81, 132, 0.0F, 0.4375F}, Case{3840, 67, 120, 132, 0.031F, 1.0F}),
    name_of);

// The last of many rows, with its neighbours and as the only row beside NaN.
void expect_bits_alone(int hidden, int num_rows) {
  HostSums many(num_rows, hidden, 480, 132);
  HostSums alone(8, hidden, 480, 132);
  many.fill_normal(1, 0.7F, num_rows);
  alone.copy_row(many, num_rows - 1, 2);
  const Bf16Rows x = tests::random_bf16(static_cast<size_t>(num_rows * hidden), 2, 2.0F);
  const Bf16Rows norm_weight = weights(hidden, 4);
  const auto post = tests::to_device(weights(hidden, 3));
  std::vector<uint16_t> bits[2];
  for (const int which : {0, 1}) {
    const int rows = which == 0 ? num_rows : 8;
    const int row = which == 0 ? num_rows - 1 : 2;
    Bf16Rows residual = x;
    if (which == 1) {
      residual.assign(static_cast<size_t>(8 * hidden), core::BFloat16{0xffff});
      std::copy(x.end() - hidden, x.end(), residual.begin() + 2 * hidden);
    }
    const auto x_device = tests::to_device(residual);
    NextResults next(rows, hidden, 0.031F, norm_weight);
    ops::cuda::residual_norm(
        {}, {rows, hidden, (which == 0 ? many : alone).upload(), 0.83F, post.as<uint16_t>(),
             kPostEps, 0.4375F, x_device.as<uint16_t>(), next.view()});
    tests::synchronize();
    next.read();
    const auto got = tests::to_host<core::BFloat16>(x_device, static_cast<size_t>(rows * hidden));
    for (int k = 0; k < hidden; ++k) {
      const auto i = static_cast<size_t>(row * hidden + k);
      bits[which].insert(bits[which].end(),
                         {got[i].bits, next.normed[i].bits, next.operand.bits(row, k)});
    }
  }
  EXPECT_TRUE(bits[0] == bits[1]) << "hidden " << hidden << ", rows " << num_rows;
}

// More than 64 rows have a kernel of their own, and more than 128 wide ones another.
TEST(RowBits, DoNotDependOnTheOtherRows) {
  for (const int hidden : {256, 2816, 3840, 5376})
    for (const int rows : {72, 128, 192}) expect_bits_alone(hidden, rows);
}

// A packed table and its values.
struct Table {
  Table(int vocab, int hidden)
      : values(tests::random_bf16(static_cast<size_t>(vocab * hidden), 9, 0.05F)),
        packed(ops::cuda::make_packed_linear(ops::cuda::PackedType::kBF16, vocab, hidden, 132)),
        columns(hidden) {
    const auto rows = tests::to_device(values);
    ops::cuda::pack_rows({}, packed, rows.data(), 0, vocab);
    tests::synchronize();
  }
  ops::cuda::EmbedTable view() const { return {packed.data.as<uint8_t>(), columns / 32, kScale}; }
  core::BFloat16 embedding(int token, int column) const {
    return core::to_bf16(core::to_float(values[static_cast<size_t>(token * columns + column)]) *
                         kScale);
  }

  static constexpr float kScale = 62.0F;
  Bf16Rows values;
  ops::cuda::PackedLinear packed;
  int columns;
};

TEST(EmbedNorm, EveryTokenHasItsRow) {
  for (const int hidden : {32, 128, 3840}) {
    SCOPED_TRACE(hidden);
    constexpr int kVocab = 300;
    const Table table(kVocab, hidden);
    std::vector<int32_t> tokens = {0, 1, 299, 127, 128, 255, 256, 17, 8, 0, 0, 0, 0, 0, 0, 0};
    const int rows = static_cast<int>(tokens.size());
    const auto tokens_device = tests::to_device(tokens);
    const auto count = static_cast<size_t>(rows * hidden);
    const auto x_device = tests::poisoned(count * 2);
    NextResults next(rows, hidden, 0.031F, weights(hidden, 4));
    ops::cuda::embed_norm({}, {rows, hidden, tokens_device.as<int32_t>(), table.view(),
                               x_device.as<uint16_t>(), next.view()});
    tests::synchronize();
    next.read();
    Bf16Rows expected;
    for (const int token : tokens)
      for (int k = 0; k < hidden; ++k) expected.push_back(table.embedding(token, k));
    const auto got = tests::to_host<core::BFloat16>(x_device, count);
    tests::expect_rows("x", expected, got, hidden, [](size_t) { return 0.0F; });
    next.expect_norm_of(got);
  }
}

// Tokens first, then the state: by slot, by row, from the sums of the step before.
TEST(AssistantInput, PutsTheEmbeddingBeforeTheState) {
  for (const int hidden : {32, 160, 3840}) {
    SCOPED_TRACE(hidden);
    constexpr int kRows = 8;
    const Table table(64, hidden);
    const std::vector<int32_t> tokens = {3, 63, 0, 17, 5, 0, 0, 0};
    const std::vector<int32_t> slots = {9, 0, 3, 3, 11, -1, -1, -1};
    const Bf16Rows states = tests::random_bf16(static_cast<size_t>(12 * hidden), 5);
    HostSums sums(kRows, hidden, 32, 132);
    sums.fill_normal(6, 1.0F, kRows);
    const auto tokens_device = tests::to_device(tokens);
    const auto slots_device = tests::to_device(slots);
    const auto states_device = tests::to_device(states);
    for (const int how : {0, 1, 2})
      for (const float input_scale : {0.0F, 0.07F}) {
        TestOperand operand(kRows, 2 * hidden, input_scale);
        ops::cuda::AssistantInput op;
        op.num_rows = kRows;
        op.hidden = hidden;
        op.tokens = tokens_device.as<int32_t>();
        op.table = table.view();
        if (how < 2) op.states = states_device.as<uint16_t>();
        if (how == 0) op.slots = slots_device.as<int32_t>();
        op.state_sums = sums.upload();
        op.state_scale = 0.61F;
        op.operand = operand.view();
        ops::cuda::assistant_input({}, op);
        tests::synchronize();
        operand.read();
        const Bf16Rows previous = sums.bf16(kRows, 0, hidden, 0.61F);
        Bf16Rows expected;
        for (int r = 0; r < kRows; ++r) {
          const int token = tokens[static_cast<size_t>(r)];
          for (int k = 0; k < hidden; ++k) expected.push_back(table.embedding(token, k));
          const int slot = how == 0 ? slots[static_cast<size_t>(r)] : r;
          for (int k = 0; k < hidden; ++k) {
            const auto at = static_cast<size_t>(std::max(slot, 0) * hidden + k);
            expected.push_back(how == 2 ? previous[at] : slot < 0 ? core::BFloat16{} : states[at]);
          }
        }
        operand.expect(how == 2   ? "sums"
                       : how == 1 ? "rows"
                                  : "slots",
                       expected, kRows, 2 * hidden);
      }
  }
}

struct GeluCase {
  int intermediate, num_rows, set_blocks;
  float input_scale;
};

// 1 + tanh loses what is small beside 1: a few FP32 steps of 1 times |gate|.
TEST(GeluOperand, IsThatOfTheReference) {
  constexpr float kGateScale = 0.9F;
  constexpr float kUpScale = 1.1F;
  for (const GeluCase& c : {GeluCase{32, 8, 4, 0.0F}, GeluCase{96, 5, 40, 0.013F},
                            GeluCase{1536, 64, 8, 0.0F}, GeluCase{15360, 8, 120, 0.013F}}) {
    SCOPED_TRACE(c.intermediate);
    const int columns = (c.intermediate + 63) / 64 * 128;
    HostSums sums((c.num_rows + 7) / 8 * 8, columns, c.set_blocks, 132);
    sums.fill_normal(8, 0.5F, c.num_rows);
    const float extremes[] = {0.0F, -0.0F, 200.0F, -200.0F, 1e30F, -1e30F, -6.0F, -3.0F};
    for (int k = 0; k < 8; ++k) {
      sums.set(1, k, extremes[k]);
      sums.set(1, 8 + k, 0.5F);
    }
    TestOperand operand(c.num_rows, c.intermediate, c.input_scale);
    ops::cuda::gelu_operand(
        {}, {c.num_rows, c.intermediate, sums.upload(), kGateScale, kUpScale, operand.view()});
    tests::synchronize();
    operand.read();
    EXPECT_TRUE(operand.guard_intact());
    // Eight features of gate, then the same eight of up.
    const Bf16Rows gate_sums = sums.bf16(c.num_rows, 0, columns, kGateScale);
    const Bf16Rows up_sums = sums.bf16(c.num_rows, 0, columns, kUpScale);
    Bf16Rows gate, up;
    for (int row = 0; row < c.num_rows; ++row)
      for (int k = 0; k < c.intermediate; ++k) {
        const auto at = static_cast<size_t>(row * columns + k / 8 * 16 + k % 8);
        gate.push_back(gate_sums[at]);
        up.push_back(up_sums[at + 8]);
      }
    Bf16Rows out(gate.size());
    ops::gelu_mul(kReference, tests::matrix(gate, c.intermediate),
                  tests::matrix(up, c.intermediate), tests::matrix(out, c.intermediate));
    int failures = 0;
    size_t different = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      const int row = static_cast<int>(i) / c.intermediate;
      const int column = static_cast<int>(i) % c.intermediate;
      const float expected = core::to_float(out[i]);
      const float u = std::fabs(core::to_float(up[i]));
      const float gelu = u == 0.0F ? 0.0F : std::fabs(expected) / u;
      const float tolerance = u * (std::fabs(core::to_float(gate[i])) * 2.5e-7F + bf16_step(gelu)) +
                              bf16_step(expected);
      const float got = operand.value(row, column);
      different += got == operand.quantized(expected) ? 0 : 1;
      if (got >= operand.quantized(expected - tolerance) &&
          got <= operand.quantized(expected + tolerance))
        continue;
      if (++failures <= 5)
        ADD_FAILURE() << "row " << row << " column " << column << ": gate "
                      << core::to_float(gate[i]) << ", up " << core::to_float(up[i])
                      << ": expected " << operand.quantized(expected) << ", got " << got;
    }
    EXPECT_EQ(failures, 0);
    EXPECT_LE(different, out.size() / 50 + 4);
  }
}

}  // namespace
}  // namespace tandem
