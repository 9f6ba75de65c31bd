// A BF16 checkpoint with some of its modules quantized in memory: what the export would compute,
// before anything is written.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/buffer.h"
#include "core/thread_pool.h"
#include "io/checkpoint.h"
#include "quantize/plan.h"

namespace tandem::quantize {

// Opens the source's folder again (its files are mapped, not read) and replaces `modules`, which
// must be quantized in the plan. The quantized bytes live as long as the result.
base::Result<std::shared_ptr<const io::Checkpoint>> make_variant(
    const io::Checkpoint& source, const ModelPlan& plan, const std::vector<std::string>& modules,
    core::ThreadPool& pool);

}  // namespace tandem::quantize
