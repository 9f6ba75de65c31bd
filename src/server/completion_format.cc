// text_completion, whole and in chunks.
#include <nlohmann/json.hpp>

#include "server/format.h"

namespace tandem::server {
namespace {

using nlohmann::ordered_json;

class CompletionFormat : public ReplyFormat {
 public:
  CompletionFormat(const text::Tokenizer& tokenizer, ReplyNames names, ReplyExtras extras,
                   std::vector<std::string> echoes)
      : ReplyFormat(tokenizer, std::move(names), extras), echoes_(std::move(echoes)) {}

  std::string begin_choice(int64_t index) const override {
    if (echoes_.empty()) return {};
    return event_of(echoes_[static_cast<size_t>(index)], {.index = index}, {});
  }

  std::string chunk(const ChoicePart& part, const std::optional<Usage>& usage) const override {
    return event_of(text_of(part), part, usage);
  }

 protected:
  const char* object_name(bool) const override { return "text_completion"; }

  ordered_json choice_json(const ChoicePart& part) const override {
    const std::string echo = echoes_.empty() ? "" : echoes_[static_cast<size_t>(part.index)];
    return choice_of(echo + text_of(part), part);
  }

 private:
  static std::string text_of(const ChoicePart& part) {
    std::string text;
    for (const AnswerPiece& piece : part.pieces) text += piece.text;
    return text;
  }

  ordered_json choice_of(const std::string& text, const ChoicePart& part) const {
    ordered_json choice = {{"index", part.index}, {"text", text}};
    choice["logprobs"] = extras_.logprobs ? logprobs_json(part) : nullptr;
    add_end(choice, part);
    return choice;
  }

  std::string event_of(const std::string& text, const ChoicePart& part,
                       const std::optional<Usage>& usage) const {
    ordered_json reply = envelope(true);
    reply["choices"] = ordered_json::array({choice_of(text, part)});
    return event(std::move(reply), usage);
  }

  ordered_json logprobs_json(const ChoicePart& part) const {
    ordered_json result = {{"text_offset", ordered_json::array()},
                           {"token_logprobs", ordered_json::array()},
                           {"tokens", ordered_json::array()},
                           {"top_logprobs", ordered_json::array()}};
    for (const AnswerToken& token : part.tokens) {
      result["text_offset"].push_back(token.text_offset);
      result["token_logprobs"].push_back(token.choice.logprob);
      result["tokens"].push_back(token_text(tokenizer_, token.choice.token).text);
      ordered_json top = ordered_json::object();
      for (const sampling::TokenLogprob& other : token.choice.top)
        top[token_text(tokenizer_, other.token).text] = other.logprob;
      top[token_text(tokenizer_, token.choice.token).text] = token.choice.logprob;
      result["top_logprobs"].push_back(std::move(top));
    }
    return result;
  }

  std::vector<std::string> echoes_;
};

}  // namespace

std::unique_ptr<ReplyFormat> make_completion_format(const text::Tokenizer& tokenizer,
                                                    ReplyNames names, ReplyExtras extras,
                                                    std::vector<std::string> echoes) {
  return std::make_unique<CompletionFormat>(tokenizer, std::move(names), extras, std::move(echoes));
}

}  // namespace tandem::server
