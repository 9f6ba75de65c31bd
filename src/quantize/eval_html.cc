#include "quantize/eval_html.h"

#include <fmt/format.h>

#include "quantize/eval_charts.h"
#include "quantize/eval_summary.h"
#include "quantize/eval_svg.h"

namespace tandem::quantize {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --page: #fbfbf9; --card: #ffffff; --ink: #1d2125; --muted: #59626b;
  --line: #dfe2e5; --ref: #a3abb3; --cand: #0b6e99; --good: #1a7f4b; --bad: #b3261e; --band: #f0e6d2; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1c2024; --ink: #e8eaec;
  --muted: #a5adb5; --line: #343a40; --ref: #727b84; --cand: #5cb8e4; --good: #5fcb93; --bad: #ff8a80;
  --band: #38321f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 16px 48px; }
h1 { font-size: clamp(1.35rem, 3.4vw, 2rem); line-height: 1.25; margin: 6px 0 18px; max-width: 34em;
  text-wrap: balance; }
h2 { font-size: 1rem; margin: 0 0 10px; }
.verdict { display: inline-block; font-weight: 650; font-size: .875rem; padding: 2px 10px;
  border-radius: 999px; border: 1.5px solid; }
.passed { color: var(--good); } .failed { color: var(--bad); }
.causes { border-left: 3px solid var(--bad); padding: 2px 0 2px 14px; margin: 0 0 20px; list-style: none; }
.causes li { margin: 6px 0; overflow-wrap: anywhere; }
.tiles { display: grid; gap: 12px; margin: 0 0 28px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 160px), 1fr)); }
.tile, figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 14px 16px; }
.tile .name { font-size: .8125rem; color: var(--muted); }
.tile .value { font-size: clamp(1.25rem, 5.5vw, 1.75rem); font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile .note { font-size: .8125rem; color: var(--muted); }
.plots { display: grid; gap: 16px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); }
figure { margin: 0; padding: 16px; min-width: 0; }
figcaption { font-size: .8125rem; color: var(--muted); margin: 8px 0; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; max-width: 560px; }
svg text { font-size: 11px; fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .tick { fill: var(--muted); } svg .label { font-weight: 600; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--muted); }
.ref { fill: var(--ref); } .cand { fill: var(--cand); } .bad { fill: var(--bad); } .band { fill: var(--band); }
.key { display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: .875rem; margin: 0 0 14px; padding: 0;
  list-style: none; }
.key svg { display: inline-block; width: 12px; height: 12px; margin-right: 6px; vertical-align: -1px; }
details summary { cursor: pointer; font-size: .8125rem; color: var(--muted); }
.scroll { overflow-x: auto; margin-top: 8px; }
table { border-collapse: collapse; font-size: .8125rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid var(--line); font-weight: 400;
  white-space: nowrap; }
th[scope=col] { color: var(--muted); }
footer { margin-top: 28px; font-size: .8125rem; color: var(--muted); overflow-wrap: anywhere; }
footer dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 14px; margin: 0; }
footer dd { margin: 0; }
)";

struct Tile {
  std::string name, value, note;
};

// No line break between a number and its percent sign.
std::string keep_together(std::string text) {
  for (size_t at = text.find(" %"); at != std::string::npos; at = text.find(" %", at))
    text.replace(at, 1, "&nbsp;");
  return text;
}

// Enough digits to tell a small loss from none.
std::string kl_text(double kl) {
  return kl >= 0.001 || kl == 0 ? fmt::format("{:.4f}", kl) : fmt::format("{:.6f}", kl);
}

std::vector<Tile> make_tiles(const EvalResult& result) {
  std::vector<Tile> tiles;
  const TaskScore* ours = result.candidate ? &result.candidate->all : nullptr;
  const TaskScore* theirs = result.reference ? &result.reference->all : nullptr;
  if (ours != nullptr && ours->stats.num_drafts > 0) {
    Tile tile{
        "Tokens per target pass", fmt::format("{:.2f}", ours->stats.mean_acceptance_length()),
        fmt::format("{} drafts of {} tokens", ours->stats.num_drafts, result.num_draft_tokens)};
    if (theirs != nullptr)
      tile.note =
          fmt::format("reference {:.2f}; {}", theirs->stats.mean_acceptance_length(), tile.note);
    tiles.push_back(std::move(tile));
  }
  if (ours != nullptr && ours->num_scored > 0)
    tiles.push_back({"Exact answers", fmt::format("{} of {}", ours->num_exact, ours->num_scored),
                     theirs != nullptr ? fmt::format("reference {}", theirs->num_exact)
                                       : std::string("equal to the known answer")});
  if (result.text && result.text->comparison) {
    const TextScore::Comparison& comparison = *result.text->comparison;
    tiles.push_back({"KL per token", kl_text(comparison.kl_mean),
                     fmt::format("nats; 99 % below {:.3f}; same first choice {:.1f} %",
                                 comparison.kl_p99, 100 * comparison.same_choice)});
    tiles.push_back({"Perplexity", fmt::format("{:.3f}", result.text->perplexity),
                     fmt::format("reference {:.3f}, on {} tokens", comparison.perplexity,
                                 result.text->num_tokens)});
  } else if (result.text) {
    tiles.push_back({"Perplexity", fmt::format("{:.3f}", result.text->perplexity),
                     fmt::format("on {} tokens", result.text->num_tokens)});
  }
  return tiles;
}

std::string tiles_html(const EvalResult& result) {
  std::string html = "<div class=\"tiles\">\n";
  for (const Tile& tile : make_tiles(result))
    html += fmt::format(
        "<div class=\"tile\"><div class=\"name\">{}</div><div class=\"value\">{}</div>"
        "<div class=\"note\">{}</div></div>\n",
        html_escape(tile.name), html_escape(tile.value), keep_together(html_escape(tile.note)));
  return html + "</div>\n";
}

std::string verdict_html(const GateResult* gate) {
  if (gate == nullptr) return {};
  return fmt::format("<span class=\"verdict {}\">{}</span>\n", gate->passed ? "passed" : "failed",
                     gate->passed ? "✓ within the bounds" : "✗ outside the bounds");
}

std::string causes_html(const GateResult* gate) {
  if (gate == nullptr || gate->passed) return {};
  std::string html = "<ul class=\"causes\">\n";
  for (const GateCheck& check : gate->checks)
    if (!check.passed())
      html += fmt::format("<li>{}: {:.4f}, {} {}</li>\n", html_escape(check.name), check.value,
                          check.at_least ? "at least" : "at most", check.bound);
  for (const Cause& cause : gate->causes) html += "<li>" + html_escape(cause.message) + "</li>\n";
  return html + "</ul>\n";
}

std::string key_html(const EvalResult& result) {
  const auto entry = [](const char* css_class, const char* text) {
    return fmt::format(
        "<li><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect width=\"12\" height=\"12\" "
        "rx=\"2\" class=\"{}\"/></svg>{}</li>",
        css_class, text);
  };
  if (!result.reference) return {};
  return "<ul class=\"key\">" + entry("cand", "candidate") + entry("ref", "reference") + "</ul>\n";
}

std::string footer_html(const EvalResult& result) {
  const std::pair<const char*, const std::string*> rows[] = {
      {"target", &result.names.target},
      {"assistant", &result.names.assistant},
      {"reference", &result.names.reference_target},
      {"its assistant", &result.names.reference_assistant},
      {"prompts", &result.names.prompts},
      {"scored text", &result.names.text}};
  std::string html = "<footer><dl>\n";
  for (const auto& [name, value] : rows)
    if (!value->empty()) html += fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, html_escape(*value));
  html += fmt::format("<dt>drafts</dt><dd>{} tokens, greedy, position offset {}</dd>\n",
                      result.num_draft_tokens, result.draft_position_offset);
  html += fmt::format("<dt>KV cache</dt><dd>{}</dd>\n", result.kv_fp8 ? "FP8" : "as computed");
  return html + fmt::format("<dt>made by</dt><dd>tandem {}</dd></dl></footer>\n",
                            html_escape(result.version));
}

}  // namespace

std::string eval_html(const EvalResult& result, const GateResult* gate) {
  const std::string headline = eval_headline(result);
  std::string html =
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n";
  html += fmt::format("<title>Evaluation of {}</title>\n<style>{}</style>\n</head>\n",
                      html_escape(result.names.target), kStyle);
  html += "<body>\n<main>\n" + verdict_html(gate);
  html += "<h1>" + keep_together(html_escape(headline)) + "</h1>\n" + causes_html(gate) +
          tiles_html(result);
  html += key_html(result) + "<div class=\"plots\">\n";
  html += position_chart(result) + task_chart(result);
  for (const bool assistant : {false, true}) html += layer_error_chart(result, assistant);
  for (const bool assistant : {false, true}) html += range_chart(result, assistant);
  html += amax_chart(result) + "</div>\n" + footer_html(result);
  return html + "</main>\n</body>\n</html>\n";
}

}  // namespace tandem::quantize
