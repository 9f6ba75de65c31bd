#include "cli/generate_output.h"

#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"

namespace tandem::cli {
namespace {

constexpr size_t kTitleBytes = 90;

// The first line of a prompt, short.
std::string shorten(const std::string& title) {
  std::string line = printable(title.substr(0, title.find('\n')));
  if (line.size() <= kTitleBytes) return line;
  size_t end = kTitleBytes;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xc0U) == 0x80U) --end;
  return line.substr(0, end) + "...";
}

}  // namespace

GenerateOutput::GenerateOutput(std::vector<GenerateItem> items,
                               const GenerateOutputOptions& options)
    : items_(std::move(items)),
      options_(options),
      output_(STDOUT_FILENO),
      printer_(output_, is_terminal(STDOUT_FILENO), shows_colour(STDOUT_FILENO),
               options.show_accepted),
      streams_(!options.json && is_terminal(STDOUT_FILENO)),
      pending_(items_.size()) {
  if (!streams_ && items_.size() > 1) progress_.emplace("answering");
}

void GenerateOutput::add_text(size_t index, const GenerationState& state,
                              std::span<const AnswerText> texts) {
  Pending& pending = pending_[index];
  if (!options_.json) pending.texts.insert(pending.texts.end(), texts.begin(), texts.end());
  if (state.finish) {
    pending.state = &state;
    ++num_done_;
    num_tokens_ += static_cast<int64_t>(state.answer.token_ids().size());
  }
  show_current();
}

void GenerateOutput::show_current() {
  for (; current_ < pending_.size(); ++current_) {
    Pending& pending = pending_[current_];
    if (options_.json) {
      if (pending.state == nullptr) return;
      write_json(current_);
      continue;
    }
    if (!pending.begun && pending.texts.empty() && pending.state == nullptr) return;
    if (!pending.begun && items_.size() > 1 && !items_[current_].title.empty())
      output_.write(
          fmt::format("{}> {}\n", current_ == 0 ? "" : "\n", shorten(items_[current_].title)));
    pending.begun = true;
    printer_.write(pending.texts);
    pending.texts.clear();
    if (pending.state == nullptr) return;
    if (!pending.state->answer.has_text())
      output_.write(fmt::format("[{}]", fmt::join(pending.state->answer.token_ids(), ", ")) + "\n");
    printer_.end();
  }
}

void GenerateOutput::write_json(size_t index) {
  const GenerateItem& item = items_[index];
  const GenerationState& state = *pending_[index].state;
  if (state.finish->reason == engine::FinishReason::kCancelled) return;
  output_.write(answer_json({.id = item.id,
                             .index = index,
                             .prompt = item.prompt ? &*item.prompt : nullptr,
                             .answer = &state.answer,
                             .finish = &*state.finish,
                             .num_draft_tokens = options_.num_draft_tokens,
                             .synthetic = options_.synthetic}) +
                "\n");
}

void GenerateOutput::show_progress() {
  if (!progress_) return;
  progress_->update(static_cast<int64_t>(num_done_), static_cast<int64_t>(items_.size()),
                    fmt::format("{} of {} answers, {:.0f} tokens/s", num_done_, items_.size(),
                                static_cast<double>(num_tokens_) / clock_.seconds()));
}

base::Status GenerateOutput::finish(const std::vector<GenerationState>& states) {
  progress_.reset();
  printer_.end();
  TANDEM_RETURN_IF_ERROR(output_.status());
  return summarize(states);
}

base::Status GenerateOutput::summarize(const std::vector<GenerationState>& states) const {
  speculation::AcceptanceStats acceptance;
  int64_t num_tokens = 0;
  size_t num_cancelled = 0;
  for (const GenerationState& state : states) {
    acceptance.add(state.finish->stats.acceptance);
    num_tokens += static_cast<int64_t>(state.answer.token_ids().size());
    if (state.finish->reason == engine::FinishReason::kCancelled) ++num_cancelled;
  }
  if (!options_.json) {
    const std::string line = describe_run(num_tokens, clock_.seconds(), acceptance,
                                          options_.num_draft_tokens, options_.synthetic);
    const bool colour = shows_colour(STDERR_FILENO);
    Output(STDERR_FILENO)
        .write(colour ? fmt::format("{}{}{}\n", style::kDim, line, style::kReset) : line + "\n");
  }
  if (num_cancelled > 0)
    return base::make_error(base::ErrorCode::kCancelled,
                            fmt::format("interrupted: {} of {} answers were finished",
                                        states.size() - num_cancelled, states.size()));
  for (size_t i = 0; i < states.size(); ++i)
    if (states[i].finish->reason == engine::FinishReason::kError)
      return base::make_error(base::ErrorCode::kInternal,
                              fmt::format("prompt {}: {}", i, states[i].finish->error));
  return {};
}

}  // namespace tandem::cli
