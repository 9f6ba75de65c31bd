#include "ops/attention.h"

#include "ops/checks.h"
#include "ops/cpu/cpu.h"
#include "ops/reference/reference.h"

namespace tandem::ops {
namespace {

void check_store(const KvView& kv, const KvPlaces& places) {
  using core::DType;
  TANDEM_CHECK_EQ(kv.k.shape.rank(), size_t{3});
  TANDEM_CHECK_MSG(is_activation(kv.k) || kv.k.dtype == DType::kF8E4M3,
                   "attention: kv: expected F32, BF16 or F8_E4M3, got {}",
                   core::dtype_name(kv.k.dtype));
  check_dtype("attention", "kv.v", kv.v, kv.k.dtype);
  check_shape("attention", "kv.v", kv.v, kv.k.shape);
  TANDEM_CHECK_GT(places.block_size, 0);
  TANDEM_CHECK_GE(places.ring_len, 0);
  TANDEM_CHECK_EQ(places.ring_len % places.block_size, 0);
}

}  // namespace

void kv_write(const Context& context, const core::TensorView& k, const core::TensorView& v,
              std::span<const int32_t> sequences, std::span<const int32_t> positions,
              const KvPlaces& places, const KvView& kv) {
  check_store(kv, places);
  TANDEM_CHECK_EQ(k.shape.rank(), size_t{3});
  check_activation("kv_write", "k", k);
  check_dtype("kv_write", "v", v, k.dtype);
  check_shape("kv_write", "k", k, core::Shape{k.shape[0], kv.k.shape[1], kv.k.shape[2]});
  check_shape("kv_write", "v", v, k.shape);
  TANDEM_CHECK_EQ(static_cast<int64_t>(sequences.size()), k.rows());
  TANDEM_CHECK_EQ(static_cast<int64_t>(positions.size()), k.rows());
  for (size_t r = 0; r < sequences.size(); ++r) {
    TANDEM_CHECK_GE(positions[r], 0);
    const int64_t slot = places.slot(sequences[r], positions[r]);
    TANDEM_CHECK_GE(slot, 0);
    TANDEM_CHECK_LT(slot, kv.k.rows());
  }
  if (!cpu::use_reference(context))
    return cpu::kv_write(context, k, v, sequences, positions, places, kv);
  reference::kv_write(k, v, sequences, positions, places, kv);
}

void attention(const Context& context, const core::TensorView& q,
               std::span<const int32_t> sequences, std::span<const int32_t> last_keys,
               int64_t window, const KvPlaces& places, const KvView& kv,
               const core::TensorView& out) {
  check_store(kv, places);
  TANDEM_CHECK_EQ(q.shape.rank(), size_t{3});
  check_activation("attention", "q", q);
  check_activation("attention", "out", out);
  check_shape("attention", "out", out, q.shape);
  TANDEM_CHECK_EQ(q.shape[2], kv.k.shape[2]);
  TANDEM_CHECK_EQ(q.shape[1] % kv.k.shape[1], 0);
  TANDEM_CHECK_EQ(static_cast<int64_t>(sequences.size()), q.rows());
  TANDEM_CHECK_EQ(static_cast<int64_t>(last_keys.size()), q.rows());
  TANDEM_CHECK_GE(window, 0);
  if (!cpu::use_reference(context))
    return cpu::attention(context, q, sequences, last_keys, window, places, kv, out);
  reference::attention(context, q, sequences, last_keys, window, places, kv, out);
}

}  // namespace tandem::ops
