#include "ops/cuda/wide_rows.h"

#include "ops/cuda/attention.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/row_heads.cuh"
#include "ops/cuda/row_math.cuh"
#include "ops/cuda/wide_product.h"

namespace tandem::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Writes eight columns of a row as an operand. Every thread of a warp calls it.
__device__ void store_eight(const WideOperand& operand, int row, int column, const Eight& x,
                            bool active) {
  const bool upper = column % 16 != 0;
  const uint2 words = e4m3_words(x, operand.divisor(), upper);
  if (!active) return;
  *reinterpret_cast<uint2*>(
      operand.data + wide_word(operand.capacity, row, column / 16 * 16, upper ? 2 : 0)) = words;
}

// A row in a thread block's registers: each warp has runs of 256 columns, one in each of kSweeps
// sweeps. The block is as wide as that takes, so hardly a thread has none.
constexpr int kRun = 32 * 8;
struct RowShape {
  int sweeps;
  int warps;
};
constexpr int kMaxSweeps = 4;
constexpr RowShape row_shape(int hidden) {
  const int runs = (hidden + kRun - 1) / kRun;
  RowShape best = {0, 0};
  for (int sweeps = (runs + kWarps - 1) / kWarps; sweeps <= kMaxSweeps; ++sweeps) {
    const int warps = (runs + sweeps - 1) / sweeps;
    if (best.sweeps == 0 || warps * sweeps < best.warps * best.sweeps) best = {sweeps, warps};
  }
  return best;
}
static_assert(row_shape(3840).sweeps == 3 && row_shape(3840).warps == 5);
static_assert(row_shape(kMaxHidden).warps * kMaxSweeps * kRun == kMaxHidden);

__device__ int column_of(int sweep) {
  return (sweep * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * 8;
}

template <int kSweeps>
__device__ void load_row(const uint16_t* source, int hidden, uint4 (&bits)[kSweeps]) {
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = column_of(i);
    bits[i] = column < hidden ? *reinterpret_cast<const uint4*>(source + column) : uint4{};
  }
}

// The sum over the block, the same bits in every thread. Each call needs a scratch of its own.
__device__ float block_sum(float value, float (&scratch)[kWarps]) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0F;
#pragma unroll
  for (unsigned i = 0; i < kWarps; ++i)
    if (i < blockDim.x / 32) sum += scratch[i];
  return sum;
}

template <int kSweeps>
__device__ float row_inverse_rms(const Eight (&x)[kSweeps], const ColumnCount& columns, float eps,
                                 float (&scratch)[kWarps]) {
  float squares = 0.0F;
#pragma unroll
  for (const Eight& eight : x)
#pragma unroll
    for (const float value : eight.v) squares = fmaf(value, value, squares);
  return inverse_rms(block_sum(squares, scratch), columns, eps);
}

// Writes the residual and its norm.
template <int kSweeps>
__device__ void finish_row(const Eight (&x)[kSweeps], int hidden, uint16_t* residual,
                           const WideNorm& next, const uint4 (&weight)[kSweeps],
                           const ColumnCount& columns, float (&scratch)[kWarps]) {
  const int row = static_cast<int>(blockIdx.x);
  const int64_t start = static_cast<int64_t>(row) * hidden;
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = column_of(i);
    if (column < hidden) *reinterpret_cast<uint4*>(residual + start + column) = pack(x[i]);
  }
  const float inverse = row_inverse_rms(x, columns, next.eps, scratch);
  const bool quantizes = next.operand.data != nullptr;
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = column_of(i);
    const bool active = column < hidden;
    const Eight n = normalized(x[i], inverse, weight[i]);
    if (active && next.normed != nullptr)
      *reinterpret_cast<uint4*>(next.normed + start + column) = pack(n);
    if (quantizes) store_eight(next.operand, row, column, n, active);
  }
}

template <int kSweeps>
__global__ void __launch_bounds__(kThreads) embed_kernel(const WideEmbed op) {
  __shared__ float scratch[kWarps];
  allow_next();
  const ColumnCount columns(op.hidden);
  uint4 weight[kSweeps];
  load_row(op.next.weight, op.hidden, weight);
  wait_for_previous();
  const int token = op.tokens[blockIdx.x];
  Eight x[kSweeps];
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = column_of(i);
    if (column >= op.hidden) continue;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Four four = load_embedding(op.table, token, column + 4 * half);
#pragma unroll
      for (int j = 0; j < 4; ++j) x[i].v[4 * half + j] = four.v[j];
    }
  }
  finish_row(x, op.hidden, op.x, op.next, weight, columns, scratch);
}

template <int kSweeps>
__global__ void __launch_bounds__(kThreads) residual_kernel(const WideResidual op) {
  __shared__ float branch_scratch[kWarps];
  __shared__ float scratch[kWarps];
  allow_next();
  const ColumnCount columns(op.hidden);
  uint4 post_weight[kSweeps];
  uint4 weight[kSweeps];
  load_row(op.post_weight, op.hidden, post_weight);
  load_row(op.next.weight, op.hidden, weight);
  wait_for_previous();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * op.hidden;
  uint4 branch[kSweeps];
  uint4 old[kSweeps];
  load_row(op.y + start, op.hidden, branch);
  load_row(op.x + start, op.hidden, old);
  Eight x[kSweeps];
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) x[i] = unpack(branch[i]);
  const float inverse = row_inverse_rms(x, columns, op.eps, branch_scratch);
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    x[i] = unpack(added(old[i], pack(normalized(x[i], inverse, post_weight[i]))));
    if (op.layer_scalar == 1.0F) continue;
#pragma unroll
    for (float& value : x[i].v) value = round_bf16(value * op.layer_scalar);
  }
  finish_row(x, op.hidden, op.x, op.next, weight, columns, scratch);
}

__global__ void __launch_bounds__(kThreads)
    to_operand_kernel(const uint16_t* rows, int in_features, const WideOperand operand) {
  allow_next();
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * 8;
  const bool active = column < in_features;
  Eight x;
  if (active)
    x = unpack(
        *reinterpret_cast<const uint4*>(rows + static_cast<int64_t>(row) * in_features + column));
  store_eight(operand, row, column, x, active);
}

// Writes a thread's part of head `unit` of the row. `weight`: of the norms of q or k.
template <bool kFp8>
__device__ void finish_head(const WideHeads& op, const Rows& rows, int unit, int column,
                            const row_heads::Head& raw, float inverse,
                            const row_heads::HeadBits& weight, const row_heads::Angles& angles) {
  const int row = static_cast<int>(blockIdx.x);
  const int half = op.head_dim / 2;
  const int first_value = op.num_heads + op.num_kv_heads;
  row_heads::Head head;
  if (unit < first_value) head = row_heads::rotated(raw, inverse, weight, angles);
  if (unit < op.num_heads) {
    const int64_t index = static_cast<int64_t>(row) * op.num_heads + unit;
    return row_heads::store_head(head, op.q + index * op.head_dim + column, half);
  }
  const bool is_key = unit < first_value;
  const int kv_head = unit - (is_key ? op.num_heads : first_value);
  const bool in_chunk = op.chunk.k != nullptr;
  const int64_t place =
      column + (in_chunk ? (static_cast<int64_t>(row) * op.num_kv_heads + kv_head) * op.head_dim
                         : kv_offset(op.places, op.num_kv_heads, op.head_dim, rows.sequences[row],
                                     kv_head, rows.positions[row]));
  const KvLayer& target = in_chunk ? op.chunk : op.kv;
  if (is_key) row_heads::store_kv<kFp8>(head, target.k, place, in_chunk, op.kv.k_scale, half);
  if (!is_key || op.k_eq_v)
    row_heads::store_kv<kFp8>(row_heads::plain_norm(raw, inverse), target.v, place, in_chunk,
                              op.kv.v_scale, half);
}

// One block for a row, head_dim / 16 lanes for a head, two heads of each thread on their way at
// once.
template <bool kFp8>
__global__ void __launch_bounds__(row_heads::kThreads, 4)
    heads_kernel(const WideHeads op, const Rows rows) {
  constexpr int kTogether = 2;
  allow_next();
  const int half = op.head_dim / 2;
  const int lanes = half / 8;
  const int thread = static_cast<int>(threadIdx.x);
  const int column = thread % lanes * 8;
  const ColumnCount columns(op.head_dim);
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.x);
  const int units = op.num_heads + (op.k_eq_v ? 1 : 2) * op.num_kv_heads;
  const uint16_t* const product =
      op.product + static_cast<int64_t>(row) * units * op.head_dim + column;
  const int step = row_heads::kThreads / lanes;
  row_heads::HeadBits raw[kTogether];
  const auto load = [&](int unit) {
#pragma unroll
    for (int i = 0; i < kTogether; ++i, unit += step)
      raw[i] = row_heads::load_head(product + unit * op.head_dim, half, unit < units);
  };
  int unit = thread / lanes;
  load(unit);  // on their way while the angles are worked out
  const auto angles = row_heads::row_angles(op.inv_freq, rows.positions[row], half, column);
  // As long as any lane of the warp has a head.
  for (int first = thread / 32 * (32 / lanes); first < units; first += kTogether * step) {
#pragma unroll
    for (int i = 0; i < kTogether; ++i, unit += step) {
      const auto weight = row_heads::load_head(
          (unit < op.num_heads ? op.q_norm : op.k_norm) + column, half, unit < units);
      const row_heads::Head head = {{unpack(raw[i].halves[0]), unpack(raw[i].halves[1])}};
      const float inverse = row_heads::inverse_rms(head, lanes, columns, op.eps);
      if (unit < units) finish_head<kFp8>(op, rows, unit, column, head, inverse, weight, angles);
    }
    load(unit);
  }
}

// 16 bytes of a cache from a chunk's columns, which E4M3 holds exactly.
template <bool kFp8>
__device__ void store_piece(void* rows, int64_t offset, const uint16_t* source) {
  const auto* const bits = reinterpret_cast<const uint4*>(source);
  uint4 piece = bits[0];
  if constexpr (kFp8) {
    const uint4 upper = bits[1];
    piece = {narrowed_e4m3({piece.x, piece.y}), narrowed_e4m3({piece.z, piece.w}),
             narrowed_e4m3({upper.x, upper.y}), narrowed_e4m3({upper.z, upper.w})};
  }
  auto* const target = static_cast<uint8_t*>(rows) + offset * (kFp8 ? 1 : 2);
  *reinterpret_cast<uint4*>(target) = piece;
}

// grid (row of the tile, tile)
template <bool kFp8>
__global__ void __launch_bounds__(kThreads)
    store_ring_kernel(const RingStore op, const Rows rows, const WideTiles tiles) {
  allow_next();
  wait_for_previous();
  const int tile = static_cast<int>(blockIdx.y);
  const int index = static_cast<int>(blockIdx.x);
  if (index >= tiles.num_rows[tile]) return;
  const int row = tiles.first_rows[tile] + index;
  const int position = rows.positions[row];
  if (position < tiles.chunk_ends[tile] - op.places.ring_len) return;
  constexpr int kColumns = kFp8 ? 16 : 8;  // 16 bytes of the cache
  const int pieces = op.head_dim / kColumns;
  for (int i = static_cast<int>(threadIdx.x); i < op.num_kv_heads * pieces; i += kThreads) {
    const int kv_head = i / pieces;
    const int column = i % pieces * kColumns;
    const int64_t source =
        (static_cast<int64_t>(row) * op.num_kv_heads + kv_head) * op.head_dim + column;
    const int64_t target =
        kv_offset(op.places, op.num_kv_heads, op.head_dim, rows.sequences[row], kv_head, position) +
        column;
    store_piece<kFp8>(op.kv.k, target, bf16_rows(op.chunk.k) + source);
    store_piece<kFp8>(op.kv.v, target, bf16_rows(op.chunk.v) + source);
  }
}

__global__ void __launch_bounds__(kThreads)
    gather_kernel(const uint16_t* hidden_rows, const int32_t* sources, int hidden, uint16_t* out,
                  const Operand operand) {
  allow_next();
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * 4;
  if (column >= hidden) return;
  const int source = sources[row];
  uint2 bits = {};
  if (source >= 0) bits = load_bits(hidden_rows + static_cast<int64_t>(source) * hidden + column);
  *reinterpret_cast<uint2*>(out + static_cast<int64_t>(row) * hidden + column) = bits;
  const Four x = unpack(bits);
  store_operand(operand, row, column, x.v[0], x.v[1]);
  store_operand(operand, row, column + 2, x.v[2], x.v[3]);
}

void check_shape(int num_rows, int hidden, const WideNorm& next) {
  TANDEM_GPU_CHECK(num_rows > 0);
  TANDEM_GPU_CHECK(hidden > 0 && hidden % 32 == 0 && hidden <= kMaxHidden);
  TANDEM_GPU_CHECK(next.weight != nullptr);
  TANDEM_GPU_CHECK(next.operand.data == nullptr || num_rows <= next.operand.capacity);
}

// Threads that have so many columns each.
unsigned element_blocks(int columns, int each) {
  return static_cast<unsigned>((columns / each + kThreads - 1) / kThreads);
}

// `kernels`: of one sweep, two, ...
template <typename Op>
void launch_rows(const Stream& stream, const Op& op, void (*const (&kernels)[kMaxSweeps])(Op)) {
  check_shape(op.num_rows, op.hidden, op.next);
  const RowShape shape = row_shape(op.hidden);
  launch(stream, kernels[shape.sweeps - 1], dim3(static_cast<unsigned>(op.num_rows)),
         dim3(static_cast<unsigned>(shape.warps) * 32), 0, op);
}

}  // namespace

void wide_embed(const Stream& stream, const WideEmbed& op) {
  launch_rows(stream, op, {embed_kernel<1>, embed_kernel<2>, embed_kernel<3>, embed_kernel<4>});
}

void wide_residual(const Stream& stream, const WideResidual& op) {
  launch_rows(stream, op,
              {residual_kernel<1>, residual_kernel<2>, residual_kernel<3>, residual_kernel<4>});
}

void wide_heads(const Stream& stream, const Rows& rows, const WideHeads& op) {
  TANDEM_GPU_CHECK(row_heads::takes_head_dim(op.head_dim));
  TANDEM_GPU_CHECK(op.num_heads > 0 && op.num_kv_heads > 0 && rows.num_rows > 0);
  TANDEM_GPU_CHECK(!op.chunk.is_fp8);
  launch(stream, op.kv.is_fp8 ? heads_kernel<true> : heads_kernel<false>,
         dim3(static_cast<unsigned>(rows.num_rows)), dim3(row_heads::kThreads), 0, op, rows);
}

void store_ring(const Stream& stream, const Rows& rows, const WideTiles& tiles,
                const RingStore& op) {
  TANDEM_GPU_CHECK(op.head_dim % 16 == 0 && !op.chunk.is_fp8);
  TANDEM_GPU_CHECK(op.places.ring_len > 0 && tiles.num_tiles > 0);
  launch(stream, op.kv.is_fp8 ? store_ring_kernel<true> : store_ring_kernel<false>,
         dim3(kWideTileRows, static_cast<unsigned>(tiles.num_tiles)), dim3(kThreads), 0, op, rows,
         tiles);
}

void gather_rows(const Stream& stream, const uint16_t* hidden_rows, const int32_t* sources,
                 int num_rows, int hidden, uint16_t* out, const Operand& operand) {
  TANDEM_GPU_CHECK(num_rows > 0 && num_rows <= 8 * operand.num_tiles && hidden % 32 == 0);
  launch(stream, gather_kernel, dim3(element_blocks(hidden, 4), static_cast<unsigned>(num_rows)),
         dim3(kThreads), 0, hidden_rows, sources, hidden, out, operand);
}

void rows_to_wide_operand(const Stream& stream, const uint16_t* rows, int num_rows, int in_features,
                          const WideOperand& operand) {
  TANDEM_GPU_CHECK(in_features % 32 == 0 && num_rows > 0 && num_rows <= operand.capacity);
  launch(stream, to_operand_kernel,
         dim3(element_blocks(in_features, 8), static_cast<unsigned>(num_rows)), dim3(kThreads), 0,
         rows, in_features, operand);
}

}  // namespace tandem::ops::cuda
