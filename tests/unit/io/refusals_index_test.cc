// Refusals: sharded models.
#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"
#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using test_support::read_bytes;
using test_support::safetensors_bytes;
using test_support::TinyTensor;
using test_support::write_bytes;

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kShard2 = "model-00002-of-00002.safetensors";
constexpr const char* kNorm = "model.language_model.norm.weight";

Row sharded(const char* what, std::function<void(const fs::path&)> edit,
            std::vector<std::string> message) {
  return {what, Start::kTarget, {}, std::move(message), std::move(edit), 2};
}

Row with_index(const char* what, std::function<void(json&)> edit,
               std::vector<std::string> message) {
  return sharded(
      what,
      [edit = std::move(edit)](const fs::path& dir) {
        json index = json::parse(read_bytes(dir / kIndex));
        edit(index);
        write_bytes(dir / kIndex, index.dump());
      },
      std::move(message));
}

Row with_shard_name(const char* what, const char* name) {
  return with_index(what, [name](json& index) { index["weight_map"][kNorm] = name; },
                    {"model.safetensors.index.json: weight_map: model.language_model.norm.weight: "
                     "expected the name of a .safetensors file in this folder, got"});
}

TEST(RefusalsTest, IndexPaths) {
  expect_refused({
      with_shard_name("a parent folder", "../model-00001-of-00002.safetensors"),
      with_shard_name("an absolute path", "/etc/passwd.safetensors"),
      with_shard_name("a folder inside", "a/model.safetensors"),
      with_shard_name("a backslash", "..\\model.safetensors"),
      with_shard_name("two dots", ".."),
      with_shard_name("a hidden file", ".model.safetensors"),
      with_shard_name("an empty name", ""),
      with_shard_name("another kind of file", "pytorch_model.bin"),
      with_index("a number as shard", [](json& index) { index["weight_map"][kNorm] = 1; },
                 {"weight_map: model.language_model.norm.weight: expected the name", "got 1"}),
      with_index(
          "a zero byte in the name",
          [](json& index) { index["weight_map"][kNorm] = std::string("a\0.safetensors", 14); },
          {"expected the name of a .safetensors file"}),
  });
}

TEST(RefusalsTest, IndexContent) {
  expect_refused({
      with_index("no weight_map", [](json& index) { index.erase("weight_map"); },
                 {"index.json: weight_map: expected an object, got no such key"}),
      with_index("weight_map is a list", [](json& index) { index["weight_map"] = json::array(); },
                 {"weight_map: expected an object, got an array of 0"}),
      with_index("an empty weight_map", [](json& index) { index["weight_map"] = json::object(); },
                 {"weight_map: expected 1 to 4096 shards, got 0"}),
      with_index("a tensor that is nowhere",
                 [](json& index) { index["weight_map"]["ghost.weight"] = kShard2; },
                 {"tensor ghost.weight: expected in model-00002-of-00002.safetensors as weight_map "
                  "says, got no such tensor"}),
      with_index("a tensor that is not listed",
                 [](json& index) { index["weight_map"].erase(kNorm); },
                 {"tensor model.language_model.norm.weight: expected an entry in weight_map, got "
                  "none though model-00001-of-00002.safetensors has the tensor"}),
      with_index("a tensor in the other shard",
                 [](json& index) { index["weight_map"][kNorm] = kShard2; },
                 {"tensor model.language_model.norm.weight: expected in "
                  "model-00002-of-00002.safetensors as weight_map says, got it in "
                  "model-00001-of-00002"}),
      with_index("total_size too small", [](json& index) { index["metadata"]["total_size"] = 1; },
                 {"metadata: total_size: expected", "the sum of the shards, got 1"}),
      with_index("total_size negative", [](json& index) { index["metadata"]["total_size"] = -1; },
                 {"metadata: total_size: expected an integer from 0 to", "got -1"}),
      with_index("total_size in quotes", [](json& index) { index["metadata"]["total_size"] = "8"; },
                 {"metadata: total_size: expected an integer", "got \"8\""}),
      with_index("metadata is a string", [](json& index) { index["metadata"] = "x"; },
                 {"metadata: expected an object, got \"x\""}),
      sharded("an index that is no object",
              [](const fs::path& dir) { write_bytes(dir / kIndex, "[]"); },
              {"index.json: expected a JSON object, got an array of 0"}),
      sharded("a broken index", [](const fs::path& dir) { write_bytes(dir / kIndex, "{\"a\":"); },
              {"index.json: expected valid JSON, got broken JSON at byte 5"}),
      sharded("a key twice",
              [](const fs::path& dir) {
                write_bytes(dir / kIndex, R"({"weight_map":{"a":"b","a":"c"}})");
              },
              {"expected each key once, got the key \"a\" twice in one object"}),
      sharded("an index that is a git-LFS pointer",
              [](const fs::path& dir) {
                write_bytes(dir / kIndex, "version https://git-lfs.github.com/spec/v1\n");
              },
              {"index.json: expected the file itself, got a git-LFS pointer"}),
  });
}

TEST(RefusalsTest, Shards) {
  expect_refused({
      sharded(
          "a missing shard", [](const fs::path& dir) { fs::remove(dir / kShard2); },
          {"index.json: expected the shard model-00002-of-00002.safetensors in this folder, got "
           "no such file"}),
      sharded("a shard that is no file",
              [](const fs::path& dir) {
                fs::remove(dir / kShard2);
                fs::create_directory(dir / kShard2);
              },
              {"model-00002-of-00002.safetensors: expected a file, got a directory"}),
      sharded("a shard that is an HTML page",
              [](const fs::path& dir) { write_bytes(dir / kShard2, "<html></html>"); },
              {"model-00002-of-00002.safetensors: expected the file itself, got an HTML page"}),
      sharded("a truncated shard",
              [](const fs::path& dir) {
                fs::resize_file(dir / kShard2, fs::file_size(dir / kShard2) - 10);
              },
              {"model-00002-of-00002.safetensors: tensor", "the file is truncated"}),
      sharded(
          "a shard of another model",
          [](const fs::path& dir) { write_bytes(dir / "model-00003-of-00003.safetensors", "x"); },
          {"expected only shards that the index lists, got model-00003-of-00003.safetensors"}),
      sharded("a tensor in two shards",
              [](const fs::path& dir) {
                const TinyTensor extra{kNorm, core::DType::kBF16, {1}, std::string(2, '\0')};
                write_bytes(dir / kShard2, safetensors_bytes({extra}));
              },
              {"tensor model.language_model.norm.weight: expected in one shard, got it in "
               "model-00001-of-00002.safetensors and model-00002-of-00002.safetensors"}),
      sharded("one file and an index",
              [](const fs::path& dir) { write_bytes(dir / "model.safetensors", "x"); },
              {"expected either model.safetensors or model.safetensors.index.json, got both"}),
      sharded("an index that is a loop",
              [](const fs::path& dir) {
                fs::remove(dir / kIndex);
                fs::create_symlink(kIndex, dir / kIndex);
              },
              {"index.json: expected a file, got a loop of symbolic links"}),
  });
}

}  // namespace
}  // namespace tandem::io
