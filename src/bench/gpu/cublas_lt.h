// cuBLASLt as the peer of our products: found at run time, never linked. Where it is not installed
// the reports say so.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "ops/cuda/packed_linear.h"

namespace tandem::bench {

struct CublasLtFunctions;

class CublasLt {
 public:
  // Null where the library is not installed or too old; `why` then says which.
  static std::unique_ptr<CublasLt> load(std::string& why);
  ~CublasLt();

  std::string version() const;  // "cuBLASLt 13.0.2"
  const CublasLtFunctions& functions() const { return *functions_; }
  void* handle() const { return handle_; }

 private:
  CublasLt();

  std::unique_ptr<CublasLtFunctions> functions_;
  void* handle_ = nullptr;  // cublasLtHandle_t
};

// y [rows, out] BF16 = x [rows, in] weight [out, in]^T: E4M3 x E4M3 with a scale for each, or BF16
// x BF16. FP8 takes its rows sixteen at a time.
class LibraryProduct {
 public:
  LibraryProduct(const CublasLt& library, ops::cuda::PackedType type, int in_features,
                 int out_features, int rows);
  ~LibraryProduct();
  LibraryProduct(const LibraryProduct&) = delete;
  LibraryProduct& operator=(const LibraryProduct&) = delete;

  // Tries the first eight algorithms of the library's heuristics on `weights` in turn, `launches`
  // of them in a graph, and keeps the fastest. Its microseconds a launch; 0 when none works.
  double choose(std::span<const void* const> weights, size_t launches);
  // With the chosen algorithm.
  void run(const ops::cuda::Stream& stream, const void* weight) const;

 private:
  struct Plan;
  bool launch(cudaStream_t stream, const void* weight, int algorithm) const;

  const CublasLt& library_;
  std::unique_ptr<Plan> plan_;
  int chosen_ = -1;
};

}  // namespace tandem::bench
