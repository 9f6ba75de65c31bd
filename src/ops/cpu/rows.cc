// Norms, element-wise ops and argmax: rows or pieces of rows over threads.
#include <algorithm>
#include <limits>
#include <vector>

#include "ops/cpu/cpu.h"
#include "ops/cpu/scratch.h"
#include "ops/parallel.h"

namespace tandem::ops::cpu {
namespace {

// Elements that pay for waking a thread.
constexpr int64_t kMinElements = 1 << 14;
// Long rows are cut into pieces; a multiple of the lanes.
constexpr int64_t kPiece = 4096;

int64_t grain_of_rows(int64_t cols) {
  return kMinElements / (cols + 1) + 1;
}

// body(row, begin, end) over pieces of rows.
template <typename Body>
void for_pieces(const Context& context, int64_t rows, int64_t cols, const Body& body) {
  const int64_t pieces = (cols + kPiece - 1) / kPiece;
  const int64_t grain = kMinElements / std::min(kPiece, cols + 1) + 1;
  parallel_for(context, rows * pieces, grain, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t from = item % pieces * kPiece;
      body(item / pieces, from, std::min(cols, from + kPiece));
    }
  });
}

}  // namespace

void rms_norm(const Context& context, const core::TensorView& x, const core::TensorView& weight,
              float eps, const core::TensorView& out) {
  parallel_for(context, x.rows(), grain_of_rows(x.cols()), [&](int64_t begin, int64_t end) {
    kernels().rms_norm(rows_of(x), rows_of(weight), eps, x.cols(), begin, end, rows_of(out));
  });
}

void add_rms_norm(const Context& context, const core::TensorView& branch,
                  const core::TensorView& weight, float eps, float scale,
                  const core::TensorView& residual) {
  const int64_t dim = residual.cols();
  parallel_for(context, residual.rows(), grain_of_rows(dim), [&](int64_t begin, int64_t end) {
    kernels().add_rms_norm(rows_of(branch), rows_of(weight), eps, scale, dim, begin, end,
                           rows_of(residual));
  });
}

void gelu_mul(const Context& context, const core::TensorView& gate, const core::TensorView& up,
              const core::TensorView& out) {
  for_pieces(context, out.rows(), out.cols(), [&](int64_t row, int64_t begin, int64_t end) {
    kernels().gelu_mul(rows_of(gate), rows_of(up), rows_of(out), row, begin, end);
  });
}

void softcap(const Context& context, float cap, const core::TensorView& logits) {
  for_pieces(context, logits.rows(), logits.cols(), [&](int64_t row, int64_t begin, int64_t end) {
    kernels().softcap(cap, logits.row<float>(row), begin, end);
  });
}

void scaled_rows(const Context& context, const core::TensorView& x,
                 std::span<const int32_t> indices, float scale, const core::TensorView& out) {
  const int64_t cols = out.cols();
  parallel_for(context, out.rows(), grain_of_rows(cols), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t from = indices.empty() ? r : indices[static_cast<size_t>(r)];
      kernels().copy_row(rows_of(x), from, scale, rows_of(out), r, cols);
    }
  });
}

void rope(const Context& context, const core::TensorView& cos, const core::TensorView& sin,
          const core::TensorView& x) {
  parallel_for(context, x.rows(), grain_of_rows(x.cols()), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      kernels().rope(cos.row<float>(r), sin.row<float>(r), rows_of(x), r, x.shape[1], x.shape[2]);
  });
}

void argmax(const Context& context, const core::TensorView& logits,
            std::span<const int32_t> suppressed, std::span<int32_t> tokens) {
  const int64_t vocab = logits.cols();
  std::vector<int32_t> holes(suppressed.begin(), suppressed.end());
  std::erase_if(holes, [&](int32_t id) { return id < 0 || id >= vocab; });
  std::sort(holes.begin(), holes.end());
  parallel_for(context, logits.rows(), grain_of_rows(vocab), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* const row = logits.row<float>(r);
      // The pieces between suppressed ids, in order; a later piece wins only with a larger logit.
      ArgmaxResult best;
      int64_t from = 0;
      for (size_t i = 0; i <= holes.size(); ++i) {
        const int64_t to = i < holes.size() ? holes[i] : vocab;
        const ArgmaxResult piece = from < to ? kernels().argmax(row, from, to) : ArgmaxResult{};
        // A suppressed logit is no candidate but has to be finite all the same.
        const bool hole_finite = to == vocab || row[to] < std::numeric_limits<float>::infinity();
        best.finite = best.finite && piece.finite && hole_finite;
        if (piece.token >= 0 && (best.token < 0 || row[piece.token] > row[best.token]))
          best.token = piece.token;
        from = to + 1;
      }
      tokens[static_cast<size_t>(r)] = best.finite ? best.token : kNotFinite;
    }
  });
}

}  // namespace tandem::ops::cpu
