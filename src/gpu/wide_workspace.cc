// How much room the passes of prompts take.
#include <algorithm>

#include "gpu/prefill.h"
#include "ops/cuda/wide_attention.h"
#include "ops/cuda/wide_keys.h"

namespace tandem::gpu {
namespace {

size_t bytes_of(int64_t rows, int64_t columns, int64_t element_bytes) {
  return static_cast<size_t>(rows * columns * element_bytes);
}

size_t operand_bytes(int64_t width, int64_t capacity) {
  return static_cast<size_t>(
      ops::cuda::wide_operand_bytes(static_cast<int>(width), static_cast<int>(capacity)));
}

int64_t operand_width(const WideSizes& sizes) {
  return std::max(sizes.hidden, sizes.q_dim);
}

// A plan counts the thread blocks of widen_keys().
static_assert(widened_rows_of(1) == ops::cuda::kWidenedTogether);

// Most bytes for widened keys and values: those of 131,072 positions of the 31B.
constexpr size_t kMostWidenedBytes = size_t{1} << 30;

}  // namespace

bool widens_keys(const io::LayerConfig& layer, int64_t num_heads) {
  return layer.type == io::LayerType::kFull &&
         ops::cuda::takes_widened_keys(static_cast<int>(num_heads),
                                       static_cast<int>(layer.num_key_value_heads),
                                       static_cast<int>(layer.head_dim));
}

WideSizes wide_sizes(const io::TextConfig& target, core::DType kv_dtype, int64_t max_model_len) {
  WideSizes sizes{.hidden = target.hidden_size};
  sizes.product = target.hidden_size;
  sizes.intermediate = target.intermediate_size;
  for (const io::LayerConfig& layer : target.layers) {
    const int64_t kv_dim = layer.num_key_value_heads * layer.head_dim;
    const int64_t q_dim = target.num_attention_heads * layer.head_dim;
    sizes.q_dim = std::max(sizes.q_dim, q_dim);
    sizes.product = std::max(sizes.product, q_dim + (layer.k_eq_v ? 1 : 2) * kv_dim);
    if (layer.type == io::LayerType::kSliding) sizes.chunk = std::max(sizes.chunk, kv_dim);
    if (kv_dtype == core::DType::kF8E4M3 && widens_keys(layer, target.num_attention_heads))
      sizes.widened = std::max(sizes.widened, kv_dim);
  }
  if (sizes.widened == 0) return sizes;
  const int64_t rows = widened_rows_of(max_model_len);
  if (bytes_of(rows, 2 * sizes.widened, 2) <= kMostWidenedBytes) sizes.widened_rows = rows;
  return sizes;
}

int64_t WideSizes::most_bytes(int64_t capacity) const {
  const size_t keys = widened == 0        ? 0
                      : widened_rows == 0 ? kMostWidenedBytes
                                          : bytes_of(widened_rows, 2 * widened, 2);
  return static_cast<int64_t>(bytes_of(capacity, 2 * hidden + product + q_dim + 2 * chunk, 2) +
                              operand_bytes(operand_width(*this), capacity) +
                              operand_bytes(intermediate, capacity) + keys);
}

WideWorkspace::WideWorkspace(const WideSizes& sizes, int64_t max_step_rows, int num_sms)
    : capacity(static_cast<int>(wide_capacity(max_step_rows))),
      num_multiprocessors(num_sms),
      x(bytes_of(capacity, sizes.hidden, 2)),
      product(bytes_of(capacity, sizes.product, 2)),
      q(bytes_of(capacity, sizes.q_dim, 2)),
      chunk_k(bytes_of(capacity, sizes.chunk, 2)),
      chunk_v(bytes_of(capacity, sizes.chunk, 2)),
      operand(operand_bytes(operand_width(sizes), capacity)),
      inner_operand(operand_bytes(sizes.intermediate, capacity)),
      hidden(bytes_of(capacity, sizes.hidden, 2)),
      widened_rows(sizes.widened_rows),
      widened_k(bytes_of(sizes.widened_rows, sizes.widened, 2)),
      widened_v(bytes_of(sizes.widened_rows, sizes.widened, 2)) {
  // A tile's rows beyond the last one are multiplied too, whatever they are.
  for (const auto* buffer : {&operand, &inner_operand})
    TANDEM_CUDA_CHECK(cudaMemset(buffer->data(), 0, buffer->size_bytes()));
}

}  // namespace tandem::gpu
