// A table of text: the first column to the left, numbers to the right.
#pragma once

#include <string>
#include <vector>

namespace tandem::bench {

class Table {
 public:
  explicit Table(std::vector<std::string> heads);
  // As many cells as there are heads.
  void add(std::vector<std::string> cells);
  // Lines that end in a newline; columns as wide as their widest cell.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the first one holds the heads
};

}  // namespace tandem::bench
