#include "gpu/weights.h"

#include <algorithm>
#include <cstring>

namespace tandem::gpu {
namespace {

using ops::cuda::PackedLinear;
using ops::cuda::PackedType;

constexpr size_t kStagingBytes = size_t{64} << 20;

base::Status check_module(const std::string& module, const io::LinearWeights& weights) {
  const bool bf16 =
      weights.format == io::WeightFormat::kBF16 && weights.weight.dtype == core::DType::kBF16;
  const bool fp8 = weights.format == io::WeightFormat::kFp8PerTensor && weights.input_scale > 0;
  if (!bf16 && !fp8)
    return base::unsupported(
        "{}: expected BF16 weights or FP8 with one weight scale and a static input scale on a GPU, "
        "got another format; run it with --device cpu",
        module);
  if (weights.weight.shape[1] % 32 != 0 || weights.weight.shape[0] % 16 != 0)
    return base::unsupported(
        "{}: expected a multiple of 16 outputs and of 32 inputs on a GPU, got {}; run it with "
        "--device cpu",
        module, core::to_string(weights.weight.shape));
  return {};
}

PackedType packed_type(const io::LinearWeights& weights) {
  return weights.format == io::WeightFormat::kFp8PerTensor ? PackedType::kFp8 : PackedType::kBF16;
}

// The weights of one product.
base::Result<std::vector<io::LinearWeights>> checked_parts(
    const io::Checkpoint& checkpoint, const std::vector<std::string>& modules) {
  std::vector<io::LinearWeights> parts;
  for (const std::string& module : modules) {
    parts.push_back(checkpoint.linear(module));
    TANDEM_RETURN_IF_ERROR(check_module(module, parts.back()));
    const io::LinearWeights& first = parts.front();
    if (parts.back().format != first.format ||
        (first.format != io::WeightFormat::kBF16 && parts.back().input_scale != first.input_scale))
      return base::unsupported(
          "{} and {}: expected one precision and one input scale, since a GPU runs them as one "
          "product; quantize them alike, or run it with --device cpu",
          modules.front(), module);
  }
  return parts;
}

base::Status check_matrix(const core::TensorView& weight, const std::string& name) {
  if (weight.dtype == core::DType::kBF16 && weight.shape[1] % 32 == 0) return {};
  return base::unsupported("{}: expected BF16 with a multiple of 32 inputs on a GPU, got {} {}",
                           name, core::dtype_name(weight.dtype), core::to_string(weight.shape));
}

PackedLinear packed_like(const core::TensorView& weight, PackedType type, int num_multiprocessors) {
  return ops::cuda::make_packed_linear(type, static_cast<int>(weight.shape[0]),
                                       static_cast<int>(weight.shape[1]), num_multiprocessors);
}

ops::cuda::DeviceBuffer zeros(size_t size_bytes, const ops::cuda::Stream& stream) {
  ops::cuda::DeviceBuffer buffer(size_bytes);
  TANDEM_CUDA_CHECK(cudaMemsetAsync(buffer.data(), 0, size_bytes, stream.handle));
  return buffer;
}

ops::cuda::DeviceBuffer value_per_row(const PackedLinear& weight, const ops::cuda::Stream& stream) {
  return zeros(row_values_bytes(weight), stream);
}

// Most rows that the staging buffers hold, in whole groups of 16.
int64_t rows_at_once(const core::TensorView& rows) {
  return static_cast<int64_t>(kStagingBytes) /
         (rows.shape[1] * static_cast<int64_t>(core::dtype_bytes(rows.dtype))) / 16 * 16;
}

}  // namespace

WeightUploader::WeightUploader(int num_multiprocessors)
    : num_multiprocessors_(num_multiprocessors) {
  TANDEM_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_.handle, cudaStreamNonBlocking));
  for (Staging& staging : staging_) {
    staging.host = ops::cuda::PinnedBuffer(kStagingBytes);
    staging.device = ops::cuda::DeviceBuffer(kStagingBytes);
    cudaEvent_t event = nullptr;
    TANDEM_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    staging.done = event;
  }
}

WeightUploader::~WeightUploader() {
  (void)cudaStreamSynchronize(stream_.handle);
  for (Staging& staging : staging_) (void)cudaEventDestroy(static_cast<cudaEvent_t>(staging.done));
  (void)cudaStreamDestroy(stream_.handle);
}

base::Result<Projection> WeightUploader::projection(const io::Checkpoint& checkpoint,
                                                    const std::vector<std::string>& modules) {
  TANDEM_ASSIGN_OR_RETURN(const auto parts, checked_parts(checkpoint, modules));
  int64_t out_features = 0;
  for (const io::LinearWeights& part : parts) out_features += part.weight.shape[0];
  Projection projection;
  projection.weight = ops::cuda::make_packed_linear(
      packed_type(parts.front()), static_cast<int>(out_features),
      static_cast<int>(parts.front().weight.shape[1]), num_multiprocessors_);
  pack_parts(parts, projection);
  return projection;
}

base::Result<Projection> WeightUploader::gated_projection(const io::Checkpoint& checkpoint,
                                                          const std::string& gate,
                                                          const std::string& up) {
  TANDEM_ASSIGN_OR_RETURN(const auto parts, checked_parts(checkpoint, {gate, up}));
  Projection projection;
  projection.weight = ops::cuda::make_gated_linear(
      packed_type(parts.front()), static_cast<int>(parts.front().weight.shape[0]),
      static_cast<int>(parts.front().weight.shape[1]), num_multiprocessors_);
  pack_parts(parts, projection);
  return projection;
}

void WeightUploader::pack_parts(const std::vector<io::LinearWeights>& parts,
                                Projection& projection) {
  const bool fp8 = projection.weight.type == PackedType::kFp8;
  if (fp8) projection.input_scale = parts.front().input_scale;
  int first_feature = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    pack(projection.weight, parts[i].weight, first_feature);
    first_feature += static_cast<int>(parts[i].weight.shape[0]);
    if (fp8) projection.scales[i] = parts[i].input_scale * parts[i].weight_scale;
  }
}

base::Result<Projection> WeightUploader::matrix(const core::TensorView& weight,
                                                const std::string& name,
                                                std::optional<Screen>* screen) {
  TANDEM_RETURN_IF_ERROR(check_matrix(weight, name));
  Projection projection;
  projection.weight = packed_like(weight, PackedType::kBF16, num_multiprocessors_);
  if (screen != nullptr && ops::cuda::takes_head_product(projection.weight, {}))
    *screen = pack_screened(weight, projection.weight);
  else
    pack(projection.weight, weight, 0);
  return projection;
}

Screen WeightUploader::pack_screened(const core::TensorView& rows, const PackedLinear& weight) {
  Screen screen;
  screen.weight = packed_like(rows, PackedType::kIntegers, num_multiprocessors_);
  screen.scales = value_per_row(screen.weight, stream_);
  screen.errors = value_per_row(screen.weight, stream_);
  screen.workspace = zeros(ops::cuda::screen_workspace_bytes(screen.weight), stream_);
  const int in_features = weight.in_features;
  const ops::cuda::DeviceBuffer codes(static_cast<size_t>(rows_at_once(rows)) *
                                      static_cast<size_t>(in_features));
  upload(rows, [&](const void* some, int first, int count) {
    ops::cuda::pack_rows(stream_, weight, some, first, count);
    ops::cuda::round_to_integers(stream_, some, count, in_features, codes.as<uint8_t>(),
                                 screen.scales.as<float>() + first,
                                 screen.errors.as<float>() + first);
    ops::cuda::pack_rows(stream_, screen.weight, codes.data(), first, count);
  });
  finish();
  return screen;
}

base::Result<Projection> WeightUploader::rounded_matrix(const core::TensorView& weight,
                                                        const std::string& name) {
  TANDEM_RETURN_IF_ERROR(check_matrix(weight, name));
  Projection projection;
  projection.weight = packed_like(weight, PackedType::kFp8Weights, num_multiprocessors_);
  const int in_features = projection.weight.in_features;
  projection.feature_scales = value_per_row(projection.weight, stream_);
  const ops::cuda::DeviceBuffer codes(static_cast<size_t>(rows_at_once(weight)) *
                                      static_cast<size_t>(in_features));
  upload(weight, [&](const void* rows, int first, int count) {
    ops::cuda::round_rows(stream_, rows, count, in_features, codes.as<uint8_t>(),
                          projection.feature_scales.as<float>() + first);
    ops::cuda::pack_rows(stream_, projection.weight, codes.data(), first, count);
  });
  finish();
  return projection;
}

void WeightUploader::pack(const PackedLinear& weight, const core::TensorView& rows,
                          int first_feature) {
  upload(rows, [&](const void* some, int first, int count) {
    ops::cuda::pack_rows(stream_, weight, some, first_feature + first, count);
  });
}

void WeightUploader::upload(const core::TensorView& rows,
                            const std::function<void(const void*, int, int)>& visit) {
  const auto row_bytes = static_cast<size_t>(rows.shape[1]) * core::dtype_bytes(rows.dtype);
  const int64_t num_rows = rows.shape[0];
  const int64_t most = rows_at_once(rows);
  TANDEM_CHECK_GT(most, 0);
  for (int64_t begin = 0; begin < num_rows; begin += most) {
    const int64_t count = std::min(most, num_rows - begin);
    Staging& staging = staging_[next_];
    next_ = (next_ + 1) % staging_.size();
    TANDEM_CUDA_CHECK(cudaEventSynchronize(static_cast<cudaEvent_t>(staging.done)));
    const size_t bytes = static_cast<size_t>(count) * row_bytes;
    std::memcpy(staging.host.as<void>(),
                static_cast<const char*>(rows.data) + static_cast<size_t>(begin) * row_bytes,
                bytes);
    TANDEM_CUDA_CHECK(cudaMemcpyAsync(staging.device.data(), staging.host.as<void>(), bytes,
                                      cudaMemcpyHostToDevice, stream_.handle));
    visit(staging.device.data(), static_cast<int>(begin), static_cast<int>(count));
    TANDEM_CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(staging.done), stream_.handle));
  }
}

ops::cuda::DeviceBuffer WeightUploader::vector(const core::TensorView& tensor) {
  const auto bytes = static_cast<size_t>(tensor.shape.num_elements()) *
                     static_cast<size_t>(core::dtype_bytes(tensor.dtype));
  ops::cuda::DeviceBuffer buffer(bytes);
  TANDEM_CUDA_CHECK(cudaMemcpy(buffer.data(), tensor.data, bytes, cudaMemcpyHostToDevice));
  return buffer;
}

void WeightUploader::finish() {
  TANDEM_CUDA_CHECK(cudaStreamSynchronize(stream_.handle));
}

}  // namespace tandem::gpu
