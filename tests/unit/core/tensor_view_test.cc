#include "core/tensor_view.h"

#include <gtest/gtest.h>

#include "core/buffer.h"

namespace tandem::core {
namespace {

TEST(Shape, ComparesCountsAndPrints) {
  const Shape shape{3, 4, 5};
  EXPECT_EQ(shape.rank(), 3U);
  EXPECT_EQ(shape.num_elements(), 60);
  EXPECT_EQ(to_string(shape), "[3, 4, 5]");
  EXPECT_EQ(to_string(Shape{}), "[]");
  EXPECT_EQ(Shape{}.num_elements(), 1);
  EXPECT_TRUE(shape == (Shape{3, 4, 5}));
  EXPECT_FALSE(shape == (Shape{3, 4}));
  EXPECT_FALSE(shape == (Shape{3, 4, 6}));
}

TEST(TensorView, RowsAreStrided) {
  float values[12] = {};
  for (int i = 0; i < 12; ++i) values[i] = static_cast<float>(i);
  TensorView view(values, DType::kF32, Shape{3, 4});
  EXPECT_EQ(view.row_stride, 4);
  EXPECT_EQ(*view.row<float>(2), 8.0F);
  TensorView left(values, DType::kF32, Shape{3, 2});
  left.row_stride = 4;
  EXPECT_EQ(left.cols(), 2);
  EXPECT_EQ(*left.slice_rows(1, 3).row<float>(1), 8.0F);
  EXPECT_EQ(left.slice_rows(1, 3).row_stride, 4);
  EXPECT_EQ(left.slice_rows(1, 1).rows(), 0);
}

TEST(TensorView, EmptyAndScalar) {
  const TensorView none(nullptr, DType::kBF16, Shape{0, 7});
  EXPECT_EQ(none.rows(), 0);
  float value = 2.0F;
  const TensorView scalar(&value, DType::kF32, Shape{});
  EXPECT_EQ(scalar.rows(), 1);
  EXPECT_EQ(*scalar.ptr<float>(), 2.0F);
}

TEST(TensorViewDeathTest, TheWrongTypeIsABug) {
  float value = 1.0F;
  const TensorView view(&value, DType::kF32, Shape{1, 1});
  EXPECT_DEATH(view.row<BFloat16>(0), "check failed");
  EXPECT_DEATH((void)view.slice_rows(0, 2), "check failed");
}

TEST(Buffer, IsAlignedAndSized) {
  const Buffer buffer(DType::kBF16, Shape{5, 3});
  EXPECT_EQ(buffer.size_bytes(), 30U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0U);
  EXPECT_EQ(buffer.rows(2).rows(), 2);
  EXPECT_TRUE(Buffer().empty());
  EXPECT_FALSE(Buffer(DType::kF32, Shape{0, 4}).empty());
}

TEST(DType, NamesGoBothWays) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3, DType::kI64,
                            DType::kBool, DType::kF8E5M2}) {
    EXPECT_EQ(dtype_from_name(dtype_name(dtype)), dtype);
    EXPECT_GT(dtype_bytes(dtype), 0U);
  }
  EXPECT_EQ(dtype_from_name("F8_E4M3"), DType::kF8E4M3);
  EXPECT_FALSE(dtype_from_name("F9").has_value());
}

}  // namespace
}  // namespace tandem::core
