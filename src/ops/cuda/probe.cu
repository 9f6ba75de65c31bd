#include "ops/cuda/device.h"

namespace tandem::ops::cuda {
namespace {

__global__ void probe_kernel() {}

}  // namespace

bool has_code_for_device() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, probe_kernel);
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      (void)cudaGetLastError();  // later calls are not to report it
      return false;
    default:
      TANDEM_CUDA_CHECK(error);
      return true;
  }
}

}  // namespace tandem::ops::cuda
