#include "bench/history.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/temp_folder.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;

ordered_json report(const std::string& benchmark, const std::string& date, double rate) {
  return {{"benchmark", benchmark},
          {"date", date},
          {"device", "cpu"},
          {"model", {{"name", "pair 'x'"}}},
          {"output_tokens_per_second", rate}};
}

class HistoryTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_ / "deep" / "bench.sqlite"; }
  test_support::TempFolder folder_;
};

TEST_F(HistoryTest, KeepsRunsFromOneOpeningToTheNext) {
  {
    auto history = History::open(path());
    ASSERT_TRUE(history) << history.error().message;
    EXPECT_EQ(history->add(report("latency", "2026-01-02T00:00:00Z", 10)), 1);
  }
  auto history = History::open(path());
  ASSERT_TRUE(history);
  EXPECT_EQ(history->add(report("latency", "2026-01-03T00:00:00Z", 20)), 2);
  const auto entry = history->get(1);
  ASSERT_TRUE(entry);
  EXPECT_EQ(entry->model, "pair 'x'");
  EXPECT_EQ(ordered_json::parse(entry->result), report("latency", "2026-01-02T00:00:00Z", 10));
  EXPECT_FALSE(history->get(3));
}

TEST_F(HistoryTest, Filters) {
  auto history = History::open(path());
  ASSERT_TRUE(history);
  ordered_json synthetic = report("serve", "2026-01-04T00:00:00Z", 30);
  synthetic["acceptance"] = "synthetic";
  synthetic["label"] = "with 100 % _ drafts";
  ASSERT_TRUE(history->add(report("latency", "2026-01-02T00:00:00Z", 10)));
  ASSERT_TRUE(history->add(synthetic));
  ASSERT_TRUE(history->add(report("latency", "2026-01-05T00:00:00Z", 20)));
  const auto ids = [&](const HistoryFilter& filter) {
    std::vector<int64_t> result;
    const auto entries = history->list(filter);
    EXPECT_TRUE(entries);
    for (const HistoryEntry& entry : *entries) result.push_back(entry.id);
    return result;
  };
  using Ids = std::vector<int64_t>;
  HistoryFilter filter;
  EXPECT_EQ(ids(filter), (Ids{3, 2, 1}));
  filter.benchmark = "latency";
  EXPECT_EQ(ids(filter), (Ids{3, 1}));
  filter.since = "2026-01-03";
  EXPECT_EQ(ids(filter), (Ids{3}));
  filter = {};
  filter.limit = 1;
  EXPECT_EQ(ids(filter), (Ids{3}));
  filter = {};
  filter.label = "% _";
  EXPECT_EQ(ids(filter), (Ids{2}));
  filter = {};
  filter.model = "' OR 1=1 --";
  EXPECT_EQ(ids(filter), Ids{});
  EXPECT_TRUE((*history->list({.benchmark = "serve"}))[0].synthetic);
}

TEST_F(HistoryTest, ComparesTheFiguresBothHave) {
  const auto entry = [](int64_t id, ordered_json json) {
    return HistoryEntry{.id = id,
                        .date = "d",
                        .benchmark = "step",
                        .model = "m",
                        .label = "",
                        .device = "cpu",
                        .synthetic = id == 2,
                        .result = json.dump()};
  };
  const std::string text = compare_reports(
      entry(1, {{"machine", {{"cores", 2}}},
                {"verify", {{{"rows", 1}, {"ms", 4.0}}, {{"rows", 5}, {"ms", 6.0}}}},
                {"only_old", 1}}),
      entry(2, {{"verify", {{{"rows", 5}, {"ms", 3.0}}}}}));
  // Row 5 meets row 5, wherever it stands.
  EXPECT_NE(text.find("verify[rows 5].ms"), std::string::npos) << text;
  EXPECT_NE(text.find("0.500"), std::string::npos) << text;
  EXPECT_EQ(text.find("verify[rows 1]"), std::string::npos) << text;
  EXPECT_EQ(text.find("only_old"), std::string::npos) << text;
  EXPECT_EQ(text.find("cores"), std::string::npos) << text;
  EXPECT_NE(text.find("synthetic"), std::string::npos) << text;
}

TEST_F(HistoryTest, ComparesEachMeasurementWithItsOwnTwin) {
  const auto entry = [](int64_t id, const ordered_json& json) {
    return HistoryEntry{.id = id,
                        .date = "d",
                        .benchmark = "step",
                        .model = "m",
                        .label = "",
                        .device = "gpu",
                        .synthetic = false,
                        .result = json.dump()};
  };
  const auto load = [](int batch, double ms) {
    return ordered_json{{"batch", batch}, {"context", 64}, {"num_draft_tokens", 4}, {"ms", ms}};
  };
  const auto op = [](const char* format, double us) {
    return ordered_json{{"name", "down"}, {"rows", 1}, {"format", format}, {"us", us}};
  };
  const ordered_json before = {{"loads", {load(1, 1.0), load(8, 10.0)}},
                               {"ops", {op("bf16", 3.0), op("fp8", 30.0)}},
                               {"acceptance_per_position", {0.5, 0.25}},
                               {"latencies", {1.0, 2.0}}};
  const ordered_json after = {{"loads", {load(8, 20.0), load(1, 4.0)}},
                              {"ops", {op("bf16", 15.0), op("fp8", 180.0)}},
                              {"acceptance_per_position", {0.5, 0.75}},
                              {"latencies", {1.0, 2.0}}};
  const std::string text = compare_reports(entry(1, before), entry(2, after));
  // Loads were told apart by their drafts alone, so all met the first of the other run.
  for (const char* ratio : {"2.000", "4.000", "5.000", "6.000", "3.000"})
    EXPECT_NE(text.find(ratio), std::string::npos) << ratio << "\n" << text;
  EXPECT_NE(text.find("loads[batch 8 context 64 num_draft_tokens 4].ms"), std::string::npos)
      << text;
  EXPECT_NE(text.find("ops[down rows 1, no. 2].us"), std::string::npos) << text;
  EXPECT_EQ(text.find("latencies"), std::string::npos) << text;
}

TEST_F(HistoryTest, AFileThatIsNoHistoryIsRefused) {
  const auto other = folder_ / "notes.txt";
  std::ofstream(other) << std::string(4096, 'x');
  const auto history = History::open(other);
  ASSERT_FALSE(history);
  EXPECT_NE(history.error().message.find("notes.txt"), std::string::npos);
  EXPECT_FALSE(History::open(folder_.path()));
}

// Whether SQLite takes `sql`, on a file of its own connection.
bool run_sql(const std::filesystem::path& path, const char* sql) {
  sqlite3* database = nullptr;
  sqlite3_open(path.c_str(), &database);
  const int status = sqlite3_exec(database, sql, nullptr, nullptr, nullptr);
  sqlite3_close(database);
  return status == SQLITE_OK;
}

TEST_F(HistoryTest, ADatabaseOfAnotherProgramIsRefusedAndStaysAsItIs) {
  const auto bookmarks = folder_ / "bookmarks.sqlite";
  ASSERT_TRUE(run_sql(bookmarks, "CREATE TABLE bookmarks (url TEXT)"));
  EXPECT_FALSE(History::open(bookmarks));
  EXPECT_FALSE(run_sql(bookmarks, "SELECT * FROM runs"));
  const auto runs = folder_ / "runs.sqlite";
  ASSERT_TRUE(run_sql(runs, "CREATE TABLE runs (run_uuid TEXT)"));
  EXPECT_FALSE(History::open(runs));
}

}  // namespace
}  // namespace tandem::bench
