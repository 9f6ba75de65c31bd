#include "quantize/output_folder.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "tests/support/temp_folder.h"

namespace tandem::quantize {
namespace {

namespace fs = std::filesystem;
using test_support::read_bytes;
using test_support::TempFolder;
using test_support::write_bytes;

// Publishes a folder with one file beside the config.
base::Status write_model(const fs::path& path, bool force, const std::string& content) {
  TANDEM_ASSIGN_OR_RETURN(OutputFolder folder, OutputFolder::create(path, force));
  write_bytes(folder.dir() / "weights", content);
  TANDEM_RETURN_IF_ERROR(folder.hold_config("{}"));
  return folder.publish();
}

size_t num_entries(const fs::path& dir) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(dir), fs::directory_iterator()));
}

TEST(OutputFolder, AppearsWholeAndLeavesNothingElse) {
  const TempFolder temp;
  ASSERT_TRUE(write_model(temp / "model", false, "abc"));
  EXPECT_EQ(read_bytes(temp / "model/weights"), "abc");
  EXPECT_EQ(read_bytes(temp / "model/config.json"), "{}");
  EXPECT_EQ(num_entries(temp / "model"), size_t{2});
  EXPECT_EQ(num_entries(temp.path()), size_t{1});
}

TEST(OutputFolder, ATrailingSlashIsTheSameFolder) {
  const TempFolder temp;
  ASSERT_TRUE(write_model(temp.path().string() + "/model/", false, "abc"));
  EXPECT_TRUE(fs::exists(temp / "model/config.json"));
}

TEST(OutputFolder, NothingHasAConfigBeforeItIsPublished) {
  const TempFolder temp;
  auto folder = OutputFolder::create(temp / "model", false);
  ASSERT_TRUE(folder);
  ASSERT_TRUE(folder->hold_config("{}"));
  EXPECT_FALSE(fs::exists(temp / "model"));
  EXPECT_FALSE(fs::exists(folder->dir() / "config.json"));
}

TEST(OutputFolder, RemovesWhatItDidNotPublish) {
  const TempFolder temp;
  {
    auto folder = OutputFolder::create(temp / "model", false);
    ASSERT_TRUE(folder);
    write_bytes(folder->dir() / "weights", "abc");
  }
  EXPECT_EQ(num_entries(temp.path()), size_t{0});
}

TEST(OutputFolder, FilesInTheWayNeedForce) {
  const TempFolder temp;
  ASSERT_TRUE(write_model(temp / "model", false, "old"));
  const auto refused = OutputFolder::create(temp / "model", false);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("--force"), std::string::npos);
  EXPECT_EQ(read_bytes(temp / "model/weights"), "old");
  ASSERT_TRUE(write_model(temp / "model", true, "new"));
  EXPECT_EQ(read_bytes(temp / "model/weights"), "new");
  EXPECT_EQ(num_entries(temp.path()), size_t{1}) << "the old folder is gone";
}

TEST(OutputFolder, ForceKeepsTheOldModelUntilTheNewOneIsThere) {
  const TempFolder temp;
  ASSERT_TRUE(write_model(temp / "model", false, "old"));
  {
    auto folder = OutputFolder::create(temp / "model", true);
    ASSERT_TRUE(folder);
    EXPECT_EQ(read_bytes(temp / "model/weights"), "old");
  }
  EXPECT_EQ(read_bytes(temp / "model/weights"), "old");
}

TEST(OutputFolder, EmptyFoldersAndLeftoversAreTaken) {
  const TempFolder temp;
  fs::create_directory(temp / "model");
  fs::create_directory(temp / "model.partial");
  write_bytes(temp / "model.partial/INCOMPLETE", "");
  write_bytes(temp / "model.partial/weights.partial", "half");
  ASSERT_TRUE(write_model(temp / "model", false, "abc"));
  EXPECT_EQ(num_entries(temp / "model"), size_t{2});

  // Killed between the two renames of publish().
  fs::rename(temp / "model/config.json", temp / "model/config.json.partial");
  ASSERT_TRUE(write_model(temp / "model", false, "again"));
  EXPECT_EQ(read_bytes(temp / "model/weights"), "again");
}

TEST(OutputFolder, AFolderOfOthersIsNeverTaken) {
  const TempFolder temp;
  fs::create_directory(temp / "model.partial");
  write_bytes(temp / "model.partial/thesis.txt", "dear");
  EXPECT_FALSE(OutputFolder::create(temp / "model", false));
  EXPECT_FALSE(OutputFolder::create(temp / "model", true));
  EXPECT_EQ(read_bytes(temp / "model.partial/thesis.txt"), "dear");

  // Ours is called so only while it is named .partial.
  fs::create_directory(temp / "book");
  write_bytes(temp / "book/thesis.txt", "dear");
  write_bytes(temp / "book/INCOMPLETE", "two chapters");
  EXPECT_FALSE(write_model(temp / "book", false, "abc"));
  EXPECT_EQ(read_bytes(temp / "book/thesis.txt"), "dear");

  write_bytes(temp / "file", "x");
  EXPECT_FALSE(OutputFolder::create(temp / "file", true));
  EXPECT_FALSE(OutputFolder::create(temp / "nowhere/model", false));
}

TEST(OutputFolder, WhatIsCalledReplacedIsNotRemovedUnlessItIsOurs) {
  const TempFolder temp;
  fs::create_directory(temp / "model.replaced");
  write_bytes(temp / "model.replaced/thesis.txt", "dear");
  ASSERT_TRUE(write_model(temp / "model", false, "old"));
  EXPECT_EQ(read_bytes(temp / "model.replaced/thesis.txt"), "dear");
  const auto refused = OutputFolder::create(temp / "model", true);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("model.replaced: expected nothing"), std::string::npos)
      << refused.error().message;
  EXPECT_EQ(read_bytes(temp / "model/weights"), "old");
  EXPECT_EQ(read_bytes(temp / "model.replaced/thesis.txt"), "dear");

  // Killed before it removed what it had put aside.
  write_bytes(temp / "model.replaced/REPLACED", "");
  ASSERT_TRUE(write_model(temp / "model", true, "new"));
  EXPECT_EQ(read_bytes(temp / "model/weights"), "new");
  EXPECT_EQ(num_entries(temp.path()), size_t{1});
}

TEST(OutputFolder, TwoRunsDoNotShareAFolder) {
  const TempFolder temp;
  auto first = OutputFolder::create(temp / "model", false);
  ASSERT_TRUE(first);
  const auto second = OutputFolder::create(temp / "model", false);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("another run"), std::string::npos);
  ASSERT_TRUE(first->hold_config("{}"));
  EXPECT_TRUE(first->publish());
}

}  // namespace
}  // namespace tandem::quantize
