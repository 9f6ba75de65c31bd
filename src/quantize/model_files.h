// The files of an exported model beside its tensors: configs in both of ModelOpt's forms, and what
// is carried along from the source.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "quantize/plan.h"

namespace tandem::quantize {

// config.json of the source with quantization_config added; its order of keys is kept.
base::Result<std::string> quantized_config_json(const std::filesystem::path& source_dir,
                                                const ModelPlan& plan,
                                                const std::vector<std::string>& exclusions);

std::string hf_quant_config_json(const ModelPlan& plan, const std::vector<std::string>& exclusions);

// The source's other files, by name and in order: tokenizer, template, generation config, licence.
// Not weights of any format, hidden files, folders, or what the export writes itself.
base::Result<std::vector<std::filesystem::path>> carried_files(
    const std::filesystem::path& source_dir);

base::Status copy_carried_files(const std::filesystem::path& source_dir,
                                const std::filesystem::path& out_dir);

}  // namespace tandem::quantize
