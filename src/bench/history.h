// Results of earlier runs, kept in one SQLite file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"

struct sqlite3;

namespace tandem::bench {

struct HistoryEntry {
  int64_t id = 0;
  std::string date;
  std::string benchmark;
  std::string model;
  std::string label;
  std::string device;
  bool synthetic = false;
  std::string result;  // the report, as JSON
};

// Empty fields filter nothing; texts are looked for inside the entry's.
struct HistoryFilter {
  std::string benchmark = {};  // exactly
  std::string model = {};
  std::string label = {};
  std::string since = {};  // "2026-11-28": dates compare as texts
  int64_t limit = 20;
};

class History {
 public:
  // Creates the file and its folder when they are missing.
  static base::Result<History> open(const std::filesystem::path& path);

  // `report` as report_head() begins it. Returns the entry's number.
  base::Result<int64_t> add(const nlohmann::ordered_json& report);
  base::Result<HistoryEntry> get(int64_t id);
  // Newest first.
  base::Result<std::vector<HistoryEntry>> list(const HistoryFilter& filter);

 private:
  struct Close {
    void operator()(sqlite3* database) const;
  };
  explicit History(sqlite3* database, std::string where)
      : database_(database), where_(std::move(where)) {}
  base::Status make_table();
  base::Status fail(const std::string& what) const;

  std::unique_ptr<sqlite3, Close> database_;
  std::string where_;
};

// $XDG_DATA_HOME/tandem/bench.sqlite, or ~/.local/share/tandem/bench.sqlite.
std::filesystem::path default_history_path();

std::string history_table(const std::vector<HistoryEntry>& entries);
// Every figure both reports have, side by side, with the second over the first.
std::string compare_reports(const HistoryEntry& before, const HistoryEntry& after);

}  // namespace tandem::bench
