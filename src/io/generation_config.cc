#include <nlohmann/json.hpp>

#include "base/repetition_limits.h"
#include "io/json.h"
#include "io/model_config.h"

namespace tandem::io {

base::Result<GenerationConfig> read_generation_config(const std::filesystem::path& dir,
                                                      int64_t vocab_size) {
  GenerationConfig config;
  const std::filesystem::path path = dir / "generation_config.json";
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::symlink_status(path, error))) return config;
  TANDEM_ASSIGN_OR_RETURN(const nlohmann::json root, read_json_file(path));
  TANDEM_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::of(root, path.string()));
  config.present = true;
  TANDEM_ASSIGN_OR_RETURN(config.eos_token_ids, object.ids_or_empty("eos_token_id", vocab_size));
  TANDEM_ASSIGN_OR_RETURN(config.suppress_tokens,
                          object.ids_or_empty("suppress_tokens", vocab_size));
  TANDEM_ASSIGN_OR_RETURN(config.do_sample, object.boolean_or("do_sample", false));
  TANDEM_ASSIGN_OR_RETURN(config.temperature, object.number_or("temperature", 1.0, 0, 100));
  TANDEM_ASSIGN_OR_RETURN(config.top_k, object.integer_or("top_k", 0, -1, int64_t{1} << 30));
  if (config.top_k < 0) config.top_k = 0;  // -1 is another spelling of "off"
  TANDEM_ASSIGN_OR_RETURN(config.top_p, object.number_or("top_p", 1.0, 0, 1, true));
  TANDEM_ASSIGN_OR_RETURN(config.min_p, object.number_or("min_p", 0.0, 0, 1));
  TANDEM_ASSIGN_OR_RETURN(config.repetition_penalty,
                          object.number_or("repetition_penalty", 1.0, base::kMinRepetitionPenalty,
                                           base::kMaxRepetitionPenalty));
  return config;
}

}  // namespace tandem::io
