// Shapes, bytes and steps of a model, on tiny checkpoints.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "bench/linear_shapes.h"
#include "bench/ops_bench.h"
#include "bench/step_bench.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::bench {
namespace {

using test_support::TempFolder;
using test_support::TinyFormat;

model::Pair load(const test_support::TinyPair& tiny, bool dummy = false) {
  model::PairOptions options;
  options.target = tiny.target;
  options.assistant = tiny.assistant;
  options.load.dummy = dummy;
  options.model.max_rows = 16;
  auto pair = model::load_pair(options);
  if (!pair) throw std::runtime_error(pair.error().message);
  return *std::move(pair);
}

// The projections of the list, as often as a forward calls them, are all weights of the model.
TEST(LinearShapesTest, AddUpToTheWeightsOfTheModel) {
  for (const TinyFormat format : {TinyFormat::kBF16, TinyFormat::kFp8, TinyFormat::kFp8Block}) {
    const TempFolder folder;
    const auto tiny = test_support::write_tiny_pair(
        folder.path(), {.layers = "ssfssf", .target_format = format, .assistant_format = format});
    const model::Pair pair = load(tiny);
    for (const io::Checkpoint* checkpoint :
         {pair.target_checkpoint.get(), pair.assistant_checkpoint.get()}) {
      const auto quantization = io::read_quantization_config(checkpoint->dir());
      ASSERT_TRUE(quantization);
      int64_t listed = 0, stored = 0;
      for (const LinearShape& shape : linear_shapes(checkpoint->config(), *quantization))
        listed += shape.num_in_model * shape.weight_bytes();
      for (const std::string& module : checkpoint->linear_modules()) {
        const core::TensorView weight = checkpoint->linear(module).weight;
        stored +=
            weight.shape.num_elements() * static_cast<int64_t>(core::dtype_bytes(weight.dtype));
      }
      const core::TensorView head = checkpoint->tensor("embed_tokens.weight");
      stored += 2 * head.shape.num_elements();
      EXPECT_EQ(listed, stored);
    }
  }
}

TEST(LinearShapesTest, TheTwelveBillionModel) {
  const std::string dir = std::string(TANDEM_SOURCE_DIR) + "/bench/configs/gemma-4-12B-it-fp8";
  const auto config = io::read_model_config(dir);
  const auto quantization = io::read_quantization_config(dir);
  ASSERT_TRUE(config && quantization);
  const auto shapes = linear_shapes(*config, *quantization);
  ASSERT_EQ(shapes.size(), 7U);
  EXPECT_EQ(shapes[0].name, "sliding qkv");
  EXPECT_EQ(shapes[0].out(), 8192);
  EXPECT_EQ(shapes[0].num_in_model, 40);
  EXPECT_EQ(shapes[2].name, "gate_up");
  EXPECT_EQ(shapes[2].weight_bytes(), 3840 * 30720);
  EXPECT_EQ(shapes[2].activation, ops::ActivationQuantization::kStatic);
  EXPECT_EQ(shapes[4].name, "full qk");
  EXPECT_EQ(shapes[4].out(), 8704);
  EXPECT_EQ(shapes.back().format, ops::LinearFormat::kBF16);
  EXPECT_EQ(shapes.back().weight_bytes(), int64_t{2} * 262144 * 3840);
}

// The bytes of docs: 10.9 GB of projections, 2.01 GB of head, 0.352 GB of keys and values.
TEST(StepBytesTest, CountWhatOnePassReads) {
  const TempFolder folder;
  const auto tiny = test_support::write_tiny_pair(folder.path(), {.layers = "ssf"});
  const model::Pair pair = load(tiny);
  const StepBytes bytes = step_bytes(pair, 100, core::DType::kBF16);
  // Two sliding layers see 8 keys of 2 heads of 16, the full one 100 keys of 1 head of 32.
  EXPECT_EQ(bytes.target_kv, 2 * 2 * (2 * 8 * 2 * 16 + 100 * 1 * 32));
  EXPECT_EQ(bytes.target_head, 97 * 64 * 2);
  EXPECT_GT(bytes.draft, 0);
  EXPECT_EQ(bytes.verify(), bytes.target_body + bytes.target_head + bytes.target_kv);
}

TEST(StepBytesTest, ScreensSparePassesOfFewRows) {
  const TempFolder folder;
  const auto tiny = test_support::write_tiny_pair(folder.path(), {.layers = "ssf"});
  model::Pair pair = load(tiny);
  const StepBytes whole = step_bytes(pair, 100, core::DType::kBF16);
  pair.screens_heads = true;
  const StepBytes screened = step_bytes(pair, 100, core::DType::kBF16);
  // Of 64 inputs of BF16, 64 bytes and two floats are left of a token.
  EXPECT_EQ(whole.verify(64) - screened.verify(64), 97 * (2 * 64 - 64 - 8));
  EXPECT_EQ(whole.verify(65), screened.verify(65));
  EXPECT_LT(screened.draft_step(64), whole.draft_step(64));
  EXPECT_EQ(screened.draft_step(65), whole.draft_step(65));
  EXPECT_EQ(whole.round(1, 4) - screened.round(1, 4),
            whole.verify() - screened.verify() + 4 * (whole.draft_step() - screened.draft_step()));
}

TEST(OpsBenchTest, EveryFormatRunsAndIsCounted) {
  for (const auto format : {ops::LinearFormat::kBF16, ops::LinearFormat::kFp8Tensor,
                            ops::LinearFormat::kFp8Channel, ops::LinearFormat::kFp8Block}) {
    const auto device = open_device("cpu", 1);
    ASSERT_TRUE(device);
    LinearShape shape{.name = "gate_up", .in = 256, .outs = {130, 70}, .format = format};
    if (format == ops::LinearFormat::kFp8Channel)
      shape.activation = ops::ActivationQuantization::kPerToken;
    const auto results = run_ops_bench(**device, {shape},
                                       {.rows = {1, 3},
                                        .timing = {.min_calls = 2, .min_seconds = 0},
                                        .arena_bytes = int64_t{1} << 20});
    ASSERT_EQ(results.size(), 2U);
    EXPECT_EQ(results[1]["rows"], 3);
    EXPECT_EQ(results[1]["calls"], 2);
    EXPECT_GT(results[1]["share_of_read"].get<double>(), 0);
    EXPECT_GT(results[1]["times_one_row"].get<double>(), 0);
    EXPECT_NE(ops_table(results).find("gate_up"), std::string::npos);
  }
  EXPECT_FALSE(open_device("tpu", 1));
}

TEST(StepBenchTest, SyntheticRoundsSaySo) {
  const TempFolder folder;
  const auto tiny = test_support::write_tiny_pair(folder.path(), {.layers = "ssf"});
  model::Pair pair = load(tiny, true);
  const auto device = open_device("cpu", 1);
  ASSERT_TRUE(device);
  StepOptions options;
  options.setup = {.context = 20, .max_rows = 5, .prefill_tokens = 10, .num_draft_tokens = 4};
  options.setup.synthetic = *speculation::SyntheticAcceptance::from_length(2.76, 4);
  options.timing = {.min_calls = 8, .min_seconds = 0};
  options.turns = 3;
  const auto model = make_cpu_step(**device, pair, options.setup, core::DType::kBF16);
  const auto result = run_step_bench([&] { return (*device)->read_bandwidth(); }, *model,
                                     step_bytes(pair, 20, core::DType::kBF16), options);
  EXPECT_EQ(result["acceptance"], "synthetic");
  EXPECT_EQ(result["verify"].size(), 5U);
  ASSERT_EQ(result["rounds"].size(), 5U);
  EXPECT_EQ(result["rounds"][0]["mean_length"], 1);
  EXPECT_EQ(result["rounds"][0]["times_plain"], 1);
  EXPECT_GT(result["rounds"][4]["times_plain"].get<double>(), 0);
  EXPECT_EQ(result["rounds"][4]["calls"], 9);  // three in each turn
  EXPECT_EQ(result["prefill"]["calls"], 9);
  EXPECT_NEAR(result["rounds"][4]["mean_length"].get<double>(), 2.76, 1e-9);
  EXPECT_EQ(result["rounds"][4]["acceptance"], "synthetic");
  EXPECT_NE(step_table(result).find("(synthetic)"), std::string::npos);
  // Two drafts are certain to be accepted up to the first, most of the time two: never fewer than
  // two tokens come out of a round.
  RoundCounts counts;
  const auto seconds = model->round(options.timing, 4, counts);
  EXPECT_GE(counts.num_tokens, static_cast<int64_t>(2 * seconds.size()));
  EXPECT_LE(counts.num_tokens, static_cast<int64_t>(3 * seconds.size()));
}

}  // namespace
}  // namespace tandem::bench
