#include "cli/answer_printer.h"

namespace tandem::cli {
namespace {

constexpr std::string_view kChannelName = "thought\n";

}  // namespace

std::string AnswerPrinter::without_channel_name(std::string text) {
  const size_t held_back = name_matched_;  // of earlier texts
  size_t skipped = 0;
  while (name_matched_ < kChannelName.size() && skipped < text.size()) {
    if (text[skipped] != kChannelName[name_matched_]) {
      name_matched_ = kChannelName.size();
      return std::string(kChannelName.substr(0, held_back)) + text;  // another word
    }
    ++skipped;
    ++name_matched_;
  }
  return text.substr(skipped);
}

void AnswerPrinter::write(std::span<const AnswerText> texts) {
  for (const AnswerText& part : texts) {
    if (!terminal_) {
      output_.write(part.text);
      last_ = part.text.back();
      continue;
    }
    if (part.thinking && !was_thinking_) name_matched_ = 0;
    if (was_thinking_ && !part.thinking && last_ != '\n') output_.write("\n");
    was_thinking_ = part.thinking;
    std::string text = printable(part.thinking ? without_channel_name(part.text) : part.text);
    if (text.empty()) continue;
    last_ = text.back();
    std::string styled;
    if (colour_ && part.thinking) styled += style::kDim;
    if (colour_ && show_accepted_ && part.accepted) styled += style::kGreen;
    if (styled.empty())
      output_.write(text);
    else
      output_.write(styled + text + std::string(style::kReset));
  }
}

void AnswerPrinter::end() {
  if (last_ != '\n') output_.write("\n");
  last_ = '\n';
  was_thinking_ = false;
}

}  // namespace tandem::cli
