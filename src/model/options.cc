#include "model/options.h"

namespace tandem::model {

base::Result<Compute> parse_compute(std::string_view name) {
  if (name == "float32") return Compute::kFloat32;
  if (name == "bfloat16") return Compute::kBFloat16;
  if (name == "native") return Compute::kNative;
  return base::invalid("compute: expected float32, bfloat16 or native, got \"{}\"", name);
}

base::Result<Fp8Arithmetic> parse_fp8_arithmetic(std::string_view name) {
  if (name == "checkpoint") return Fp8Arithmetic::kCheckpoint;
  if (name == "weight-only") return Fp8Arithmetic::kWeightOnly;
  if (name == "vllm-parity") return Fp8Arithmetic::kVllmParity;
  return base::invalid(
      "FP8 arithmetic: expected checkpoint, weight-only or vllm-parity, got \"{}\"", name);
}

base::Result<KvCacheDtype> parse_kv_cache_dtype(std::string_view name) {
  if (name == "auto") return KvCacheDtype::kAuto;
  if (name == "bfloat16") return KvCacheDtype::kBFloat16;
  if (name == "fp8" || name == "fp8_e4m3") return KvCacheDtype::kFp8;
  return base::invalid("--kv-cache-dtype: expected auto, bfloat16, fp8 or fp8_e4m3, got \"{}\"",
                       name);
}

}  // namespace tandem::model
