// How `tandem generate` shows its answers: in the order of the prompts, whichever is done first.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "cli/answer_printer.h"
#include "cli/generate_report.h"
#include "cli/generation.h"
#include "cli/progress.h"

namespace tandem::cli {

struct GenerateOutputOptions {
  bool json = false;
  bool show_accepted = false;
  int num_draft_tokens = 0;
  bool synthetic = false;
};

// What is known of a request before it runs.
struct GenerateItem {
  std::shared_ptr<const nlohmann::ordered_json> id;  // may be null
  std::optional<std::string> prompt;                 // as the model reads it; none for ids
  std::string title;                                 // the user's own words, for a list of answers
};

class GenerateOutput {
 public:
  GenerateOutput(std::vector<GenerateItem> items, const GenerateOutputOptions& options);

  // Callbacks of generate(); `state` is that of request `index`.
  void add_text(size_t index, const GenerationState& state, std::span<const AnswerText> texts);
  void show_progress();
  // Closes the list: the summary line on stderr, and what went wrong.
  base::Status finish(const std::vector<GenerationState>& states);

 private:
  void show_current();
  void write_json(size_t index);
  base::Status summarize(const std::vector<GenerationState>& states) const;

  std::vector<GenerateItem> items_;
  GenerateOutputOptions options_;
  Output output_;
  AnswerPrinter printer_;
  bool streams_;  // text reaches a terminal while it is made
  struct Pending {
    std::vector<AnswerText> texts;
    const GenerationState* state = nullptr;  // set when it is done
    bool begun = false;
  };
  std::vector<Pending> pending_;
  size_t current_ = 0;  // the first request that is not wholly shown
  size_t num_done_ = 0;
  int64_t num_tokens_ = 0;
  base::Stopwatch clock_;
  std::optional<Progress> progress_;
};

}  // namespace tandem::cli
