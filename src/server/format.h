// The text of answers, whole and as events of a stream: what all routes share, and OpenAI's chat
// and completions.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/answer.h"
#include "server/api_error.h"
#include "text/tokenizer.h"

namespace tandem::server {

struct ReplyNames {
  std::string id;  // chatcmpl-..., cmpl-...
  int64_t created = 0;
  std::string model;
};

// A part of a choice, or all of it.
struct ChoicePart {
  int64_t index = 0;
  std::vector<AnswerPiece> pieces = {};
  std::vector<AnswerToken> tokens = {};
  std::vector<sampling::TokenScore> prompt_scores = {};  // of prompt token i + 1, if asked for
  std::optional<std::string> finish_reason = {};
  std::optional<std::string> stop_text = {};  // the stop string that ended it
  std::optional<int32_t> stop_token = {};     // or the stop id
  int64_t num_drafted = 0;
  int64_t num_accepted = 0;  // of these, the ones that were kept
};

struct Usage {
  int64_t num_prompt_tokens = 0;
  int64_t num_cached_tokens = 0;  // of these, from the prefix cache
  int64_t num_output_tokens = 0;
  int64_t num_reasoning_tokens = 0;  // of these
};

// One reply's: it may keep state from one event to the next.
class ReplyFormat {
 public:
  virtual ~ReplyFormat() = default;

  // A stream is, for each choice, its beginning (empty where the route has none), and its parts as
  // they come; then the end.
  virtual std::string begin_choice(int64_t index, const Usage& usage) = 0;
  virtual std::string chunk(const ChoicePart& part, const Usage& usage) = 0;
  // `speculation` may be null.
  virtual std::string end_stream(const Usage& usage,
                                 const speculation::AcceptanceStats* speculation) = 0;
  // Instead of the end.
  virtual std::string stream_error(const ApiError& error) = 0;

  virtual std::string whole(const std::vector<ChoicePart>& choices, const Usage& usage,
                            const speculation::AcceptanceStats* speculation) = 0;
  virtual Reply error(const ApiError& error) const { return error_reply(error); }
};

// What a request may ask to see of its tokens.
struct ReplyExtras {
  bool logprobs = false;
  bool token_ids = false;
  bool tokens_as_ids = false;  // log-probabilities name tokens `token_id:42`
  bool draft_info = false;     // which text was drafted
  bool prompt_logprobs = false;
  bool usage_chunk = false;      // a last chunk with usage
  bool usage_in_chunks = false;  // and usage so far in each
  bool prompt_details = false;   // and in usage: tokens from the prefix cache
};

// Chat and completions.
class OpenAiFormat : public ReplyFormat {
 public:
  OpenAiFormat(const text::Tokenizer& tokenizer, ReplyNames names, ReplyExtras extras)
      : tokenizer_(tokenizer), names_(std::move(names)), extras_(extras) {}

  std::string end_stream(const Usage& usage,
                         const speculation::AcceptanceStats* speculation) override;
  std::string stream_error(const ApiError& error) override;
  std::string whole(const std::vector<ChoicePart>& choices, const Usage& usage,
                    const speculation::AcceptanceStats* speculation) override;

 protected:
  virtual nlohmann::ordered_json choice_json(const ChoicePart& part) const = 0;
  virtual const char* object_name(bool chunk) const = 0;
  // Fields of the whole reply beside its choices.
  virtual void add_fields(const std::vector<ChoicePart>&, nlohmann::ordered_json&) const {}
  nlohmann::ordered_json envelope(bool chunk) const;
  // The chunk of one choice.
  std::string choice_event(nlohmann::ordered_json choice, const Usage& usage) const;
  // [null, {"id": {"logprob", "rank", "decoded_token"}, ...}, ...]: one for each prompt token.
  nlohmann::ordered_json prompt_logprobs_json(const ChoicePart& part) const;
  // What log-probabilities call a token.
  std::string token_name(int32_t id) const;
  void add_end(nlohmann::ordered_json& choice, const ChoicePart& part) const;

  const text::Tokenizer& tokenizer_;
  ReplyNames names_;
  ReplyExtras extras_;
};

// A prompt that the answer begins with.
struct Echo {
  std::string text;
  std::vector<int32_t> ids;
  bool hides_bos = false;  // <bos> is the first id, but no part of the text
};

std::unique_ptr<ReplyFormat> make_chat_format(const text::Tokenizer& tokenizer, ReplyNames names,
                                              ReplyExtras extras);
// `echoes`: what each choice's text begins with; empty without echo.
std::unique_ptr<ReplyFormat> make_completion_format(const text::Tokenizer& tokenizer,
                                                    ReplyNames names, ReplyExtras extras,
                                                    std::vector<Echo> echoes);

}  // namespace tandem::server
