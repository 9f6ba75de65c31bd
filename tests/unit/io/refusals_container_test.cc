// Refusals: what can be wrong with a safetensors file itself.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "tests/support/temp_folder.h"
#include "tests/unit/io/refusal_table.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using std::literals::operator""sv;
using test_support::read_bytes;
using test_support::safetensors_bytes;
using test_support::TinyCheckpoint;
using test_support::write_bytes;

constexpr const char* kFile = "model.safetensors";

Row with_file(const char* what, std::string bytes, std::vector<std::string> message) {
  return {what, Start::kTarget,
          [bytes = std::move(bytes)](TinyCheckpoint& c) { c.raw_files[kFile] = bytes; },
          std::move(message)};
}

Row with_header(const char* what, const std::string& header, std::vector<std::string> message,
                size_t payload_bytes = 8) {
  return with_file(what, safetensors_bytes(header, std::string(payload_bytes, '\0')),
                   std::move(message));
}

Row with_folder(const char* what, std::function<void(const fs::path&)> edit,
                std::vector<std::string> message) {
  return {what, Start::kTarget, {}, std::move(message), std::move(edit)};
}

std::string length_prefix(uint64_t length) {
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes;
}

TEST(RefusalsTest, NotAFile) {
  expect_refused({
      with_folder("no weights at all", [](const fs::path& dir) { fs::remove(dir / kFile); },
                  {"expected model.safetensors or model.safetensors.index.json, got neither"}),
      with_folder("an empty file", [](const fs::path& dir) { write_bytes(dir / kFile, ""); },
                  {"model.safetensors: expected a file with content, got an empty file"}),
      with_folder("a directory",
                  [](const fs::path& dir) {
                    fs::remove(dir / kFile);
                    fs::create_directory(dir / kFile);
                  },
                  {"model.safetensors: expected a file, got a directory"}),
      with_folder("a FIFO nobody writes to",
                  [](const fs::path& dir) {
                    fs::remove(dir / kFile);
                    ASSERT_EQ(::mkfifo((dir / kFile).c_str(), 0644), 0);
                  },
                  {"model.safetensors: expected a file, got a FIFO"}),
      with_folder("a device",
                  [](const fs::path& dir) {
                    fs::remove(dir / kFile);
                    fs::create_symlink("/dev/zero", dir / kFile);
                  },
                  {"model.safetensors: expected a file, got a device"}),
      with_folder("a loop of links",
                  [](const fs::path& dir) {
                    fs::remove(dir / kFile);
                    fs::create_symlink(kFile, dir / kFile);
                  },
                  {"model.safetensors: expected a file, got a loop of symbolic links"}),
      with_folder("a broken link",
                  [](const fs::path& dir) {
                    fs::remove(dir / kFile);
                    fs::create_symlink("blobs/0123", dir / kFile);
                  },
                  {"model.safetensors: expected a file, got nothing of that name"}),
      with_file("a git-LFS pointer",
                "version https://git-lfs.github.com/spec/v1\noid sha256:3279c173\nsize 845719296\n",
                {"expected the file itself, got a git-LFS pointer", "git lfs pull"}),
      with_file("an HTML page", "\n<!DOCTYPE html><html><body>401</body></html>",
                {"expected the file itself, got an HTML page", "download it again"}),
      with_file("an HTML page without doctype", "<HTML><head></head></HTML>", {"got an HTML page"}),
  });
}

TEST(RefusalsTest, LengthPrefix) {
  expect_refused({
      with_file("five bytes", "abcde", {"safetensors file of at least 8 bytes, got 5"}),
      with_file("a pickle", std::string("\x80\x02}q\x00(X\x05\x00\x00\x00weights"sv),
                {"header of at most 100000000 bytes", "is this a safetensors file?"}),
      with_file("a length of 2^64 - 1", length_prefix(~uint64_t{0}) + "{}",
                {"got a length of 18446744073709551615"}),
      with_file("a length of 100 MB and one", length_prefix(100'000'001) + "{}",
                {"header of at most 100000000 bytes, got a length of 100000001"}),
      with_file("a length past the end", length_prefix(1000) + "{}",
                {"expected a header of 1000 bytes, got a file of only 10", "truncated"}),
      with_file("a length of zero", length_prefix(0) + "{}",
                {"header: expected valid JSON, got broken JSON at byte 0"}),
      with_file("a GGUF file", std::string("GGUF\x03\x00\x00\x00\x00\x00"sv),
                {"is this a safetensors file?"}),
  });
}

TEST(RefusalsTest, HeaderJson) {
  const std::string deep = "{\"a\":" + std::string(10'000, '[') + std::string(10'000, ']') + "}";
  expect_refused({
      with_header("cut JSON", R"({"a":{"dtype":"F32",)",
                  {"model.safetensors: header: expected valid JSON, got broken JSON at byte"}),
      with_header("text after the object", "{} x", {"broken JSON at byte 3", "near \"{} x\""}),
      with_header("an array", "[]", {"expected a JSON object as header, got an array"}),
      with_header("a number", "17", {"expected a JSON object as header, got 17"}),
      with_header("null", "null", {"expected a JSON object as header, got null"}),
      with_header("invalid UTF-8", "{\"a\xff\":1}", {"broken JSON at byte", "\\xff"}),
      with_header("a cut UTF-8 sequence", "{\"\xe4\xb8\":1}", {"broken JSON at byte"}),
      with_header("10,000 brackets", deep, {"expected at most 3 nested levels of JSON"}),
      with_header("NaN as a value", R"({"a":NaN})", {"broken JSON at byte", "NaN"}),
      with_header("a comment", "{/*a*/}", {"broken JSON at byte"}),
      with_header("a trailing comma", R"({"a":{},})", {"tensor a: expected the key dtype"}),
      with_header("a name of a megabyte", "{\"" + std::string(2 << 20, 'x') + "\":{}}",
                  {"expected strings of at most 1048576 bytes, got a longer one at byte 1"}),
      with_header(
          "a name of 5,000 bytes",
          "{\"" + std::string(5000, 'x') + R"(":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
          {"expected tensor names of 1 to 4096 bytes, got one of 5000"}),
      with_header("an empty name", R"({"":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}})",
                  {"expected tensor names of 1 to 4096 bytes, got one of 0"}),
      with_header("a control character in a name", "{\"a\nb\":{}}", {"broken JSON at byte"}),
  });
}

TEST(RefusalsTest, HeaderEntries) {
  expect_refused({
      with_header("a tensor that is a string", R"({"a":"x"})",
                  {"model.safetensors: tensor a: expected an object, got \"x\""}),
      with_header("a tensor that is null", R"({"a":null})",
                  {"tensor a: expected an object, got null"}),
      with_header("a tensor that is a list", R"({"a":[1]})",
                  {"tensor a: expected an object, got an array"}),
      with_header("an unknown key",
                  R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"stride":1}})",
                  {"tensor a: expected the keys dtype, shape and data_offsets, got \"stride\""}),
      with_header("no dtype", R"({"a":{"shape":[8],"data_offsets":[0,8]}})",
                  {"tensor a: expected the key dtype, got none"}),
      with_header("no shape", R"({"a":{"dtype":"U8","data_offsets":[0,8]}})",
                  {"tensor a: expected the key shape, got none"}),
      with_header("no offsets", R"({"a":{"dtype":"U8","shape":[8]}})",
                  {"tensor a: expected the key data_offsets, got none"}),
      with_header("dtype twice", R"({"a":{"dtype":"U8","dtype":"I8"}})",
                  {"tensor a: expected each key once, got dtype twice"}),
      with_header("shape twice", R"({"a":{"shape":[8],"shape":[4]}})",
                  {"tensor a: expected each key once, got shape twice"}),
      with_header("offsets twice", R"({"a":{"data_offsets":[0,8],"data_offsets":[0,8]}})",
                  {"tensor a: expected each key once, got data_offsets twice"}),
      with_header("an unknown dtype", R"({"a":{"dtype":"Q4_K"}})",
                  {"tensor a: dtype: expected one of BF16, F8_E4M3, F32, ..., got \"Q4_K\""}),
      with_header("a lower-case dtype", R"({"a":{"dtype":"bf16"}})",
                  {"dtype: expected", "\"bf16\""}),
      with_header("a dtype number", R"({"a":{"dtype":3}})", {"dtype: expected a string, got 3"}),
      with_header("a shape that is a number", R"({"a":{"shape":8}})",
                  {"shape: expected a list of integers, got 8"}),
      with_header("a negative dimension", R"({"a":{"shape":[-8]}})",
                  {"shape: expected only integers of 0 or more, got -8"}),
      with_header("a fractional dimension", R"({"a":{"shape":[2.5]}})",
                  {"shape: expected only integers of 0 or more, got 2.5"}),
      with_header("a dimension in quotes", R"({"a":{"shape":["8"]}})",
                  {"shape: expected only integers of 0 or more, got \"8\""}),
      with_header("a null dimension", R"({"a":{"shape":[null]}})", {"shape:", "got null"}),
      with_header("five dimensions", R"({"a":{"shape":[1,1,1,1,1]}})",
                  {"shape: expected at most 4 dimensions, got more"}),
      with_header("a dimension of 2^60", R"({"a":{"shape":[1152921504606846976]}})",
                  {"shape: expected dimensions up to 2^48"}),
      with_header("a dimension of 10^20", R"({"a":{"shape":[100000000000000000000]}})",
                  {"shape: expected only integers of 0 or more"}),
  });
}

TEST(RefusalsTest, HeaderOffsetsAndMetadata) {
  expect_refused({
      with_header("three offsets", R"({"a":{"data_offsets":[0,4,8]}})",
                  {"data_offsets: expected two integers, got 3"}),
      with_header("one offset", R"({"a":{"data_offsets":[0]}})",
                  {"data_offsets: expected two integers, got 1"}),
      with_header("a negative offset", R"({"a":{"data_offsets":[-1,8]}})",
                  {"data_offsets: expected only integers of 0 or more, got -1"}),
      with_header("a fractional offset", R"({"a":{"data_offsets":[0,8.5]}})",
                  {"data_offsets: expected only integers of 0 or more, got 8.5"}),
      with_header("offsets as an object", R"({"a":{"data_offsets":{"begin":0}}})",
                  {"data_offsets: expected a list of integers, got an object"}),
      with_header("metadata that is a list", R"({"__metadata__":["pt"]})",
                  {"__metadata__: expected a map of strings, got an array"}),
      with_header("metadata with a number", R"({"__metadata__":{"format":1}})",
                  {"__metadata__: format: expected a string, got 1"}),
      with_header("metadata with a list", R"({"__metadata__":{"format":[]}})",
                  {"__metadata__: format: expected a string, got an array"}),
      with_header("metadata null", R"({"__metadata__":null})",
                  {"__metadata__: expected a map of strings, got null"}),
      with_header("a metadata key twice", R"({"__metadata__":{"a":"x","a":"y"}})",
                  {"__metadata__: expected each key once, got \"a\" twice"}),
  });
}

std::string two(const std::string& first, const std::string& second) {
  return R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
         R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
}

TEST(RefusalsTest, Offsets) {
  expect_refused({
      with_header("reversed", two("[4,0]", "[4,8]"),
                  {"tensor a: data_offsets: expected begin <= end, got [4, 0]"}),
      with_header(
          "past the end", two("[0,4]", "[8,12]"),
          {"tensor b: data_offsets: expected an end within the 8 bytes of payload, got 12"}),
      with_header("far past the end", two("[0,4]", "[4,9223372036854775807]"),
                  {"tensor b: data_offsets: expected an end within the 8 bytes"}),
      with_header("an overlap", two("[0,4]", "[2,6]"),
                  {"tensor b: expected to begin at byte 4, got 2: the tensors overlap"}, 6),
      with_header("the same bytes twice", two("[0,4]", "[0,4]"),
                  {"expected to begin at byte 4, got 0: the tensors overlap"}, 4),
      with_header("a gap", two("[0,4]", "[8,12]"),
                  {"tensor b: expected to begin at byte 4, got 8: the tensors leave a gap"}, 12),
      with_header("a gap at the start", two("[2,6]", "[6,10]"),
                  {"tensor a: expected to begin at byte 0, got 2"}, 10),
      with_header("trailing bytes", two("[0,4]", "[4,8]"),
                  {"expected the payload to end with its last tensor at byte 8, got 3 more bytes"},
                  11),
      with_header("trailing bytes and no tensors", "{}", {"at byte 0, got 8 more bytes"}),
      with_header("fewer bytes than the shape needs", two("[0,3]", "[3,7]"),
                  {"tensor a: expected 4 bytes for U8 [4], got data_offsets of 3 bytes"}),
      with_header(
          "a product past 2^64",
          R"({"a":{"dtype":"F32","shape":[281474976710656,281474976710656],"data_offsets":[0,8]}})",
          {"tensor a: shape: expected a size below 2^63 bytes"}),
      with_header("a product of exactly 2^63",
                  R"({"a":{"dtype":"F64","shape":[281474976710656,4096],"data_offsets":[0,8]}})",
                  {"shape: expected a size below 2^63 bytes"}),
      with_header("a product that wraps to the right size",
                  R"({"a":{"dtype":"U8","shape":[281474976710656,65536,8],"data_offsets":[0,8]}})",
                  {"shape: expected a size below 2^63 bytes"}),
      with_header("one name twice",
                  R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                  R"("a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}})",
                  {"tensor a: expected each name once, got it twice"}),
      with_folder(
          "half of the file",
          [](const fs::path& dir) { fs::resize_file(dir / kFile, fs::file_size(dir / kFile) / 2); },
          {"expected an end within", "the file is truncated or its header is wrong"}),
      with_folder(
          "one byte short",
          [](const fs::path& dir) { fs::resize_file(dir / kFile, fs::file_size(dir / kFile) - 1); },
          {"the file is truncated or its header is wrong"}),
      with_folder(
          "one byte more",
          [](const fs::path& dir) { write_bytes(dir / kFile, read_bytes(dir / kFile) + "x"); },
          {"got 1 more bytes"}),
  });
}

TEST(RefusalsTest, ManyTensorsStayCheap) {
  std::string header = "{";
  for (int i = 0; i < 120'000; ++i)
    header += fmt::format(R"({}"t{}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                          i == 0 ? "" : ",", i);
  expect_refused({with_header("120,000 tensors", header + "}",
                              {"expected at most 100000 tensors, got more"})});
}

}  // namespace
}  // namespace tandem::io
