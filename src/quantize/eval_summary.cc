#include "quantize/eval_summary.h"

#include <fmt/format.h>

#include <algorithm>
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

// Standard error of the mean acceptance length, rounds taken as independent: P(more than i drafts
// accepted) is the rate at position i.
double length_error(const speculation::AcceptanceStats& stats) {
  double mean = 0;
  double square = 0;
  for (int i = 0; i < speculation::kMaxDraftTokens; ++i) {
    mean += stats.rate_at(i);
    square += (2 * i + 1) * stats.rate_at(i);
  }
  return std::sqrt(std::max(0.0, square - mean * mean) /
                   static_cast<double>(std::max<int64_t>(1, stats.num_drafts)));
}

// With the range in which 95 of 100 such measurements fall.
std::string kept_text(const speculation::AcceptanceStats& ours,
                      const speculation::AcceptanceStats& theirs) {
  const double a = ours.mean_acceptance_length();
  const double b = theirs.mean_acceptance_length();
  if (std::abs(a - b) < 0.0005 * b) return "No acceptance length was lost";
  const double spread = 2 * a / b * std::hypot(length_error(ours) / a, length_error(theirs) / b);
  return fmt::format("The candidate keeps {:.1f} % (± {:.1f} %) of the acceptance length",
                     100 * a / b, 100 * spread);
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
    text = kept_text(ours.stats, theirs.stats);
  } else {
    text = "The target was compared alone";
  }
  if (theirs.num_scored > 0) {
    const int64_t lost = theirs.num_exact - ours.num_exact;
    text += lost == 0 ? fmt::format("; exact answers are unchanged ({} of {})", ours.num_exact,
                                    ours.num_scored)
                      : fmt::format("; it {} {} of {} exact answers", lost > 0 ? "lost" : "gained",
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
