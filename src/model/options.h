// How a checkpoint is computed.
#pragma once

#include <string_view>

#include "base/status.h"
#include "core/dtype.h"

namespace tandem::model {

enum class Compute {
  kFloat32,   // FP32 activations and KV on the stored weights: for checking
  kBFloat16,  // BF16 activations and KV, FP32 accumulation
  kNative,    // what serves: today the same as kBFloat16 on a CPU
};

enum class Fp8Arithmetic {
  kCheckpoint,  // as the checkpoint says: static W8A8 unless it is weight-only
  kWeightOnly,  // W8A16: input scales are ignored
  kVllmParity,  // shards of qkv and gate_up share the largest scale, requantized as vLLM does
};

enum class KvCacheDtype {
  kAuto,  // FP8 where the checkpoint asks for it, else that of the activations
  kBFloat16,
  kFp8,  // E4M3 with the checkpoint's scales
};

enum class DraftHeadFormat {
  kCheckpoint,  // as it is stored
  kFp8,         // rounded to E4M3 when the model is opened, a scale for each token
};

struct ModelOptions {
  Compute compute = Compute::kNative;
  Fp8Arithmetic fp8 = Fp8Arithmetic::kCheckpoint;
  DraftHeadFormat draft_head = DraftHeadFormat::kCheckpoint;
  int64_t max_rows = 512;  // most rows of one forward; sizes the activation buffers

  core::DType activation_dtype() const {
    return compute == Compute::kFloat32 ? core::DType::kF32 : core::DType::kBF16;
  }
};

// "float32", "bfloat16", "native"; "checkpoint", "weight-only", "vllm-parity".
base::Result<Compute> parse_compute(std::string_view name);
base::Result<Fp8Arithmetic> parse_fp8_arithmetic(std::string_view name);
// "auto", "bfloat16", "fp8", "fp8_e4m3".
base::Result<KvCacheDtype> parse_kv_cache_dtype(std::string_view name);

}  // namespace tandem::model
