#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/parallel.h"
#include "ops/reference/element.h"
#include "ops/reference/reference.h"

namespace tandem::ops::reference {
namespace {

float kv_scale(const core::TensorView& store_view, float scale) {
  return store_view.dtype == core::DType::kF8E4M3 ? scale : 1.0F;
}

struct Head {
  const core::TensorView& q;
  const KvView& kv;
  const KvPlaces& places;
  int64_t row, sequence, head, kv_head, first_key, last_key;

  float score(int64_t key) const {
    const int64_t dim = q.shape[2];
    const int64_t slot = places.slot(sequence, key);
    const float scale = kv_scale(kv.k, kv.k_scale);
    float sum = 0.0F;
    for (int64_t i = 0; i < dim; ++i)
      sum += load(q, row, head * dim + i) * (load(kv.k, slot, kv_head * dim + i) * scale);
    return sum;
  }

  // Two passes: all scores, then the weighted sum of the values.
  std::vector<float> output() const {
    const int64_t dim = q.shape[2];
    std::vector<float> result(static_cast<size_t>(dim), 0.0F);
    if (last_key < first_key) return result;
    std::vector<float> weights;
    for (int64_t key = first_key; key <= last_key; ++key) weights.push_back(score(key));
    float largest = -std::numeric_limits<float>::infinity();
    for (const float s : weights) largest = std::max(largest, s);
    float total = 0.0F;
    for (float& s : weights) {
      s = std::exp(s - largest);
      total += s;
    }
    const float scale = kv_scale(kv.v, kv.v_scale);
    for (size_t k = 0; k < weights.size(); ++k) {
      const int64_t slot = places.slot(sequence, first_key + static_cast<int64_t>(k));
      for (int64_t i = 0; i < dim; ++i)
        result[static_cast<size_t>(i)] +=
            weights[k] / total * (load(kv.v, slot, kv_head * dim + i) * scale);
    }
    return result;
  }
};

}  // namespace

void kv_write(const core::TensorView& k, const core::TensorView& v,
              std::span<const int32_t> sequences, std::span<const int32_t> positions,
              const KvPlaces& places, const KvView& kv) {
  for (int64_t r = 0; r < k.rows(); ++r) {
    const auto row = static_cast<size_t>(r);
    const int64_t slot = places.slot(sequences[row], positions[row]);
    for (int64_t i = 0; i < k.cols(); ++i) {
      store(kv.k, slot, i, load(k, r, i) / kv_scale(kv.k, kv.k_scale));
      store(kv.v, slot, i, load(v, r, i) / kv_scale(kv.v, kv.v_scale));
    }
  }
}

void attention(const Context& context, const core::TensorView& q,
               std::span<const int32_t> sequences, std::span<const int32_t> last_keys,
               int64_t window, const KvPlaces& places, const KvView& kv,
               const core::TensorView& out) {
  const int64_t num_heads = q.shape[1];
  const int64_t dim = q.shape[2];
  const int64_t group = num_heads / kv.k.shape[1];
  parallel_for(context, q.rows() * num_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / num_heads;
      const int64_t head = item % num_heads;
      const int64_t last_key = last_keys[static_cast<size_t>(row)];
      const int64_t first_key = window == 0 ? 0 : std::max<int64_t>(0, last_key - window + 1);
      const Head one{q,    kv,           places,    row,     sequences[static_cast<size_t>(row)],
                     head, head / group, first_key, last_key};
      const std::vector<float> values = one.output();
      for (int64_t i = 0; i < dim; ++i)
        store(out, row, head * dim + i, values[static_cast<size_t>(i)]);
    }
  });
}

}  // namespace tandem::ops::reference
