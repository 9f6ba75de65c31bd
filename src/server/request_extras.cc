// Fields beyond OpenAI's that vLLM's users bring along.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/request.h"

namespace tandem::server {
namespace {

using nlohmann::json;

constexpr size_t kMaxWords = 128;
constexpr size_t kMaxWordBytes = 1024;
constexpr size_t kMaxLogprobIds = 128;

// A word is banned as it begins a text and as it follows a blank: its tokens differ.
void read_bad_words(Fields& fields, const text::Tokenizer& tokenizer,
                    sampling::SamplingParams& params) {
  for (const std::string& word : fields.strings("bad_words", kMaxWords)) {
    const size_t begin = word.find_first_not_of(' ');
    if (begin == std::string::npos || word.size() > kMaxWordBytes)
      return fields.fail("bad_words",
                         fmt::format("expected words of 1 to {} bytes", kMaxWordBytes));
    for (const std::string& spelling : {word, fmt::format(" {}", word.substr(begin))}) {
      std::vector<int32_t> ids = tokenizer.encode(spelling, text::SpecialTokens::kDisabled);
      const bool known = ids.empty() || std::ranges::find(params.banned_sequences, ids) !=
                                            params.banned_sequences.end();
      if (!known) params.banned_sequences.push_back(std::move(ids));
    }
  }
}

}  // namespace

void read_extras(Fields& fields, const ServedModel& model, GenerationParams& params) {
  read_bad_words(fields, model.tokenizer, params.sampling);
  params.sampling.logprob_token_ids =
      fields.ids("logprob_token_ids", model.vocab_size, kMaxLogprobIds);
  const auto drafts = fields.integer("num_speculative_tokens", 0, model.num_draft_tokens);
  if (drafts) params.num_draft_tokens = static_cast<int>(*drafts);
  params.stream_interval =
      fields.integer("stream_interval", 1, int64_t{1} << 20).value_or(model.stream_interval);
}

void read_thinking_budget(Fields& fields, const text::Tokenizer& tokenizer,
                          GenerationParams& params) {
  params.thinking_budget = fields.integer("thinking_token_budget", 0, int64_t{1} << 40);
  if (params.thinking_budget && !text::thought_marks(tokenizer))
    fields.fail("thinking_token_budget", "expected none: this model has no tokens for thoughts");
}

}  // namespace tandem::server
