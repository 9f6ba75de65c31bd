#include "bench/history.h"

#include <sqlite3.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

constexpr int kBusyMilliseconds = 5000;
constexpr const char* kSchema =
    "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, date TEXT NOT NULL, benchmark TEXT "
    "NOT NULL, model TEXT NOT NULL, label TEXT NOT NULL, device TEXT NOT NULL, synthetic INTEGER "
    "NOT NULL, result TEXT NOT NULL)";
constexpr const char* kColumns = "id, date, benchmark, model, label, device, synthetic, result";

struct Finalize {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, Finalize>;

Statement prepare(sqlite3* database, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  sqlite3_prepare_v2(database, sql.c_str(), -1, &statement, nullptr);
  return Statement(statement);
}

void bind_text(const Statement& statement, int index, const std::string& text) {
  sqlite3_bind_text(statement.get(), index, text.data(), static_cast<int>(text.size()),
                    SQLITE_TRANSIENT);
}

std::string text_column(const Statement& statement, int index) {
  const auto* bytes = sqlite3_column_text(statement.get(), index);
  const int count = sqlite3_column_bytes(statement.get(), index);
  return bytes == nullptr
             ? std::string()
             : std::string(reinterpret_cast<const char*>(bytes), static_cast<size_t>(count));
}

HistoryEntry read_entry(const Statement& statement) {
  return {.id = sqlite3_column_int64(statement.get(), 0),
          .date = text_column(statement, 1),
          .benchmark = text_column(statement, 2),
          .model = text_column(statement, 3),
          .label = text_column(statement, 4),
          .device = text_column(statement, 5),
          .synthetic = sqlite3_column_int(statement.get(), 6) != 0,
          .result = text_column(statement, 7)};
}

std::string text_of(const ordered_json& report, const char* key) {
  return report.contains(key) && report[key].is_string() ? report[key].get<std::string>() : "";
}

// A report's model is an object with a name, or the name a server gave.
std::string model_of(const ordered_json& report) {
  if (report.contains("model") && report["model"].is_object())
    return text_of(report["model"], "name");
  const std::string id = text_of(report, "model_id");
  return id.empty() ? text_of(report, "model") : id;
}

}  // namespace

void History::Close::operator()(sqlite3* database) const {
  sqlite3_close(database);
}

base::Status History::fail(const std::string& what) const {
  return base::make_error(base::ErrorCode::kInternal,
                          fmt::format("{}: {}: {}", where_, what, sqlite3_errmsg(database_.get())));
}

// In a new file; a database of another program gets no table of ours.
base::Status History::make_table() {
  constexpr const char* kExpected = "expected a history of tandem bench";
  const Statement others = prepare(
      database_.get(),
      "SELECT count(*), count(CASE WHEN name = 'runs' THEN 1 END) FROM sqlite_master WHERE type = "
      "'table'");
  if (others == nullptr || sqlite3_step(others.get()) != SQLITE_ROW) return fail(kExpected);
  if (sqlite3_column_int(others.get(), 0) > 0 && sqlite3_column_int(others.get(), 1) == 0)
    return base::invalid("{}: {}, got a database of something else", where_, kExpected);
  if (sqlite3_exec(database_.get(), kSchema, nullptr, nullptr, nullptr) != SQLITE_OK)
    return fail(kExpected);
  const Statement columns =
      prepare(database_.get(), fmt::format("SELECT {} FROM runs LIMIT 0", kColumns));
  return columns == nullptr ? fail(kExpected) : base::Status();
}

base::Result<History> History::open(const std::filesystem::path& path) {
  std::error_code error;
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), error);
  sqlite3* database = nullptr;
  const int opened =
      sqlite3_open_v2(path.c_str(), &database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  History history(database, path.string());
  if (opened != SQLITE_OK) {
    const base::Status status = history.fail("expected a file that can be opened or made");
    return tl::unexpected<base::Error>(status.error());
  }
  sqlite3_busy_timeout(database, kBusyMilliseconds);
  TANDEM_RETURN_IF_ERROR(history.make_table());
  return history;
}

base::Result<int64_t> History::add(const ordered_json& report) {
  const Statement statement =
      prepare(database_.get(),
              "INSERT INTO runs (date, benchmark, model, label, device, synthetic, result) VALUES "
              "(?, ?, ?, ?, ?, ?, ?)");
  if (statement == nullptr) return tl::unexpected<base::Error>(fail("insert").error());
  bind_text(statement, 1, text_of(report, "date"));
  bind_text(statement, 2, text_of(report, "benchmark"));
  bind_text(statement, 3, model_of(report));
  bind_text(statement, 4, text_of(report, "label"));
  bind_text(statement, 5, text_of(report, "device"));
  sqlite3_bind_int(statement.get(), 6, text_of(report, "acceptance") == "synthetic" ? 1 : 0);
  bind_text(statement, 7, report.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  if (sqlite3_step(statement.get()) != SQLITE_DONE)
    return tl::unexpected<base::Error>(fail("insert").error());
  return sqlite3_last_insert_rowid(database_.get());
}

base::Result<HistoryEntry> History::get(int64_t id) {
  const Statement statement =
      prepare(database_.get(), fmt::format("SELECT {} FROM runs WHERE id = ?", kColumns));
  if (statement == nullptr) return tl::unexpected<base::Error>(fail("select").error());
  sqlite3_bind_int64(statement.get(), 1, id);
  if (sqlite3_step(statement.get()) != SQLITE_ROW)
    return base::make_error(
        base::ErrorCode::kNotFound,
        fmt::format("{}: expected the number of a run, got {}; tandem bench history lists them",
                    where_, id));
  return read_entry(statement);
}

base::Result<std::vector<HistoryEntry>> History::list(const HistoryFilter& filter) {
  const Statement statement = prepare(
      database_.get(), fmt::format("SELECT {} FROM runs WHERE (?1 = '' OR benchmark = ?1) AND "
                                   "instr(model, ?2) > 0 AND instr(label, ?3) > 0 AND date >= ?4 "
                                   "ORDER BY id DESC LIMIT ?5",
                                   kColumns));
  if (statement == nullptr) return tl::unexpected<base::Error>(fail("select").error());
  bind_text(statement, 1, filter.benchmark);
  bind_text(statement, 2, filter.model);
  bind_text(statement, 3, filter.label);
  bind_text(statement, 4, filter.since);
  sqlite3_bind_int64(statement.get(), 5, filter.limit);
  std::vector<HistoryEntry> entries;
  int status = SQLITE_ROW;
  while ((status = sqlite3_step(statement.get())) == SQLITE_ROW)
    entries.push_back(read_entry(statement));
  if (status != SQLITE_DONE) return tl::unexpected<base::Error>(fail("select").error());
  return entries;
}

std::filesystem::path default_history_path() {
  const char* data = std::getenv("XDG_DATA_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path folder;
  if (data != nullptr && data[0] == '/')
    folder = data;
  else if (home != nullptr && home[0] == '/')
    folder = std::filesystem::path(home) / ".local" / "share";
  return folder.empty() ? folder : folder / "tandem" / "bench.sqlite";
}

}  // namespace tandem::bench
