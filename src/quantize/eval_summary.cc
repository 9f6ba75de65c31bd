#include "quantize/eval_summary.h"

#include <fmt/format.h>

#include <cmath>

namespace tandem::quantize {
namespace {

std::string rates_text(const speculation::AcceptanceStats& stats, int num_draft_tokens) {
  std::string text;
  for (int i = 0; i < num_draft_tokens; ++i)
    text += fmt::format("{}{:.3f}", i == 0 ? "" : " / ", stats.rate_at(i));
  return text;
}

std::string acceptance_line(const EvalResult& result) {
  const auto& ours = result.candidate->all.stats;
  const int k = result.num_draft_tokens;
  std::string line =
      fmt::format("acceptance  K={}: mean length {:.3f}", k, ours.mean_acceptance_length());
  if (result.reference)
    line += fmt::format(
        " against {:.3f} ({:.1f} %)", result.reference->all.stats.mean_acceptance_length(),
        100 * ours.mean_acceptance_length() / result.reference->all.stats.mean_acceptance_length());
  line += "; by position " + rates_text(ours, k);
  if (result.reference) line += " against " + rates_text(result.reference->all.stats, k);
  return line + "\n";
}

std::string exact_line(const EvalResult& result) {
  const TaskScore& ours = result.candidate->all;
  std::string line = fmt::format("exact       {} of {} answers", ours.num_exact, ours.num_scored);
  if (result.reference) line += fmt::format(" against {}", result.reference->all.num_exact);
  return line + "\n";
}

std::string text_line(const TextScore& text) {
  std::string line =
      fmt::format("text        {} tokens: perplexity {:.4f}", text.num_tokens, text.perplexity);
  if (text.comparison)
    line += fmt::format(
        " against {:.4f}; KL {:.5f} per token, 99 % below {:.4f}; same first choice {:.2f} %",
        text.comparison->perplexity, text.comparison->kl_mean, text.comparison->kl_p99,
        100 * text.comparison->same_choice);
  return line + "\n";
}

// "lost 0.4 % of", "gained 0.2 % of"; nothing when the two agree to 0.05 %.
std::string change_text(double loss) {
  if (std::abs(loss) < 0.0005) return {};
  return fmt::format("{} {:.1f} %", loss > 0 ? "lost" : "gained", 100 * std::abs(loss));
}

}  // namespace

std::string eval_headline(const EvalResult& result) {
  if (!result.candidate) return "Nothing was measured.";
  const TaskScore& ours = result.candidate->all;
  if (!result.reference) {
    if (result.num_draft_tokens == 0) return "The target alone: no assistant, no reference.";
    return fmt::format("{:.2f} tokens per target pass, measured without a reference.",
                       ours.stats.mean_acceptance_length());
  }
  const TaskScore& theirs = result.reference->all;
  std::string text;
  if (ours.stats.num_drafts > 0 && theirs.stats.num_drafts > 0) {
    const double ratio =
        ours.stats.mean_acceptance_length() / theirs.stats.mean_acceptance_length();
    const std::string change = change_text(1 - ratio);
    text = change.empty() ? "No acceptance length was lost"
                          : fmt::format("The candidate {} of the acceptance length", change);
  } else {
    text = "The target was compared alone";
  }
  if (theirs.num_scored > 0) {
    const int64_t lost = theirs.num_exact - ours.num_exact;
    text += lost == 0 ? fmt::format("; exact answers are unchanged ({} of {})", ours.num_exact,
                                    ours.num_scored)
                      : fmt::format("; {} {} of {} exact answers", lost > 0 ? "lost" : "gained",
                                    std::abs(lost), theirs.num_exact);
  }
  return text + ".";
}

std::string eval_summary(const EvalResult& result, const GateResult* gate) {
  std::string text = eval_headline(result) + "\n";
  if (result.text) text += text_line(*result.text);
  if (result.candidate && result.num_draft_tokens > 0) text += acceptance_line(result);
  if (result.candidate && result.candidate->all.num_scored > 0) text += exact_line(result);
  if (gate == nullptr) return text;
  text += gate->passed ? "gate        passed\n" : "gate        FAILED\n";
  for (const GateCheck& check : gate->checks)
    text += fmt::format("  {} {}: {:.4f}, {} {}\n", check.passed() ? "ok  " : "FAIL", check.name,
                        check.value, check.at_least ? "at least" : "at most", check.bound);
  for (const Cause& cause : gate->causes) text += fmt::format("  cause: {}\n", cause.message);
  return text;
}

}  // namespace tandem::quantize
