#include "model/kv_format.h"

namespace tandem::model {

core::DType kv_dtype(KvCacheDtype asked, const io::QuantizationInfo& info,
                     const ModelOptions& options) {
  const bool fp8 =
      asked == KvCacheDtype::kFp8 || (asked == KvCacheDtype::kAuto && info.kv_cache_fp8);
  if (fp8) return core::DType::kF8E4M3;
  return asked == KvCacheDtype::kBFloat16 ? core::DType::kBF16 : options.activation_dtype();
}

KvScaleLists stored_kv_scales(const io::Checkpoint& target) {
  KvScaleLists lists;
  for (int64_t layer = 0; layer < target.config().text.num_layers(); ++layer) {
    const io::Checkpoint::KvScales scales = target.kv_scales(layer);
    lists.k.push_back(scales.k_scale);
    lists.v.push_back(scales.v_scale);
  }
  return lists;
}

base::Result<KvScaleLists> kv_scales(const io::Checkpoint& target, core::DType dtype,
                                     KvCacheDtype asked) {
  if (dtype != core::DType::kF8E4M3) return KvScaleLists();
  if (asked == KvCacheDtype::kFp8)
    for (int64_t layer = 0; layer < target.config().text.num_layers(); ++layer)
      if (!target.kv_scales(layer).calibrated)
        return base::invalid(
            "{}: layers.{}.self_attn: expected k_scale and v_scale for an FP8 KV cache, got none; "
            "export the target with tandem quantize --kv-cache-dtype fp8, or use --kv-cache-dtype "
            "bfloat16",
            target.dir().string(), layer);
  return stored_kv_scales(target);
}

}  // namespace tandem::model
