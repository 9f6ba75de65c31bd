#include "core/buffer.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace tandem::core {
namespace {

TEST(BufferTest, IsWhatWasAskedFor) {
  const Buffer buffer(DType::kBF16, {3, 5});
  EXPECT_EQ(buffer.size_bytes(), size_t{30});
  EXPECT_EQ(buffer.view().shape, (Shape{3, 5}));
}

// A flag or a config may ask for more than there is: whoever owns the work says so and ends.
TEST(BufferTest, MoreThanThereIsIsThrown) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer ends a program that asks for so much";
#endif
  try {
    const Buffer buffer(DType::kF32, {int64_t{1} << 30, int64_t{1} << 28});
    FAIL() << "got 2^60 bytes";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("memory: expected 1152921504606847040 bytes"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace tandem::core
