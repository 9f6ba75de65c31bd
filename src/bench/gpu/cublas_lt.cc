#include "bench/gpu/cublas_lt.h"

#include <cublasLt.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/check.h"
#include "bench/gpu/graph_timer.h"

namespace tandem::bench {

struct CublasLtFunctions {
  void* library = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetVersion) get_version = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;

  ~CublasLtFunctions() {
    if (library != nullptr) ::dlclose(library);
  }
};

namespace {

using ops::cuda::PackedType;

// The last one: where the toolkit puts it, which the loader need not know.
constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12",
                                  "/usr/local/cuda/lib64/libcublasLt.so"};
constexpr int kMaxAlgorithms = 8;
constexpr size_t kWorkspaceBytes = size_t{64} << 20;
constexpr size_t kScaleStride = 64;  // floats: a scale is aligned as an allocation is
constexpr int kFp8Rows = 16;         // FP8 wants every dimension in sixteens

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

bool find_all(CublasLtFunctions& f) {
  void* const l = f.library;
  return find(l, "cublasLtCreate", f.create) && find(l, "cublasLtDestroy", f.destroy) &&
         find(l, "cublasLtGetVersion", f.get_version) &&
         find(l, "cublasLtMatmulDescCreate", f.desc_create) &&
         find(l, "cublasLtMatmulDescDestroy", f.desc_destroy) &&
         find(l, "cublasLtMatmulDescSetAttribute", f.desc_set) &&
         find(l, "cublasLtMatrixLayoutCreate", f.layout_create) &&
         find(l, "cublasLtMatrixLayoutDestroy", f.layout_destroy) &&
         find(l, "cublasLtMatmulPreferenceCreate", f.preference_create) &&
         find(l, "cublasLtMatmulPreferenceDestroy", f.preference_destroy) &&
         find(l, "cublasLtMatmulPreferenceSetAttribute", f.preference_set) &&
         find(l, "cublasLtMatmulAlgoGetHeuristic", f.get_heuristic) &&
         find(l, "cublasLtMatmul", f.matmul);
}

void check(cublasStatus_t status) {
  TANDEM_CHECK_EQ(static_cast<int>(status), static_cast<int>(CUBLAS_STATUS_SUCCESS));
}

}  // namespace

CublasLt::CublasLt() : functions_(std::make_unique<CublasLtFunctions>()) {}

std::unique_ptr<CublasLt> CublasLt::load(std::string& why) {
  std::unique_ptr<CublasLt> loaded(new CublasLt());
  CublasLtFunctions& f = *loaded->functions_;
  for (const char* name : kNames) {
    f.library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (f.library != nullptr) break;
  }
  if (f.library == nullptr) {
    why =
        "libcublasLt.so.13 or .12 is not installed, or not where the loader looks "
        "(LD_LIBRARY_PATH)";
    return nullptr;
  }
  cublasLtHandle_t handle = nullptr;
  if (!find_all(f) || f.create(&handle) != CUBLAS_STATUS_SUCCESS) {
    why = "the installed libcublasLt does not start";
    return nullptr;
  }
  loaded->handle_ = handle;
  return loaded;
}

CublasLt::~CublasLt() {
  if (handle_ != nullptr) functions_->destroy(static_cast<cublasLtHandle_t>(handle_));
}

std::string CublasLt::version() const {
  const size_t version = functions_->get_version();  // 130002: 13.0.2
  const size_t major = version / 10000;
  return fmt::format("cuBLASLt {}.{}.{}", major, version / 100 % 100, version % 100);
}

struct LibraryProduct::Plan {
  Plan(const CublasLtFunctions& f, PackedType type, int in, int out, int rows_in)
      : functions(f),
        rows(type == PackedType::kFp8 ? (rows_in + kFp8Rows - 1) / kFp8Rows * kFp8Rows : rows_in),
        x(static_cast<size_t>(rows) * static_cast<size_t>(in) * (type == PackedType::kFp8 ? 1 : 2)),
        y(static_cast<size_t>(rows) * static_cast<size_t>(out) * 2),
        workspace(kWorkspaceBytes),
        scales(2 * kScaleStride * sizeof(float)) {
    std::array<float, 2 * kScaleStride> values = {};
    values[0] = 0.05F;
    values[kScaleStride] = 0.01F;
    TANDEM_CUDA_CHECK(
        cudaMemcpy(scales.data(), values.data(), scales.size_bytes(), cudaMemcpyHostToDevice));
    fill_input(type);
    const cudaDataType_t data = type == PackedType::kFp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
    check(f.desc_create(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(f.desc_set(desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    if (type == PackedType::kFp8) set_fp8();
    // Column-major to the library: the weight is [in, out] transposed, x [in, rows], y [out, rows].
    const auto k = static_cast<uint64_t>(in);
    const auto m = static_cast<uint64_t>(out);
    const auto n = static_cast<uint64_t>(rows);
    check(f.layout_create(&weight_layout, data, k, m, in));
    check(f.layout_create(&x_layout, data, k, n, in));
    check(f.layout_create(&y_layout, CUDA_R_16BF, m, n, out));
  }
  ~Plan() {
    functions.layout_destroy(y_layout);
    functions.layout_destroy(x_layout);
    functions.layout_destroy(weight_layout);
    functions.desc_destroy(desc);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // Random values of one size: zeros draw less power and run faster.
  void fill_input(PackedType type) {
    std::vector<uint8_t> bytes(x.size_bytes());
    uint32_t state = 1;
    for (size_t i = 0; i < bytes.size(); ++i) {
      state = state * 1664525U + 1013904223U;
      const auto random = static_cast<uint8_t>(state >> 24);
      const bool high_byte = i % 2 == 1;
      const int value = type == PackedType::kFp8 ? (random & 0x9f) | 0x20
                        : high_byte              ? (random & 0x80) | 0x3c
                                                 : random;
      bytes[i] = static_cast<uint8_t>(value);
    }
    TANDEM_CUDA_CHECK(cudaMemcpy(x.data(), bytes.data(), bytes.size(), cudaMemcpyHostToDevice));
  }
  void set_fp8() {
    const float* const weight_scale = scales.as<float>();
    const float* const x_scale = weight_scale + kScaleStride;
    const int8_t fast = 1;  // the quicker of its two ways to add
    check(functions.desc_set(desc, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &weight_scale,
                             sizeof(weight_scale)));
    check(
        functions.desc_set(desc, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &x_scale, sizeof(x_scale)));
    check(functions.desc_set(desc, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast)));
  }

  const CublasLtFunctions& functions;
  int rows;
  ops::cuda::DeviceBuffer x;          // [rows, in]
  ops::cuda::DeviceBuffer y;          // [rows, out] BF16
  ops::cuda::DeviceBuffer workspace;  // bytes
  ops::cuda::DeviceBuffer scales;     // of the weight and of x
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t weight_layout = nullptr;
  cublasLtMatrixLayout_t x_layout = nullptr;
  cublasLtMatrixLayout_t y_layout = nullptr;
  std::array<cublasLtMatmulHeuristicResult_t, kMaxAlgorithms> algorithms = {};
  int num_algorithms = 0;
};

LibraryProduct::LibraryProduct(const CublasLt& library, PackedType type, int in_features,
                               int out_features, int rows)
    : library_(library),
      plan_(std::make_unique<Plan>(library.functions(), type, in_features, out_features, rows)) {
  const CublasLtFunctions& f = library.functions();
  Plan& p = *plan_;
  cublasLtMatmulPreference_t preference = nullptr;
  check(f.preference_create(&preference));
  check(f.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspaceBytes,
                         sizeof(kWorkspaceBytes)));
  // An error means the same as none: this library has nothing for the shape.
  if (f.get_heuristic(static_cast<cublasLtHandle_t>(library.handle()), p.desc, p.weight_layout,
                      p.x_layout, p.y_layout, p.y_layout, preference, kMaxAlgorithms,
                      p.algorithms.data(), &p.num_algorithms) != CUBLAS_STATUS_SUCCESS)
    p.num_algorithms = 0;
  f.preference_destroy(preference);
}

LibraryProduct::~LibraryProduct() = default;

bool LibraryProduct::launch(cudaStream_t stream, const void* weight, int algorithm) const {
  const Plan& p = *plan_;
  const float one = 1.0F;
  const float zero = 0.0F;
  return library_.functions().matmul(
             static_cast<cublasLtHandle_t>(library_.handle()), p.desc, &one, weight,
             p.weight_layout, p.x.data(), p.x_layout, &zero, p.y.data(), p.y_layout, p.y.data(),
             p.y_layout, &p.algorithms[static_cast<size_t>(algorithm)].algo, p.workspace.data(),
             kWorkspaceBytes, stream) == CUBLAS_STATUS_SUCCESS;
}

double LibraryProduct::choose(std::span<const void* const> weights, size_t launches) {
  double best = 0;
  for (int i = 0; i < plan_->num_algorithms; ++i) {
    if (plan_->algorithms[static_cast<size_t>(i)].state != CUBLAS_STATUS_SUCCESS) continue;
    // Once outside a graph: what cannot run says so, and kernels are loaded.
    if (!launch(nullptr, weights[0], i)) continue;
    TANDEM_CUDA_CHECK(cudaDeviceSynchronize());
    const double us = time_graph(
                          [&](const ops::cuda::Stream& stream) {
                            for (size_t n = 0; n < launches; ++n)
                              TANDEM_CHECK(launch(stream.handle, weights[n % weights.size()], i));
                          },
                          false) /
                      static_cast<double>(launches);
    if (best > 0 && us >= best) continue;
    best = us;
    chosen_ = i;
  }
  return best;
}

void LibraryProduct::run(const ops::cuda::Stream& stream, const void* weight) const {
  TANDEM_CHECK_GE(chosen_, 0);
  TANDEM_CHECK(launch(stream.handle, weight, chosen_));
}

}  // namespace tandem::bench
