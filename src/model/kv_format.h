// Which bytes the KV cache has: what was asked for, and what the checkpoint can give.
#pragma once

#include <vector>

#include "io/checkpoint.h"
#include "model/options.h"

namespace tandem::model {

// What the store's bytes are: `info` is of the target.
core::DType kv_dtype(KvCacheDtype asked, const io::QuantizationInfo& info,
                     const ModelOptions& options);

// One per layer for an FP8 store, else empty.
struct KvScaleLists {
  std::vector<float> k, v;
};
// The target's own, 1 where it has none.
KvScaleLists stored_kv_scales(const io::Checkpoint& target);
// Those of a store of `dtype`. Refuses an FP8 store that was asked for by name when the checkpoint
// has no scales.
base::Result<KvScaleLists> kv_scales(const io::Checkpoint& target, core::DType dtype,
                                     KvCacheDtype asked);

}  // namespace tandem::model
