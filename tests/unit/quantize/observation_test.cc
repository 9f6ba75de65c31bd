#include "quantize/observation.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/buffer.h"
#include "quantize/scales.h"

namespace tandem::quantize {
namespace {

using core::BFloat16;

core::Buffer rows_of(const std::vector<std::vector<float>>& rows) {
  const auto cols = static_cast<int64_t>(rows[0].size());
  core::Buffer buffer(core::DType::kBF16, {static_cast<int64_t>(rows.size()), cols});
  auto* values = static_cast<BFloat16*>(buffer.data());
  for (const auto& row : rows)
    for (const float value : row) *values++ = core::to_bf16(value);
  return buffer;
}

TEST(Observation, KeepsWhatScalesNeed) {
  CalibrationObserver observer("target", false);
  observer.on_linear_input("layers.0.mlp.down_proj", rows_of({{1, -4}, {0.5, 2}}).view());
  observer.on_linear_input("layers.0.mlp.down_proj", rows_of({{-1, 0}}).view());
  const InputObservation* input = observer.find("layers.0.mlp.down_proj");
  ASSERT_NE(input, nullptr);
  EXPECT_EQ(input->num_rows, 3);
  EXPECT_EQ(input->amax, 4);
  EXPECT_EQ(input->magnitudes[magnitude_index(core::to_bf16(1.0F))], 2U);
  EXPECT_EQ(input->magnitudes[0], 1U);
  EXPECT_EQ(input->mean_squares(), (std::vector<double>{2.25 / 3, 20.0 / 3}));
  EXPECT_TRUE(input->weighted_magnitudes.empty());
}

TEST(Observation, ProjectionsOfOneInputShareIt) {
  CalibrationObserver observer("target", false);
  const core::Buffer x = rows_of({{1, 2}});
  for (const char* name : {"q_proj", "k_proj", "v_proj"})
    observer.on_linear_input(std::string("layers.1.self_attn.") + name, x.view());
  const InputObservation* input = observer.find("layers.1.self_attn.v_proj");
  ASSERT_NE(input, nullptr);
  EXPECT_EQ(input, observer.find("layers.1.self_attn.q_proj"));
  EXPECT_EQ(input->num_rows, 1) << "counted once";
  EXPECT_EQ(observer.find("layers.1.self_attn.o_proj"), nullptr);
}

TEST(Observation, ChannelWeightsWeighTheMagnitudes) {
  CalibrationObserver observer("target", false);
  observer.set_channel_weights("layers.0.mlp.up_proj", {10, 1});
  EXPECT_EQ(observer.find("layers.0.mlp.gate_proj"), nullptr) << "no row has come";
  observer.on_linear_input("layers.0.mlp.gate_proj", rows_of({{1, -1}, {2, 1}}).view());
  const InputObservation* input = observer.find("layers.0.mlp.gate_proj");
  EXPECT_EQ(input->weighted_magnitudes[magnitude_index(core::to_bf16(1.0F))], 12);
  EXPECT_EQ(input->weighted_magnitudes[magnitude_index(core::to_bf16(2.0F))], 10);
}

TEST(Observation, Float32RowsCountLikeBFloat16) {
  CalibrationObserver observer("target", false);
  core::Buffer x(core::DType::kF32, {1, 2});
  static_cast<float*>(x.data())[0] = -3;
  static_cast<float*>(x.data())[1] = 0.25;
  observer.on_linear_input("layers.0.mlp.down_proj", x.view());
  const InputObservation* input = observer.find("layers.0.mlp.down_proj");
  EXPECT_EQ(input->amax, 3);
  EXPECT_EQ(input->magnitudes[magnitude_index(core::to_bf16(3.0F))], 1U);
}

TEST(Observation, NanIsRefusedByName) {
  CalibrationObserver observer("assistant", false);
  EXPECT_TRUE(observer.check_finite());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  observer.on_linear_input("layers.2.self_attn.o_proj", rows_of({{1, 2, nan}}).view());
  const base::Status status = observer.check_finite();
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find("assistant: layers.2.self_attn.o_proj"), std::string::npos);
  EXPECT_NE(status.error().message.find("channel 2"), std::string::npos);
}

TEST(Observation, KeysAndValues) {
  CalibrationObserver observer("target", true);
  core::Buffer k(core::DType::kBF16, {2, 1, 2});
  core::Buffer v(core::DType::kBF16, {2, 1, 2});
  for (int i = 0; i < 4; ++i) {
    static_cast<BFloat16*>(k.data())[i] = core::to_bf16(static_cast<float>(-i));
    static_cast<BFloat16*>(v.data())[i] = core::to_bf16(0.5F);
  }
  observer.on_kv(3, k.view(), v.view());
  ASSERT_NE(observer.find_kv(3), nullptr);
  EXPECT_EQ(observer.find_kv(3)->k_amax, 3);
  EXPECT_EQ(observer.find_kv(3)->v_amax, 0.5F);
  EXPECT_EQ(observer.find_kv(2), nullptr);
  static_cast<BFloat16*>(v.data())[1] = core::to_bf16(std::numeric_limits<float>::infinity());
  observer.on_kv(3, k.view(), v.view());
  EXPECT_FALSE(observer.check_finite());
}

}  // namespace
}  // namespace tandem::quantize
