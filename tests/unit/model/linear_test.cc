// Linear hides precision: each arithmetic against plain loops over the stored bytes.
#include "model/linear.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/e4m3.h"
#include "core/fp16.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::model {
namespace {

constexpr int64_t kRows = 3;
const std::vector<std::string> kQkv = {"layers.0.self_attn.q_proj", "layers.0.self_attn.k_proj",
                                       "layers.0.self_attn.v_proj"};

class LinearArithmetic : public ::testing::Test {
 protected:
  void SetUp() override {
    test_support::TinyOptions tiny;
    tiny.target_format = test_support::TinyFormat::kFp8;
    auto made = test_support::make_tiny_target(tiny);
    // Scales that differ between shards, so that merging them changes something.
    const float weight_scales[] = {0.0021F, 0.0007F, 0.0012F};
    const float input_scales[] = {0.011F, 0.013F, 0.012F};
    for (size_t i = 0; i < kQkv.size(); ++i) {
      const std::string prefix = "model.language_model." + kQkv[i];
      made.set_scalar(prefix + ".weight_scale", weight_scales[i]);
      made.set_scalar(prefix + ".input_scale", input_scales[i]);
    }
    made.write(folder_.path());
    auto opened = io::Checkpoint::open(folder_.path());
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    checkpoint_ = std::make_unique<io::Checkpoint>(std::move(*opened));
    const int64_t in = checkpoint_->config().text.hidden_size;
    x_ = core::Buffer(core::DType::kF32, {kRows, in});
    for (int64_t i = 0; i < kRows * in; ++i)
      x_.view().ptr<float>()[i] = std::sin(0.37F * static_cast<float>(i)) * 3.0F;
  }

  // outputs[i] as rows of floats, in FP32.
  std::vector<std::vector<float>> run(Fp8Arithmetic arithmetic) {
    ModelOptions options;
    options.compute = Compute::kFloat32;
    options.fp8 = arithmetic;
    const Linear linear(*checkpoint_, kQkv, options);
    std::vector<core::Buffer> buffers;
    std::vector<core::TensorView> outputs;
    for (size_t i = 0; i < kQkv.size(); ++i) {
      buffers.emplace_back(core::DType::kF32, core::Shape{kRows, linear.out_features(i)});
      outputs.push_back(buffers.back().view());
    }
    linear.forward(ops::Context{}, x_.view(), outputs, nullptr);
    std::vector<std::vector<float>> values;
    for (const core::TensorView& output : outputs)
      values.emplace_back(output.ptr<float>(), output.ptr<float>() + output.shape.num_elements());
    return values;
  }

  // Plain loops in double: weight(i, byte) and input(i, x) are the values that are multiplied.
  template <typename Weight, typename Input>
  void expect(const std::vector<std::vector<float>>& got, Weight weight, Input input) {
    for (size_t i = 0; i < kQkv.size(); ++i) {
      const core::TensorView stored = checkpoint_->linear(kQkv[i]).weight;
      const auto* bytes = static_cast<const uint8_t*>(stored.data);
      const int64_t in = stored.shape[1];
      for (int64_t row = 0; row < kRows; ++row)
        for (int64_t out = 0; out < stored.shape[0]; ++out) {
          double sum = 0;
          double size = 0;
          for (int64_t j = 0; j < in; ++j) {
            const double product = static_cast<double>(weight(i, bytes[out * in + j])) *
                                   static_cast<double>(input(i, x_.view().row<float>(row)[j]));
            sum += product;
            size += std::abs(product);
          }
          // FP32 sums of `in` terms: each addition may be off by 2^-24 of what was added up so far.
          const double bound = size * static_cast<double>(in) * 0x1p-24;
          ASSERT_NEAR(got[i][static_cast<size_t>(row * stored.shape[0] + out)], sum, bound)
              << kQkv[i] << " row " << row << " output " << out;
        }
    }
  }

  float weight_scale(size_t i) { return checkpoint_->linear(kQkv[i]).weight_scale; }
  float input_scale(size_t i) { return checkpoint_->linear(kQkv[i]).input_scale; }

  test_support::TempFolder folder_;
  std::unique_ptr<io::Checkpoint> checkpoint_;
  core::Buffer x_;
};

float quantized(float x, float scale) {
  return core::e4m3_to_float(core::float_to_e4m3(x / scale)) * scale;
}

TEST_F(LinearArithmetic, StaticScalesPerShard) {
  expect(
      run(Fp8Arithmetic::kCheckpoint),
      [&](size_t i, uint8_t byte) { return core::e4m3_to_float(byte) * weight_scale(i); },
      [&](size_t i, float x) { return quantized(x, input_scale(i)); });
}

TEST_F(LinearArithmetic, WeightOnlyIgnoresInputScales) {
  expect(
      run(Fp8Arithmetic::kWeightOnly),
      [&](size_t i, uint8_t byte) { return core::e4m3_to_float(byte) * weight_scale(i); },
      [](size_t, float x) { return x; });
}

TEST_F(LinearArithmetic, VllmParityMergesShards) {
  const float largest = std::max({weight_scale(0), weight_scale(1), weight_scale(2)});
  const float input = std::max({input_scale(0), input_scale(1), input_scale(2)});
  expect(
      run(Fp8Arithmetic::kVllmParity),
      [&](size_t i, uint8_t byte) {
        if (weight_scale(i) == largest) return core::e4m3_to_float(byte) * largest;
        const float half = core::round_to_fp16(core::e4m3_to_float(byte) * weight_scale(i));
        return quantized(half, largest);
      },
      [&](size_t, float x) { return quantized(x, input); });
  EXPECT_NE(run(Fp8Arithmetic::kVllmParity), run(Fp8Arithmetic::kCheckpoint));
}

// Counts what an observer is told.
class Recorder : public Observer {
 public:
  void on_linear_input(std::string_view module, const core::TensorView& x) override {
    modules.emplace_back(module);
    rows = x.rows();
  }
  std::vector<std::string> modules;
  int64_t rows = 0;
};

TEST_F(LinearArithmetic, TheObserverSeesEveryProjection) {
  const Linear linear(*checkpoint_, kQkv, ModelOptions{});
  std::vector<core::Buffer> buffers;
  std::vector<core::TensorView> outputs;
  for (size_t i = 0; i < kQkv.size(); ++i) {
    buffers.emplace_back(core::DType::kF32, core::Shape{kRows, linear.out_features(i)});
    outputs.push_back(buffers.back().view());
  }
  Recorder recorder;
  linear.forward(ops::Context{}, x_.view(), outputs, &recorder);
  EXPECT_EQ(recorder.modules, kQkv);
  EXPECT_EQ(recorder.rows, kRows);
}

}  // namespace
}  // namespace tandem::model
