// text_completion, whole and in chunks.
#include <nlohmann/json.hpp>

#include "server/format.h"
#include "text/detokenizer.h"
#include "text/utf8.h"

namespace tandem::server {
namespace {

using nlohmann::ordered_json;

class CompletionFormat : public OpenAiFormat {
 public:
  CompletionFormat(const text::Tokenizer& tokenizer, ReplyNames names, ReplyExtras extras,
                   std::vector<Echo> echoes)
      : OpenAiFormat(tokenizer, std::move(names), extras), echoes_(std::move(echoes)) {
    pending_.assign(echoes_.size(), 1);
  }

  // With log-probabilities the prompt waits for its own.
  std::string begin_choice(int64_t index, const Usage& usage) override {
    if (echoes_.empty() || extras_.logprobs) return {};
    pending_[static_cast<size_t>(index)] = 0;
    return choice_event(choice_of(echo_of(index).text, {.index = index}, nullptr), usage);
  }

  std::string chunk(const ChoicePart& part, const Usage& usage) override {
    const auto index = static_cast<size_t>(part.index);
    const bool echoes = !echoes_.empty() && pending_[index] != 0;
    if (echoes) pending_[index] = 0;
    const Echo* echo = echoes ? &echoes_[index] : nullptr;
    return choice_event(choice_of((echo ? echo->text : "") + text_of(part), part, echo), usage);
  }

 protected:
  const char* object_name(bool) const override { return "text_completion"; }

  ordered_json choice_json(const ChoicePart& part) const override {
    const Echo* echo = echoes_.empty() ? nullptr : &echo_of(part.index);
    return choice_of((echo ? echo->text : "") + text_of(part), part, echo);
  }

 private:
  const Echo& echo_of(int64_t index) const { return echoes_[static_cast<size_t>(index)]; }

  static std::string text_of(const ChoicePart& part) {
    std::string text;
    for (const AnswerPiece& piece : part.pieces) text += piece.text;
    return text;
  }

  // `echo`: the prompt that `text` begins with, if it does.
  ordered_json choice_of(const std::string& text, const ChoicePart& part, const Echo* echo) const {
    ordered_json choice = {{"index", part.index}, {"text", text}};
    choice["logprobs"] = extras_.logprobs ? logprobs_json(part, echo) : nullptr;
    if (extras_.prompt_logprobs) choice["prompt_logprobs"] = prompt_logprobs_json(part);
    add_end(choice, part);
    return choice;
  }

  // A token's log-probability (null for the first of a prompt) and those of the likeliest.
  void add_token(ordered_json& lists, int64_t offset, int32_t token, const ordered_json& logprob,
                 const std::vector<sampling::TokenLogprob>& top) const {
    const std::string text = token_name(token);
    lists["text_offset"].push_back(offset);
    lists["token_logprobs"].push_back(logprob);
    lists["tokens"].push_back(text);
    ordered_json entries = nullptr;
    if (!logprob.is_null()) {
      entries = ordered_json::object();
      for (const sampling::TokenLogprob& other : top)
        entries[token_name(other.token)] = other.logprob;
      entries[text] = logprob;
    }
    lists["top_logprobs"].push_back(std::move(entries));
  }

  // With where the text of each token begins in what is shown.
  void add_prompt(ordered_json& lists, const Echo& echo, const ChoicePart& part) const {
    text::Detokenizer detokenizer(tokenizer_, false);
    int64_t offset = 0;
    for (size_t i = 0; i < echo.ids.size(); ++i) {
      const std::string text = detokenizer.push(echo.ids[i]);
      const int64_t begin = offset + detokenizer.num_broken();
      if (i == 0)
        add_token(lists, begin, echo.ids[i], nullptr, {});
      else
        add_token(lists, begin, echo.ids[i], part.prompt_scores.at(i - 1).logprob,
                  part.prompt_scores.at(i - 1).top);
      // <bos> in front of a text is no part of it.
      const bool shown = i > 0 || !echo.hides_bos;
      if (shown) offset += text::num_characters(text);
    }
  }

  ordered_json logprobs_json(const ChoicePart& part, const Echo* echo) const {
    ordered_json lists = {{"text_offset", ordered_json::array()},
                          {"token_logprobs", ordered_json::array()},
                          {"tokens", ordered_json::array()},
                          {"top_logprobs", ordered_json::array()}};
    if (echo != nullptr) add_prompt(lists, *echo, part);
    const int64_t begin = echoes_.empty() ? 0 : text::num_characters(echo_of(part.index).text);
    for (const AnswerToken& token : part.tokens)
      add_token(lists, begin + token.text_offset, token.choice.token, token.choice.logprob,
                token.choice.top);
    return lists;
  }

  std::vector<Echo> echoes_;      // of each choice; empty without echo
  std::vector<uint8_t> pending_;  // of each echo: it has not been shown yet
};

}  // namespace

std::unique_ptr<ReplyFormat> make_completion_format(const text::Tokenizer& tokenizer,
                                                    ReplyNames names, ReplyExtras extras,
                                                    std::vector<Echo> echoes) {
  return std::make_unique<CompletionFormat>(tokenizer, std::move(names), extras, std::move(echoes));
}

}  // namespace tandem::server
