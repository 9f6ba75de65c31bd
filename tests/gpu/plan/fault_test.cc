// What a CUDA call returns: an error is thrown, so that the server can still tell its clients.
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "ops/cuda/device.h"

namespace tandem::ops::cuda {
namespace {

TEST(CudaFault, AnErrorIsThrownWithTheCall) {
  EXPECT_NO_THROW(TANDEM_CUDA_CHECK(cudaSuccess));
  try {
    TANDEM_CUDA_CHECK(cudaErrorIllegalAddress);
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    const std::string text = error.what();
    EXPECT_TRUE(text.starts_with("CUDA: cudaErrorIllegalAddress: ")) << text;
    EXPECT_NE(text.find("illegal memory access"), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace tandem::ops::cuda
