#include "cli/answer.h"

#include <algorithm>

namespace tandem::cli {

Answer::Answer(const text::Tokenizer* tokenizer, std::vector<std::string> stop, bool include_stop,
               int64_t min_tokens, std::span<const int32_t> prompt_ids)
    : tokenizer_(tokenizer),
      include_stop_(include_stop),
      matcher_(std::move(stop), include_stop),
      min_tokens_(static_cast<size_t>(min_tokens)) {
  if (tokenizer_ == nullptr) return;
  detokenizer_.emplace(*tokenizer_, /*skip_special_tokens=*/true);
  thought_begin_ = tokenizer_->token_to_id("<|channel>");
  thought_end_ = tokenizer_->token_to_id("<channel|>");
  for (const int32_t id : prompt_ids) {
    if (id == thought_begin_) thinking_ = true;
    if (id == thought_end_) thinking_ = false;
  }
}

std::vector<AnswerText> Answer::push(const engine::TokenEvent& event) {
  std::vector<AnswerText> out;
  // The token that ends an answer is no part of its text, as from the server.
  const bool hides_last = event.finish && event.finish->stop_token && !include_stop_;
  for (size_t i = 0; i < event.tokens.size() && !stopped(); ++i) {
    token_ids_.push_back(event.tokens[i].token);
    if (!hides_last || i + 1 < event.tokens.size())
      push_token(event.tokens[i].token, static_cast<int>(i) < event.num_accepted, out);
  }
  return out;
}

void Answer::push_token(int32_t token, bool accepted, std::vector<AnswerText>& out) {
  if (!detokenizer_) return;
  if (token == thought_begin_) thinking_ = true;
  const std::string piece = detokenizer_->push(token);
  if (!piece.empty()) held_.push_back({piece.size(), accepted, thinking_});
  if (token == thought_end_) thinking_ = false;
  show(piece, out);
}

std::vector<AnswerText> Answer::finish() {
  std::vector<AnswerText> out;
  if (!detokenizer_ || stopped()) return out;
  const std::string rest = detokenizer_->finish();
  if (!rest.empty()) held_.push_back({rest.size(), false, thinking_});
  show(rest, out);
  release(matcher_.finish(), out);
  return out;
}

void Answer::show(std::string_view text, std::vector<AnswerText>& out) {
  release(matcher_.push(text, token_ids_.size() > min_tokens_).text, out);
}

void Answer::release(const std::string& text, std::vector<AnswerText>& out) {
  text_ += text;
  for (size_t begin = 0; begin < text.size();) {
    Held& origin = held_.front();
    const size_t count = std::min(origin.num_bytes, text.size() - begin);
    const std::string part = text.substr(begin, count);
    if (!origin.thinking) content_ += part;
    const bool same = !out.empty() && out.back().accepted == origin.accepted &&
                      out.back().thinking == origin.thinking;
    if (same)
      out.back().text += part;
    else
      out.push_back({part, origin.accepted, origin.thinking});
    begin += count;
    origin.num_bytes -= count;
    if (origin.num_bytes == 0) held_.pop_front();
  }
}

}  // namespace tandem::cli
