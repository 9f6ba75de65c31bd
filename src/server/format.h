// The JSON of answers: chat and completions, whole and in chunks.
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/answer.h"
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
  std::optional<std::string> finish_reason = {};
  std::optional<std::string> stop_text = {};  // the stop string that ended it
  std::optional<int32_t> stop_token = {};     // or the stop id
  int64_t num_drafted = 0;
  int64_t num_accepted = 0;  // of these, the ones that were kept
};

struct Usage {
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;
};

// What a request may ask to see of its tokens.
struct ReplyExtras {
  bool logprobs = false;
  bool token_ids = false;
  bool draft_info = false;  // which text was drafted
};

class ReplyFormat {
 public:
  ReplyFormat(const text::Tokenizer& tokenizer, ReplyNames names, ReplyExtras extras)
      : tokenizer_(tokenizer), names_(std::move(names)), extras_(extras) {}
  virtual ~ReplyFormat() = default;

  // The first chunk of a choice; empty when the route has none.
  virtual std::string begin_choice(int64_t index) const = 0;
  virtual std::string chunk(const ChoicePart& part, const std::optional<Usage>& usage) const = 0;
  // The chunk after the last choice when usage is asked for.
  std::string usage_chunk(const Usage& usage) const;
  std::string whole(const std::vector<ChoicePart>& choices, const Usage& usage,
                    const speculation::AcceptanceStats* speculation) const;

 protected:
  virtual nlohmann::ordered_json choice_json(const ChoicePart& part) const = 0;
  virtual const char* object_name(bool chunk) const = 0;
  nlohmann::ordered_json envelope(bool chunk) const;
  // An event of a stream, with usage if it has one.
  static std::string event(nlohmann::ordered_json reply, const std::optional<Usage>& usage);
  void add_end(nlohmann::ordered_json& choice, const ChoicePart& part) const;

  const text::Tokenizer& tokenizer_;
  ReplyNames names_;
  ReplyExtras extras_;
};

std::unique_ptr<ReplyFormat> make_chat_format(const text::Tokenizer& tokenizer, ReplyNames names,
                                              ReplyExtras extras);
// `echoes`: what each choice's text begins with; empty without echo.
std::unique_ptr<ReplyFormat> make_completion_format(const text::Tokenizer& tokenizer,
                                                    ReplyNames names, ReplyExtras extras,
                                                    std::vector<std::string> echoes);

}  // namespace tandem::server
