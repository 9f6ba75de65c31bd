// One answer while it is being made: tokens in, text out that is ready to be shown.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace tandem::cli {

// A stretch of an answer. Its origin never changes the text.
struct AnswerText {
  std::string text;
  bool accepted = false;  // from drafted tokens that the target accepted
  bool thinking = false;  // inside the thought channel
};

class Answer {
 public:
  // tokenizer null: ids only. prompt_ids tell whether the answer begins inside a thought.
  // min_tokens: stop strings that are complete within so many are text.
  Answer(const text::Tokenizer* tokenizer, std::vector<std::string> stop, bool include_stop,
         int64_t min_tokens, std::span<const int32_t> prompt_ids);

  // Takes what a step gave. Tokens after the one that completes a stop string are dropped, so the
  // answer does not depend on how many came at once.
  std::vector<AnswerText> push(const engine::TokenEvent& event);
  // The text that was held back, when no more tokens follow.
  std::vector<AnswerText> finish();

  bool has_text() const { return detokenizer_.has_value(); }  // false without a tokenizer
  bool stopped() const { return matcher_.stopped(); }         // by a stop string
  const std::vector<int32_t>& token_ids() const { return token_ids_; }
  const std::string& text() const { return text_; }        // special tokens left out
  const std::string& content() const { return content_; }  // the text outside thoughts

 private:
  void push_token(int32_t token, bool accepted, std::vector<AnswerText>& out);
  // Through the matcher.
  void show(std::string_view text, std::vector<AnswerText>& out);
  // Text that the matcher let go, with the origins of its bytes.
  void release(const std::string& text, std::vector<AnswerText>& out);

  struct Held {
    size_t num_bytes;
    bool accepted;
    bool thinking;
  };
  const text::Tokenizer* tokenizer_;
  bool include_stop_;
  std::optional<text::Detokenizer> detokenizer_;
  text::StopStringMatcher matcher_;
  size_t min_tokens_;
  std::optional<int32_t> thought_begin_, thought_end_;  // <|channel>, <channel|>
  bool thinking_ = false;
  std::deque<Held> held_;
  std::vector<int32_t> token_ids_;
  std::string text_;
  std::string content_;
};

}  // namespace tandem::cli
