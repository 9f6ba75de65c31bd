#include "io/dummy_weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string_view>

#include "core/bf16.h"
#include "core/e4m3.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "io/tensor_requirements.h"

namespace tandem::io {
namespace {

using core::DType;
using core::Shape;

// A tensor repeats this many values: a prime, so that rows of a matrix differ.
constexpr int64_t kPatternLength = 65537;
// E4M3 weights are normal numbers around 64 times a scale, far from both ends of the format.
constexpr float kFp8Deviation = 64.0F;
// Rows after a norm have values around 1; 16 is seldom passed, and clamped then.
constexpr float kInputScale = 16.0F / core::kE4M3Max;
constexpr float kKvScale = 8.0F / core::kE4M3Max;

uint64_t mix(uint64_t value) {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

uint64_t seed_of(uint64_t seed, std::string_view name) {
  for (const char c : name) seed = mix(seed ^ static_cast<uint8_t>(c));
  return seed;
}

// Nearly normal with deviation 1, never beyond 3.5: the sum of four uniform numbers.
float draw(uint64_t seed, int64_t index) {
  const uint64_t bits = mix(seed + static_cast<uint64_t>(index));
  float sum = 0;
  for (int part = 0; part < 4; ++part)
    sum += static_cast<float>((bits >> (16 * part)) & 0xffffU) / 65536.0F;
  return (sum - 2.0F) * 1.7320508F;
}

bool is_fp8(const RequiredLinear& linear, const QuantizationConfig& quantization) {
  return quantization.info.quantized && !linear.always_bf16 && !quantization.excludes(linear.name);
}

// Scales are left out.
double weight_bytes(const ModelConfig& config, const QuantizationConfig& quantization) {
  double bytes = 0;
  for (const RequiredTensor& tensor : required_tensors(config)) {
    double values = tensor.optional ? 0.0 : 1.0;
    for (size_t i = 0; i < tensor.shape.rank(); ++i) values *= static_cast<double>(tensor.shape[i]);
    bytes += 2 * values;
  }
  for (const RequiredLinear& linear : required_linears(config))
    bytes += static_cast<double>(linear.out) * static_cast<double>(linear.in) *
             (is_fp8(linear, quantization) ? 1 : 2);
  return bytes;
}

class DummyMaker {
 public:
  DummyMaker(const QuantizationConfig& quantization, uint64_t seed)
      : quantization_(quantization), seed_(seed), pool_(0) {}

  void add_plain(const RequiredTensor& tensor, const TextConfig& text);
  void add_linear(const RequiredLinear& linear);
  void add_kv_scales(int64_t num_layers);
  std::vector<NamedBuffer> take() { return std::move(tensors_); }

 private:
  void add(std::string name, core::Buffer buffer) {
    tensors_.push_back({std::move(name), std::move(buffer)});
  }
  void add_constant(const std::string& name, DType dtype, const Shape& shape, float value);
  void add_random(const std::string& name, DType dtype, const Shape& shape, float deviation);
  void add_scales(const RequiredLinear& linear);

  const QuantizationConfig& quantization_;
  uint64_t seed_;
  core::ThreadPool pool_;
  std::vector<NamedBuffer> tensors_;
};

void DummyMaker::add_constant(const std::string& name, DType dtype, const Shape& shape,
                              float value) {
  core::Buffer buffer(dtype, shape);
  for (int64_t i = 0; i < shape.num_elements(); ++i)
    if (dtype == DType::kF32)
      static_cast<float*>(buffer.data())[i] = value;
    else
      static_cast<core::BFloat16*>(buffer.data())[i] = core::to_bf16(value);
  add(name, std::move(buffer));
}

void DummyMaker::add_random(const std::string& name, DType dtype, const Shape& shape,
                            float deviation) {
  core::Buffer buffer(dtype, shape);
  const int64_t total = shape.num_elements();
  const int64_t length = std::min(kPatternLength, total);
  const size_t width = core::dtype_bytes(dtype);
  std::vector<char> pattern(static_cast<size_t>(length) * width);
  const uint64_t seed = seed_of(seed_, name);
  for (int64_t i = 0; i < length; ++i) {
    const float value = draw(seed, i) * deviation;
    if (dtype == DType::kF8E4M3) {
      pattern[static_cast<size_t>(i)] = static_cast<char>(core::float_to_e4m3(value));
    } else {
      const core::BFloat16 rounded = core::to_bf16(value);
      std::memcpy(&pattern[static_cast<size_t>(i) * width], &rounded, width);
    }
  }
  const int64_t num_pieces = (total + length - 1) / length;
  auto* const bytes = static_cast<char*>(buffer.data());
  pool_.parallel_for(num_pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const size_t offset = static_cast<size_t>(piece * length) * width;
      std::memcpy(bytes + offset, pattern.data(),
                  std::min(pattern.size(), buffer.size_bytes() - offset));
    }
  });
  add(name, std::move(buffer));
}

void DummyMaker::add_plain(const RequiredTensor& tensor, const TextConfig& text) {
  if (tensor.optional) return;
  if (tensor.shape.rank() == 2) {
    // Embedding and head: logits around 1.
    const float deviation = 1.0F / std::sqrt(static_cast<float>(text.hidden_size));
    return add_random(tensor.name, DType::kBF16, tensor.shape, deviation);
  }
  // Queries small enough that attention is spread over many keys.
  const bool q_norm = tensor.name.ends_with("q_norm.weight");
  const float value = q_norm ? 1.0F / std::sqrt(static_cast<float>(tensor.shape[0])) : 1.0F;
  add_constant(tensor.name, DType::kBF16, tensor.shape, value);
}

void DummyMaker::add_linear(const RequiredLinear& linear) {
  const Shape shape{linear.out, linear.in};
  const float deviation = 1.0F / std::sqrt(static_cast<float>(linear.in));
  if (!is_fp8(linear, quantization_))
    return add_random(linear.name + ".weight", DType::kBF16, shape, deviation);
  add_random(linear.name + ".weight", DType::kF8E4M3, shape, kFp8Deviation);
  add_scales(linear);
}

void DummyMaker::add_scales(const RequiredLinear& linear) {
  const float scale = 1.0F / std::sqrt(static_cast<float>(linear.in)) / kFp8Deviation;
  Shape shape;
  if (quantization_.layout.format == WeightFormat::kFp8PerChannelPerToken)
    shape = Shape{linear.out};
  else if (quantization_.layout.format == WeightFormat::kFp8Block)
    shape = Shape{(linear.out + kFp8BlockSize - 1) / kFp8BlockSize,
                  (linear.in + kFp8BlockSize - 1) / kFp8BlockSize};
  add_constant(linear.name + ".weight_scale", DType::kF32, shape, scale);
  if (quantization_.layout.needs_input_scale)
    add_constant(linear.name + ".input_scale", DType::kF32, Shape{}, kInputScale);
}

void DummyMaker::add_kv_scales(int64_t num_layers) {
  for (int64_t layer = 0; layer < num_layers; ++layer)
    for (const char which : {'k', 'v'})
      add_constant(fmt::format("layers.{}.self_attn.{}_proj.{}_scale", layer, which, which),
                   DType::kF32, Shape{}, kKvScale);
}

}  // namespace

base::Result<TensorTable> make_dummy_weights(const std::filesystem::path& dir,
                                             const ModelConfig& config,
                                             const QuantizationConfig& quantization,
                                             uint64_t seed) {
  TANDEM_RETURN_IF_ERROR(
      core::check_memory(weight_bytes(config, quantization), "the weights of --load-format dummy",
                         "use a smaller model, or fewer layers with --hf-overrides"));
  DummyMaker maker(quantization, seed);
  for (const RequiredTensor& tensor : required_tensors(config))
    maker.add_plain(tensor, config.text);
  for (const RequiredLinear& linear : required_linears(config)) maker.add_linear(linear);
  if (quantization.info.quantized && config.kind == ModelKind::kTarget)
    maker.add_kv_scales(config.text.num_layers());
  return TensorTable::of_buffers(dir, maker.take());
}

}  // namespace tandem::io
