#include "bench/table.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace tandem::bench {

Table::Table(std::vector<std::string> heads) {
  rows_.push_back(std::move(heads));
}

void Table::add(std::vector<std::string> cells) {
  TANDEM_CHECK_EQ(cells.size(), rows_.front().size());
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<size_t> widths(rows_.front().size());
  for (const auto& row : rows_)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows_) {
    std::string line = fmt::format("{:<{}}", row.front(), widths.front());
    for (size_t i = 1; i < row.size(); ++i) line += fmt::format("  {:>{}}", row[i], widths[i]);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

}  // namespace tandem::bench
