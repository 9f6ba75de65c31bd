// One answer while it is made: tokens in, what a client may see out. Works token by token, so that
// the result does not depend on how many come at once.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "text/detokenizer.h"
#include "text/output_parser.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace tandem::server {

struct AnswerOptions {
  std::vector<std::string> stop;
  bool include_stop = false;
  int64_t min_tokens = 0;  // stop strings that are complete within so many are text
  bool skip_special_tokens = true;
  bool chat = false;  // split into reasoning, content and tool calls
  bool ignore_eos = false;
  bool include_reasoning = true;
  std::string call_id_prefix;
  std::shared_ptr<const text::ToolSchemas> tools;  // null: tool calls are not looked for
};

// Text of one kind, or a step of a tool call.
struct AnswerPiece : text::OutputEvent {
  bool drafted = false;  // an accepted draft completed it, not a token of the target's own
};

// A token that was taken, where its text begins in the answer's whole text.
struct AnswerToken {
  sampling::TokenChoice choice;
  int64_t text_offset = 0;  // in characters
};

class Answer {
 public:
  // The tokenizer must outlive this. The prompt tells whether the answer begins inside a thought.
  Answer(const text::Tokenizer& tokenizer, AnswerOptions options,
         std::span<const int32_t> prompt_ids);

  // Takes what a step gave; tokens after the one that completes a stop string are dropped. The
  // pieces are final.
  std::vector<AnswerPiece> push(engine::TokenEvent& event);
  // No more tokens follow: what was held back.
  std::vector<AnswerPiece> finish();

  bool stopped() const { return stop_text_.has_value(); }  // by a stop string
  const std::optional<std::string>& stop_text() const { return stop_text_; }
  bool has_tool_call() const { return has_tool_call_; }
  int64_t num_tokens() const { return num_tokens_; }
  int64_t num_reasoning_tokens() const { return num_reasoning_tokens_; }
  // Tokens taken since the last call.
  std::vector<AnswerToken> take_tokens();

 private:
  void push_token(int32_t token);
  void add_content(std::string_view text);
  // Stop strings watch the content; a call or a thought between two parts of it parts them.
  void flush_content();
  void emit(text::OutputEvent event);

  AnswerOptions options_;
  std::optional<text::Detokenizer> detokenizer_;  // not chat
  std::optional<text::OutputParser> parser_;      // chat
  std::optional<text::StopStringMatcher> matcher_;
  std::vector<AnswerPiece> pieces_;
  std::vector<AnswerToken> tokens_;
  std::optional<std::string> stop_text_;
  bool has_tool_call_ = false;
  bool drafted_ = false;  // the token that is taken now was drafted
  int64_t num_tokens_ = 0;
  int64_t num_reasoning_tokens_ = 0;
  int64_t num_chars_ = 0;
};

// A token's own text and bytes, for log-probabilities.
struct TokenText {
  std::string text;
  std::string bytes;
};
TokenText token_text(const text::Tokenizer& tokenizer, int32_t id);

}  // namespace tandem::server
