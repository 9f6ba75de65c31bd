// Writes a quantized model, tensor by tensor, in bounded memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/thread_pool.h"
#include "io/checkpoint.h"
#include "io/safetensors_writer.h"
#include "quantize/output_folder.h"
#include "quantize/plan.h"
#include "quantize/progress.h"

namespace tandem::quantize {

// Modules of the source that stay as they are, in the spelling of its files, shortened as
// exclusion_list() does. lm_head is always among them.
std::vector<std::string> exported_exclusions(const io::Checkpoint& source, const ModelPlan& plan);

// Bytes of all tensors of the export.
int64_t exported_bytes(const io::Checkpoint& source, const ModelPlan& plan);

// Everything but the last step: after it, folder.publish() makes the model appear. report_json is
// written as quantization_report.json.
base::Status export_model(const io::Checkpoint& source, const ModelPlan& plan,
                          const std::string& report_json, uint64_t max_shard_bytes,
                          core::ThreadPool& pool, const Progress& progress, OutputFolder& folder);

}  // namespace tandem::quantize
