// Plots of what was accepted: by position and by task.
#include "quantize/eval_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "quantize/eval_svg.h"

namespace tandem::quantize {
namespace {

constexpr double kWidth = 360;

const TaskScore* find_task(const PairScore& score, const std::string& task) {
  const auto found = std::ranges::find(score.tasks, task, &TaskScore::task);
  return found == score.tasks.end() ? nullptr : &*found;
}

std::string percent(double share) {
  return fmt::format("{:.1f} %", 100 * share);
}

// One bar of the pair; the reference's is drawn first, under its own class.
void vertical_bar(Svg& svg, double x, double width, double bottom, double height, double share,
                  const char* css_class, const std::string& hover) {
  svg.rect(x, bottom - share * height, width, std::max(0.5, share * height), css_class, hover);
}

void percent_grid(Svg& svg, double left, double top, double bottom) {
  for (const int line : {0, 25, 50, 75, 100}) {
    const double y = bottom - (bottom - top) * line / 100;
    svg.line(left, y, kWidth, y, line == 0 ? "axis" : "grid");
    svg.text(left - 6, y + 4, Anchor::kEnd, "tick", fmt::format("{}", line));
  }
}

// At most 20 bytes, cut between characters.
std::string shortened(const std::string& name) {
  constexpr size_t kMost = 20;
  if (name.size() <= kMost) return name;
  size_t end = kMost - 1;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xc0U) == 0x80U) --end;
  return name.substr(0, end) + "…";
}

// Tasks with enough drafts to say something, the longest answers first.
std::vector<const TaskScore*> shown_tasks(const PairScore& score) {
  constexpr size_t kMost = 14;
  std::vector<const TaskScore*> tasks;
  for (const TaskScore& task : score.tasks)
    if (task.stats.num_drafts > 0) tasks.push_back(&task);
  std::ranges::stable_sort(tasks, [](const TaskScore* a, const TaskScore* b) {
    return a->stats.num_drafts > b->stats.num_drafts;
  });
  if (tasks.size() > kMost) tasks.resize(kMost);
  std::ranges::stable_sort(tasks, [](const TaskScore* a, const TaskScore* b) {
    return a->stats.mean_acceptance_length() > b->stats.mean_acceptance_length();
  });
  return tasks;
}

Table task_table(const EvalResult& result) {
  Table table{{"task", "prompts", "length", "reference", "exact", "reference"}, {}};
  for (const TaskScore& task : result.candidate->tasks) {
    const TaskScore* other = result.reference ? find_task(*result.reference, task.task) : nullptr;
    const auto length = [](const TaskScore& score) {
      return fmt::format("{:.3f}", score.stats.mean_acceptance_length());
    };
    const auto exact = [](const TaskScore& score) {
      return score.num_scored == 0 ? std::string("–")
                                   : fmt::format("{} of {}", score.num_exact, score.num_scored);
    };
    table.rows.push_back({task.task, fmt::format("{}", task.num_prompts), length(task),
                          other != nullptr ? length(*other) : "–", exact(task),
                          other != nullptr ? exact(*other) : "–"});
  }
  return table;
}

}  // namespace

std::string figure(const std::string& heading, const std::string& picture,
                   const std::string& caption, const Table& table) {
  std::string html = "<figure>\n<h2>" + html_escape(heading) + "</h2>\n" + picture +
                     "<figcaption>" + html_escape(caption) + "</figcaption>\n";
  html += "<details><summary>The figures as a table</summary>\n<div class=\"scroll\"><table>\n<tr>";
  for (const std::string& cell : table.head)
    html += "<th scope=\"col\">" + html_escape(cell) + "</th>";
  html += "</tr>\n";
  for (const auto& row : table.rows) {
    html += "<tr>";
    for (size_t i = 0; i < row.size(); ++i)
      html += (i == 0 ? "<th scope=\"row\">" : "<td>") + html_escape(row[i]) +
              (i == 0 ? "</th>" : "</td>");
    html += "</tr>\n";
  }
  return html + "</table></div></details>\n</figure>\n";
}

int64_t layer_of(const std::string& module) {
  constexpr std::string_view kPrefix = "layers.";
  int64_t layer = -1;
  if (module.starts_with(kPrefix))
    std::from_chars(module.data() + kPrefix.size(), module.data() + module.size(), layer);
  return layer;
}

std::string kind_of(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

std::string position_chart(const EvalResult& result) {
  const int k = result.num_draft_tokens;
  if (!result.candidate || result.candidate->all.stats.num_drafts == 0) return {};
  constexpr double kLeft = 34, kTop = 12, kBottom = 170;
  Svg svg(kWidth, 200, "Share of drafts accepted at each position",
          result.reference ? "Bars for the reference and the candidate" : "One bar per position");
  percent_grid(svg, kLeft, kTop, kBottom);
  const double slot = (kWidth - kLeft) / k;
  const double bar = std::min(28.0, slot * 0.36);
  Table table{{"position", "candidate", "reference"}, {}};
  for (int i = 0; i < k; ++i) {
    const double middle = kLeft + slot * (i + 0.5);
    const double ours = result.candidate->all.stats.rate_at(i);
    std::string theirs_text = "–";
    if (result.reference) {
      const double theirs = result.reference->all.stats.rate_at(i);
      theirs_text = percent(theirs);
      vertical_bar(svg, middle - bar - 1, bar, kBottom, kBottom - kTop, theirs, "ref",
                   fmt::format("reference, position {}: {}", i + 1, theirs_text));
    }
    vertical_bar(svg, result.reference ? middle + 1 : middle - bar / 2, bar, kBottom,
                 kBottom - kTop, ours, "cand",
                 fmt::format("candidate, position {}: {}", i + 1, percent(ours)));
    svg.text(middle, kBottom + 16, Anchor::kMiddle, "tick", fmt::format("{}", i + 1));
    table.rows.push_back({fmt::format("{}", i + 1), percent(ours), theirs_text});
  }
  svg.text(kLeft, kBottom + 29, Anchor::kStart, "label", "drafted token");
  return figure("Accepted, by position", std::move(svg).finish(),
                "Percent of rounds in which the target accepted the draft at this position.",
                table);
}

std::string task_chart(const EvalResult& result) {
  if (!result.candidate || result.candidate->all.stats.num_drafts == 0) return {};
  const std::vector<const TaskScore*> tasks = shown_tasks(*result.candidate);
  constexpr double kLeft = 124, kRight = 40, kRow = 21, kTop = 6;
  const double longest = result.num_draft_tokens + 1;
  const double scale = (kWidth - kLeft - kRight) / longest;
  const double bottom = kTop + kRow * static_cast<double>(tasks.size());
  Svg svg(kWidth, bottom + 32, "Mean acceptance length by task",
          "Tokens per target pass, candidate beside reference");
  for (int i = 1; i <= result.num_draft_tokens + 1; ++i) {
    svg.line(kLeft + i * scale, kTop, kLeft + i * scale, bottom, "grid");
    svg.text(kLeft + i * scale, bottom + 14, Anchor::kMiddle, "tick", fmt::format("{}", i));
  }
  double y = kTop;
  for (const TaskScore* task : tasks) {
    const TaskScore* other = result.reference ? find_task(*result.reference, task->task) : nullptr;
    const double ours = task->stats.mean_acceptance_length();
    svg.text(kLeft - 6, y + 13, Anchor::kEnd, "tick", shortened(task->task));
    double end = ours;
    if (other != nullptr) {
      const double theirs = other->stats.mean_acceptance_length();
      end = std::max(ours, theirs);
      svg.rect(kLeft, y + 3, theirs * scale, 6, "ref",
               fmt::format("{}, reference: {:.2f}", task->task, theirs));
    }
    svg.rect(kLeft, y + 10, ours * scale, 6, "cand",
             fmt::format("{}, candidate: {:.2f}", task->task, ours));
    svg.text(kLeft + end * scale + 5, y + 14, Anchor::kStart, "tick", fmt::format("{:.2f}", ours));
    y += kRow;
  }
  svg.text(kLeft, bottom + 28, Anchor::kStart, "label", "tokens per target pass");
  return figure("Acceptance length, by task", std::move(svg).finish(),
                fmt::format("The {} tasks with the most drafts; {} tokens per pass is the most "
                            "that {} drafts can give.",
                            tasks.size(), result.num_draft_tokens + 1, result.num_draft_tokens),
                task_table(result));
}

}  // namespace tandem::quantize
