#include "io/safetensors_writer.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <numeric>

#include "io/safetensors_index.h"
#include "tests/support/temp_folder.h"

namespace tandem::io {
namespace {

namespace fs = std::filesystem;
using core::DType;
using core::Shape;
using test_support::read_bytes;
using test_support::TempFolder;
using test_support::write_bytes;

const std::vector<TensorDeclaration> kTensors = {{"a.scale", DType::kF32, Shape{}},
                                                 {"a.weight", DType::kBF16, Shape{3, 5}},
                                                 {"empty", DType::kBF16, Shape{0, 5}},
                                                 {"b \"quoted\"", DType::kF8E4M3, Shape{7}}};

std::string payload(const TensorDeclaration& tensor) {
  const auto size =
      static_cast<size_t>(tensor.shape.num_elements()) * core::dtype_bytes(tensor.dtype);
  std::string bytes(size, '\0');
  std::iota(bytes.begin(), bytes.end(), static_cast<char>(tensor.name.size()));
  return bytes;
}

// In pieces of at most `piece` bytes.
base::Status write_all(SafetensorsWriter& writer, size_t piece = 1000) {
  for (const TensorDeclaration& tensor : kTensors) {
    const std::string bytes = payload(tensor);
    for (size_t begin = 0; begin < bytes.size(); begin += piece)
      TANDEM_RETURN_IF_ERROR(
          writer.append(tensor.name, bytes.data() + begin, std::min(piece, bytes.size() - begin)));
  }
  return writer.finish();
}

void expect_content(const std::vector<SafetensorsFile>& files) {
  size_t found = 0;
  for (const SafetensorsFile& file : files)
    for (const SafetensorsEntry& entry : file.entries()) {
      const auto tensor = std::find_if(kTensors.begin(), kTensors.end(),
                                       [&](const auto& t) { return t.name == entry.name; });
      ASSERT_NE(tensor, kTensors.end()) << entry.name;
      EXPECT_EQ(entry.dtype, tensor->dtype);
      EXPECT_EQ(entry.shape, tensor->shape);
      const std::string bytes(static_cast<const char*>(file.view(entry).data),
                              entry.end - entry.begin);
      EXPECT_EQ(bytes, payload(*tensor)) << entry.name;
      ++found;
    }
  EXPECT_EQ(found, kTensors.size());
}

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(dir))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(SafetensorsWriterTest, OneFileComesBack) {
  const TempFolder folder;
  auto writer = SafetensorsWriter::create_model(folder.path(), kTensors);
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"model.safetensors.partial"}));
  ASSERT_TRUE(write_all(*writer, 4).has_value());
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"model.safetensors"}));
  const auto files = open_model_files(folder.path());
  ASSERT_TRUE(files.has_value()) << files.error().message;
  expect_content(*files);
  EXPECT_EQ((*files)[0].metadata().at("format"), "pt");
  // Header padded to 8 bytes, so that sorted tensors lie aligned.
  const std::string bytes = read_bytes(folder / "model.safetensors");
  EXPECT_EQ(static_cast<unsigned char>(bytes[0]) % 8, 0);
}

TEST(SafetensorsWriterTest, ShardsAndIndexComeBack) {
  const TempFolder folder;
  auto writer = SafetensorsWriter::create_model(folder.path(), kTensors, {.max_shard_bytes = 31});
  ASSERT_TRUE(write_all(*writer).has_value());
  EXPECT_EQ(names_in(folder.path()),
            (std::vector<std::string>{
                "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
  const auto files = open_model_files(folder.path());
  ASSERT_TRUE(files.has_value()) << files.error().message;
  expect_content(*files);
  const auto index = nlohmann::json::parse(read_bytes(folder / kIndexFileName));
  EXPECT_EQ(index["metadata"]["total_size"], 4 + 30 + 7);
}

TEST(SafetensorsWriterTest, TheSameInputGivesTheSameBytes) {
  const TempFolder folder;
  for (const char* name : {"a", "b"}) {
    auto writer = SafetensorsWriter::create_file(folder / name, kTensors);
    ASSERT_TRUE(write_all(*writer, name[0] == 'a' ? 1 : 100).has_value());
  }
  EXPECT_EQ(read_bytes(folder / "a"), read_bytes(folder / "b"));
}

TEST(SafetensorsWriterTest, AnUnfinishedWriterLeavesNothing) {
  const TempFolder folder;
  {
    auto writer = SafetensorsWriter::create_model(folder.path(), kTensors, {.max_shard_bytes = 31});
    ASSERT_TRUE(writer->append("a.scale", "abcd", 4).has_value());
    EXPECT_FALSE(open_model_files(folder.path()).has_value());
  }
  EXPECT_TRUE(names_in(folder.path()).empty());
}

// What a killed process leaves: temporary files, and shards without an index. None of it loads.
TEST(SafetensorsWriterTest, HalfAModelDoesNotLoad) {
  const TempFolder folder;
  auto writer = SafetensorsWriter::create_model(folder.path(), kTensors, {.max_shard_bytes = 31});
  ASSERT_TRUE(write_all(*writer).has_value());
  fs::remove(folder / kIndexFileName);
  EXPECT_FALSE(open_model_files(folder.path()).has_value());
}

TEST(SafetensorsWriterTest, LeftoversOfAKilledRunDoNoHarm) {
  const TempFolder folder;
  write_bytes(folder / "model.safetensors.partial", std::string(5000, 'x'));
  auto writer = SafetensorsWriter::create_model(folder.path(), kTensors);
  ASSERT_TRUE(write_all(*writer).has_value());
  expect_content(*open_model_files(folder.path()));
}

std::string refusal(const base::Result<SafetensorsWriter>& writer) {
  return writer ? "accepted" : writer.error().message;
}

TEST(SafetensorsWriterTest, RefusesAFolderWithAModel) {
  const TempFolder folder;
  write_bytes(folder / kIndexFileName, "{}");
  EXPECT_NE(refusal(SafetensorsWriter::create_model(folder.path(), kTensors))
                .find("expected a folder without a model"),
            std::string::npos);
}

TEST(SafetensorsWriterTest, RefusesATensorTwice) {
  const TempFolder folder;
  EXPECT_EQ(refusal(SafetensorsWriter::create_file(folder / "x", {kTensors[0], kTensors[0]})),
            "tensor a.scale: expected to be written once, got it twice");
}

TEST(SafetensorsWriterTest, RefusesAFolderThatIsNotThere) {
  const TempFolder folder;
  EXPECT_NE(refusal(SafetensorsWriter::create_model(folder / "nothing", kTensors))
                .find("expected to create the file, got: No such file or directory"),
            std::string::npos);
}

// A full disk, by a limit on the size of files.
TEST(SafetensorsWriterTest, AFullDiskIsReportedAndLeavesNothing) {
  const TempFolder folder;
  const std::vector<TensorDeclaration> big = {{"big", DType::kU8, Shape{1 << 16}}};
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto ignored = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  base::Status status;
  {
    auto writer = SafetensorsWriter::create_model(folder.path(), big);
    const std::string bytes(1 << 16, 'x');
    status = writer->append("big", bytes.data(), bytes.size());
  }
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, ignored);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, base::ErrorCode::kResourceExhausted);
  EXPECT_NE(status.error().message.find("expected to write, got: File too large"),
            std::string::npos);
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(SafetensorsWriterTest, SortingAlignsEveryTensor) {
  std::vector<TensorDeclaration> tensors = {{"b", DType::kF8E4M3, Shape{3}},
                                            {"c", DType::kBF16, Shape{1}},
                                            {"d", DType::kF32, Shape{}},
                                            {"a", DType::kF8E4M3, Shape{1}}};
  sort_for_alignment(tensors);
  std::string order;
  for (const auto& tensor : tensors) order += tensor.name;
  EXPECT_EQ(order, "dcab");
}

}  // namespace
}  // namespace tandem::io
