#include "io/value_checks.h"

#include <gtest/gtest.h>

#include <cstring>

#include "core/buffer.h"
#include "core/e4m3.h"

namespace tandem::io {
namespace {

using core::Buffer;
using core::DType;
using core::Shape;

bool passes(const core::TensorView& view) {
  const NamedTensor tensor{"x", view};
  return check_tensor_values(std::span(&tensor, 1)).has_value();
}

// Every bit pattern at every place of a word, alone among good values.
TEST(ValueChecksTest, EveryBf16Pattern) {
  Buffer buffer(DType::kBF16, Shape{9});
  auto* values = static_cast<uint16_t*>(buffer.data());
  for (int64_t place = 0; place < 9; ++place)
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      buffer.fill_bytes(0xbf);
      values[place] = static_cast<uint16_t>(bits);
      const bool finite = (bits & 0x7f80U) != 0x7f80U;
      ASSERT_EQ(passes(buffer.view()), finite) << place << " " << bits;
    }
}

TEST(ValueChecksTest, EveryE4m3Byte) {
  Buffer buffer(DType::kF8E4M3, Shape{17});
  auto* values = static_cast<uint8_t*>(buffer.data());
  for (int64_t place = 0; place < 17; ++place)
    for (uint32_t byte = 0; byte < 256; ++byte) {
      buffer.fill_bytes(0xfe);
      values[place] = static_cast<uint8_t>(byte);
      ASSERT_EQ(passes(buffer.view()), !core::e4m3_is_nan(static_cast<uint8_t>(byte)))
          << place << " " << byte;
    }
}

// Several chunks, so both threads work: the first bad element is named, wherever it is.
TEST(ValueChecksTest, TheFirstOfManyIsNamed) {
  constexpr int64_t kSize = (int64_t{9} << 20) + 5;
  Buffer buffer(DType::kF8E4M3, Shape{kSize});
  buffer.fill_bytes(0x38);
  auto* values = static_cast<uint8_t*>(buffer.data());
  for (const int64_t place : {kSize - 1, int64_t{8} << 20, (int64_t{4} << 20) - 1, int64_t{4097}}) {
    values[place] = 0x7f;
    const NamedTensor tensor{"x", buffer.view()};
    const base::Status status = check_tensor_values(std::span(&tensor, 1));
    ASSERT_FALSE(status.has_value());
    EXPECT_NE(status.error().message.find(fmt::format("at element {};", place)), std::string::npos)
        << status.error().message;
  }
}

TEST(ValueChecksTest, OtherTypesAndEmptyTensorsPass) {
  Buffer floats(DType::kF32, Shape{4});
  floats.fill_bytes(0xff);
  EXPECT_TRUE(passes(floats.view()));
  EXPECT_TRUE(passes(Buffer(DType::kBF16, Shape{0, 5}).view()));
}

}  // namespace
}  // namespace tandem::io
