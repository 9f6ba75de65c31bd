// What a runtime is made of, the same for every device.
#pragma once

#include <vector>

#include "engine/runtime.h"

namespace tandem::engine {

base::Result<KvPlan> make_plan(const RuntimeOptions& options, const io::TextConfig& config,
                               core::DType kv_dtype, int64_t ring_len);
EngineOptions engine_options(const RuntimeOptions& options, const io::TextConfig& config,
                             const KvPlan& plan, int64_t ring_len);
// What generation_config.json forbids, and the places for images and sound, which mean nothing in a
// text.
std::vector<int32_t> suppressed_ids(const io::Checkpoint& target);

}  // namespace tandem::engine
