// What a runtime is made of, the same for every device.
#pragma once

#include "engine/runtime.h"

namespace tandem::engine {

base::Result<KvPlan> make_plan(const RuntimeOptions& options, const io::TextConfig& config,
                               core::DType kv_dtype, int64_t ring_len);
EngineOptions engine_options(const RuntimeOptions& options, const io::TextConfig& config,
                             const KvPlan& plan, int64_t ring_len);

}  // namespace tandem::engine
