#include "sampling/params.h"

#include <cmath>
#include <span>

#include "base/repetition_limits.h"

namespace tandem::sampling {
namespace {

using base::invalid;
using base::Status;

constexpr float kMaxBias = 100.0F;
constexpr int32_t kMaxLogprobs = 20;

Status check_range(const char* name, double value, double low, double high) {
  if (std::isfinite(value) && value >= low && value <= high) return {};
  return invalid("{}: expected a number from {} to {}, got {}", name, low, high, value);
}

Status check_id(const char* name, int32_t id, int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return {};
  return invalid("{}: expected token ids from 0 to {}, got {}", name, vocab_size - 1, id);
}

Status check_ids(const char* name, std::span<const int32_t> ids, int64_t vocab_size) {
  for (const int32_t id : ids) TANDEM_RETURN_IF_ERROR(check_id(name, id, vocab_size));
  return {};
}

}  // namespace

Status validate(const SamplingParams& params, int64_t vocab_size) {
  if (!std::isfinite(params.temperature) || params.temperature < 0)
    return invalid("temperature: expected a number >= 0, got {}; 0 is greedy", params.temperature);
  if (params.top_k < -1)
    return invalid("top_k: expected a number >= 1, or 0 or -1 for off, got {}", params.top_k);
  if (!(params.top_p > 0 && params.top_p <= 1))
    return invalid("top_p: expected 0 < top_p <= 1, got {}; 1 is off", params.top_p);
  TANDEM_RETURN_IF_ERROR(check_range("min_p", params.min_p, 0, 1));
  TANDEM_RETURN_IF_ERROR(check_range("presence_penalty", params.presence_penalty, -2, 2));
  TANDEM_RETURN_IF_ERROR(check_range("frequency_penalty", params.frequency_penalty, -2, 2));
  if (!(params.repetition_penalty >= base::kMinRepetitionPenalty &&
        params.repetition_penalty <= base::kMaxRepetitionPenalty))
    return invalid("repetition_penalty: expected a number from {} to {}, got {}; 1 is off",
                   base::kMinRepetitionPenalty, base::kMaxRepetitionPenalty,
                   params.repetition_penalty);
  for (const auto& [id, bias] : params.logit_bias) {
    TANDEM_RETURN_IF_ERROR(check_id("logit_bias", id, vocab_size));
    TANDEM_RETURN_IF_ERROR(
        check_range("logit_bias", static_cast<double>(bias), -kMaxBias, kMaxBias));
  }
  TANDEM_RETURN_IF_ERROR(check_ids("banned_token_ids", params.banned_token_ids, vocab_size));
  TANDEM_RETURN_IF_ERROR(check_ids("allowed_token_ids", params.allowed_token_ids, vocab_size));
  TANDEM_RETURN_IF_ERROR(check_ids("logprob_token_ids", params.logprob_token_ids, vocab_size));
  for (const std::vector<int32_t>& sequence : params.banned_sequences) {
    if (sequence.empty()) return invalid("bad_words: expected at least one token, got none");
    TANDEM_RETURN_IF_ERROR(check_ids("bad_words", sequence, vocab_size));
  }
  TANDEM_RETURN_IF_ERROR(check_ids("stop_token_ids", params.stop_token_ids, vocab_size));
  if (params.min_tokens < 0)
    return invalid("min_tokens: expected a number >= 0, got {}", params.min_tokens);
  if (params.num_logprobs < -1 || params.num_logprobs > kMaxLogprobs)
    return invalid("logprobs: expected 0 to {}, got {}", kMaxLogprobs, params.num_logprobs);
  if (params.num_prompt_logprobs < -1 || params.num_prompt_logprobs > kMaxLogprobs)
    return invalid("prompt_logprobs: expected 0 to {}, got {}", kMaxLogprobs,
                   params.num_prompt_logprobs);
  return {};
}

}  // namespace tandem::sampling
