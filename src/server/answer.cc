#include "server/answer.h"

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace tandem::server {
namespace {

using Kind = text::OutputEvent::Kind;

text::OutputParserOptions parser_options(const AnswerOptions& options) {
  text::OutputParserOptions result;
  result.parse_tools = options.tools != nullptr;
  result.skip_special_tokens = options.skip_special_tokens;
  result.end_tokens_end = !options.ignore_eos;
  result.call_id_prefix = options.call_id_prefix;
  result.tools = options.tools;
  return result;
}

}  // namespace

Answer::Answer(const text::Tokenizer& tokenizer, AnswerOptions options,
               std::span<const int32_t> prompt_ids)
    : options_(std::move(options)) {
  if (options_.chat)
    parser_.emplace(tokenizer, parser_options(options_), prompt_ids);
  else
    detokenizer_.emplace(tokenizer, options_.skip_special_tokens);
  matcher_.emplace(options_.stop, options_.include_stop);
}

std::vector<AnswerPiece> Answer::push(engine::TokenEvent& event) {
  const bool hide_last = event.finish && event.finish->stop_token && !options_.include_stop;
  for (size_t i = 0; i < event.tokens.size() && !stopped(); ++i) {
    ++num_tokens_;
    drafted_ = i < static_cast<size_t>(event.num_accepted);
    const int32_t token = event.tokens[i].token;
    tokens_.push_back({std::move(event.tokens[i]), num_chars_});
    // The token that ended the answer is counted, but is no part of its text.
    if (!hide_last || i + 1 < event.tokens.size()) push_token(token);
    if (parser_ && parser_->in_reasoning()) ++num_reasoning_tokens_;
  }
  return std::exchange(pieces_, {});
}

void Answer::push_token(int32_t token) {
  if (detokenizer_) {
    const std::string text = detokenizer_->push(token);
    num_chars_ += text::num_characters(text);
    tokens_.back().text_offset += detokenizer_->num_broken();
    return add_content(text);
  }
  for (text::OutputEvent& event : parser_->push(std::span<const int32_t>(&token, 1))) {
    if (stopped()) return;
    if (event.kind == Kind::kContent)
      add_content(event.text);
    else
      emit(std::move(event));
  }
}

std::vector<AnswerPiece> Answer::finish() {
  if (stopped()) return std::exchange(pieces_, {});
  if (detokenizer_) add_content(detokenizer_->finish());
  if (parser_) {
    for (text::OutputEvent& event : parser_->finish()) {
      if (stopped()) break;
      if (event.kind == Kind::kContent)
        add_content(event.text);
      else
        emit(std::move(event));
    }
  }
  if (!stopped()) flush_content();
  return std::exchange(pieces_, {});
}

void Answer::add_content(std::string_view text) {
  if (text.empty()) return;
  text::StopStringMatcher::Output output = matcher_->push(text, num_tokens_ > options_.min_tokens);
  if (output.stopped) stop_text_ = std::move(output.stop_text);
  if (!output.text.empty())
    pieces_.push_back({{Kind::kContent, std::move(output.text), -1, "", ""}, drafted_});
}

void Answer::flush_content() {
  std::string rest = matcher_->finish();  // and begins again
  if (!rest.empty()) pieces_.push_back({{Kind::kContent, std::move(rest), -1, "", ""}, drafted_});
}

void Answer::emit(text::OutputEvent event) {
  flush_content();
  if (event.kind == Kind::kToolCallEnd) has_tool_call_ = true;
  if (event.kind == Kind::kReasoning && !options_.include_reasoning) return;
  pieces_.push_back({std::move(event), drafted_});
}

std::vector<AnswerToken> Answer::take_tokens() {
  return std::exchange(tokens_, {});
}

TokenText token_text(const text::Tokenizer& tokenizer, int32_t id) {
  const int byte = tokenizer.byte_value(id);
  if (byte >= 0)
    return {std::string(text::kReplacementCharacter), std::string(1, static_cast<char>(byte))};
  std::string text(tokenizer.is_special(id) ? tokenizer.id_to_token(id) : tokenizer.piece(id));
  return {text, text};
}

}  // namespace tandem::server
