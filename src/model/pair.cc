#include "model/pair.h"

namespace tandem::model {
namespace {

base::Status check_kinds(const io::ModelConfig& target, const PairOptions& options) {
  TANDEM_RETURN_IF_ERROR(io::require_target(options.target, target));
  if (!options.assistant) return {};
  TANDEM_ASSIGN_OR_RETURN(const io::ModelConfig assistant,
                          io::read_model_config(*options.assistant));
  TANDEM_RETURN_IF_ERROR(io::require_assistant(*options.assistant, assistant));
  return io::check_pair(target, assistant);
}

base::Result<std::shared_ptr<const io::Checkpoint>> open(const std::filesystem::path& dir,
                                                         const io::LoadOptions& load,
                                                         const PairOptions& options,
                                                         int64_t& copied_bytes) {
  TANDEM_ASSIGN_OR_RETURN(io::Checkpoint checkpoint, io::Checkpoint::open(dir, load));
  const auto progress = [&](int64_t done_bytes, int64_t total_bytes) {
    if (options.progress) options.progress(dir, done_bytes, total_bytes);
  };
  if (options.check_values && !load.dummy)
    TANDEM_RETURN_IF_ERROR(checkpoint.check_values(progress));
  if (options.copy_weights) copied_bytes += checkpoint.copy_into_memory();
  return std::make_shared<const io::Checkpoint>(std::move(checkpoint));
}

}  // namespace

base::Result<Pair> load_pair(const PairOptions& options) {
  TANDEM_ASSIGN_OR_RETURN(const io::ModelConfig config,
                          io::read_model_config(options.target, options.load.hf_overrides));
  TANDEM_RETURN_IF_ERROR(check_kinds(config, options));
  Pair pair;
  pair.draft_head = options.model.draft_head;
  TANDEM_ASSIGN_OR_RETURN(pair.target_checkpoint,
                          open(options.target, options.load, options, pair.copied_bytes));
  if (options.assistant) {
    io::LoadOptions load = options.load;
    load.hf_overrides.clear();
    TANDEM_ASSIGN_OR_RETURN(pair.assistant_checkpoint,
                            open(*options.assistant, load, options, pair.copied_bytes));
  }
  pair.target = std::make_unique<TargetModel>(pair.target_checkpoint, options.model);
  if (options.assistant)
    pair.assistant =
        std::make_unique<AssistantModel>(pair.assistant_checkpoint, *pair.target, options.model);
  return pair;
}

}  // namespace tandem::model
