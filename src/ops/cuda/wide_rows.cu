#include "ops/cuda/wide_rows.h"

#include "ops/cuda/attention.cuh"
#include "ops/cuda/kv_store.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_ptx.cuh"
#include "ops/cuda/row_math.cuh"
#include "ops/cuda/wide_product.h"

namespace tandem::ops::cuda {
namespace {

constexpr int kThreads = 256;  // for one row
constexpr int kWarps = kThreads / 32;
constexpr int kSweep = kThreads * 4;  // columns that a block takes at a time, four a thread

// The sum over the block, the same bits in every thread. Each call needs a scratch of its own.
__device__ float block_sum(float value, float (&scratch)[kWarps]) {
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0F;
#pragma unroll
  for (const float part : scratch) sum += part;
  return sum;
}

// Writes four columns of a row as an operand. A word of it has columns of two threads, two apart:
// they exchange halves, and each stores one word. Every thread of a warp calls it.
__device__ void store_four(const WideOperand& operand, float inverse, int row, int column,
                           const Four& x, bool active) {
  const uint32_t first = e4m3x2(x.v[0], x.v[1], operand.input_scale, inverse);
  const uint32_t second = e4m3x2(x.v[2], x.v[3], operand.input_scale, inverse);
  const bool upper = column % 16 >= 8;
  const uint32_t received = __shfl_xor_sync(0xffffffffU, upper ? first : second, 2);
  if (!active) return;
  const int t = column % 8 / 2 + (upper ? 1 : 0);
  const uint32_t word = upper ? received | (second << 16) : first | (received << 16);
  *reinterpret_cast<uint32_t*>(operand.data +
                               wide_word(operand.capacity, row, column / 16 * 16, t)) = word;
}

// A row in registers: sweep i has the thread's four columns of columns i * kSweep on.
template <int kSweeps>
struct Row {
  Four fours[kSweeps];

  static __device__ int column(int sweep) {
    return sweep * kSweep + static_cast<int>(threadIdx.x) * 4;
  }
  __device__ float inverse_rms(int hidden, float eps, float (&scratch)[kWarps]) const {
    float squares = 0.0F;
#pragma unroll
    for (const Four& four : fours)
#pragma unroll
      for (const float value : four.v) squares = fmaf(value, value, squares);
    const float mean = __fdiv_rn(block_sum(squares, scratch), static_cast<float>(hidden));
    return __frcp_rn(__fsqrt_rn(mean + eps));
  }
};

__device__ Four normalized(const Four& x, float inverse, const Four& weight) {
  Four result;
#pragma unroll
  for (int j = 0; j < 4; ++j) result.v[j] = round_bf16(x.v[j] * inverse * weight.v[j]);
  return result;
}

// Writes the residual and its norm.
template <int kSweeps>
__device__ void finish_row(const Row<kSweeps>& x, int hidden, uint16_t* residual,
                           const WideNorm& next, float (&scratch)[kWarps]) {
  const int row = static_cast<int>(blockIdx.x);
  const int64_t start = static_cast<int64_t>(row) * hidden;
  const float inverse = x.inverse_rms(hidden, next.eps, scratch);
  const bool quantizes = next.operand.data != nullptr;
  const float inverse_scale = __frcp_rn(next.operand.input_scale);
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = Row<kSweeps>::column(i);
    const bool active = column < hidden;
    Four n;
    if (active) {
      store_bits(residual + start + column, x.fours[i]);
      n = normalized(x.fours[i], inverse, unpack(load_bits(next.weight + column)));
      if (next.normed != nullptr) store_bits(next.normed + start + column, n);
    }
    if (quantizes) store_four(next.operand, inverse_scale, row, column, n, active);
  }
}

template <int kSweeps>
__global__ void __launch_bounds__(kThreads) embed_kernel(const WideEmbed op) {
  __shared__ float scratch[kWarps];
  allow_next();
  wait_for_previous();
  const int token = op.tokens[blockIdx.x];
  Row<kSweeps> x;
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = Row<kSweeps>::column(i);
    if (column < op.hidden) x.fours[i] = load_embedding(op.table, token, column);
  }
  finish_row(x, op.hidden, op.x, op.next, scratch);
}

template <int kSweeps>
__global__ void __launch_bounds__(kThreads) residual_kernel(const WideResidual op) {
  __shared__ float branch_scratch[kWarps];
  __shared__ float scratch[kWarps];
  allow_next();
  wait_for_previous();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * op.hidden;
  Row<kSweeps> y;
  uint2 old[kSweeps] = {};
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = Row<kSweeps>::column(i);
    if (column >= op.hidden) continue;
    y.fours[i] = unpack(load_bits(op.y + start + column));
    old[i] = load_bits(op.x + start + column);
  }
  const float inverse = y.inverse_rms(op.hidden, op.eps, branch_scratch);
  Row<kSweeps> x;
#pragma unroll
  for (int i = 0; i < kSweeps; ++i) {
    const int column = Row<kSweeps>::column(i);
    if (column >= op.hidden) continue;
    const Four norm = normalized(y.fours[i], inverse, unpack(load_bits(op.post_weight + column)));
    const Four before = unpack(old[i]);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      x.fours[i].v[j] = round_bf16(round_bf16(before.v[j] + norm.v[j]) * op.layer_scalar);
  }
  finish_row(x, op.hidden, op.x, op.next, scratch);
}

__global__ void __launch_bounds__(kThreads)
    to_operand_kernel(const uint16_t* rows, int in_features, const WideOperand operand) {
  allow_next();
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * 4;
  const bool active = column < in_features;
  Four x;
  if (active) x = unpack(load_bits(rows + static_cast<int64_t>(row) * in_features + column));
  store_four(operand, __frcp_rn(operand.input_scale), row, column, x, active);
}

// The columns of a head that one lane has: four of the lower half and the same four of the upper
// half, which are rotated together, in each of kSteps steps.
template <int kSteps>
struct Head {
  Four values[kSteps][2];
};

// A head as it is in memory, on its way.
template <int kSteps>
struct RawHead {
  uint2 bits[kSteps][2];
};

template <int kSteps>
__device__ RawHead<kSteps> load_head(const uint16_t* source, int half, int lane, bool exists) {
  RawHead<kSteps> head;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int column = step * 128 + lane * 4;
    const bool active = exists && column < half;
#pragma unroll
    for (int part = 0; part < 2; ++part)
      head.bits[step][part] = active ? load_bits(source + part * half + column) : make_uint2(0, 0);
  }
  return head;
}

template <int kSteps>
__device__ Head<kSteps> unpack_head(const RawHead<kSteps>& raw) {
  Head<kSteps> head;
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int part = 0; part < 2; ++part) head.values[step][part] = unpack(raw.bits[step][part]);
  return head;
}

template <int kSteps>
__device__ void store_head(const Head<kSteps>& head, uint16_t* target, int half, int lane) {
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int column = step * 128 + lane * 4;
    if (column >= half) continue;
    store_bits(target + column, head.values[step][0]);
    store_bits(target + half + column, head.values[step][1]);
  }
}

// Keys, or values, at an element of a layer's. The chunk holds what a cache of E4M3 would, as BF16.
template <int kSteps, bool kFp8>
__device__ void store_kv(const Head<kSteps>& head, void* rows, int64_t offset, bool in_chunk,
                         float scale, int half, int lane) {
  if constexpr (!kFp8) return store_head(head, bf16_rows(rows) + offset, half, lane);
  const KvScale by = kv_scale(scale);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int column = step * 128 + lane * 4;
    if (column >= half) continue;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      const uint32_t codes = stored_e4m3(head.values[step][part].v, by);
      const int64_t at = offset + part * half + column;
      if (in_chunk)
        *reinterpret_cast<uint2*>(bf16_rows(rows) + at) = ptx::widen_e4m3(codes);
      else
        *reinterpret_cast<uint32_t*>(static_cast<uint8_t*>(rows) + at) = codes;
    }
  }
}

template <int kSteps>
__device__ float head_inverse_rms(const Head<kSteps>& head, int head_dim, float eps) {
  float squares = 0.0F;
#pragma unroll
  for (const auto& halves : head.values)
#pragma unroll
    for (const Four& four : halves)
#pragma unroll
      for (const float value : four.v) squares = fmaf(value, value, squares);
  const float mean = __fdiv_rn(warp_sum(squares), static_cast<float>(head_dim));
  return __frcp_rn(__fsqrt_rn(mean + eps));
}

// cos and sin of a lane's columns.
template <int kSteps>
struct Angles {
  Four cosines[kSteps];
  Four sines[kSteps];
};

// The norm with its weight, then the rotation; no fused multiply-add, as the CPU rounds.
template <int kSteps>
__device__ Head<kSteps> rotate(const Head<kSteps>& raw, float inverse,
                               const RawHead<kSteps>& weight, const Angles<kSteps>& angles) {
  Head<kSteps> head;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const Four x = normalized(raw.values[step][0], inverse, unpack(weight.bits[step][0]));
    const Four y = normalized(raw.values[step][1], inverse, unpack(weight.bits[step][1]));
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float cosine = angles.cosines[step].v[j];
      const float sine = angles.sines[step].v[j];
      head.values[step][0].v[j] = __fsub_rn(__fmul_rn(x.v[j], cosine), __fmul_rn(y.v[j], sine));
      head.values[step][1].v[j] = __fadd_rn(__fmul_rn(y.v[j], cosine), __fmul_rn(x.v[j], sine));
    }
  }
  return head;
}

template <int kSteps>
__device__ Head<kSteps> plain_norm(const Head<kSteps>& raw, float inverse) {
  Head<kSteps> head;
#pragma unroll
  for (int step = 0; step < kSteps; ++step)
#pragma unroll
    for (int part = 0; part < 2; ++part)
#pragma unroll
      for (int j = 0; j < 4; ++j)
        head.values[step][part].v[j] = raw.values[step][part].v[j] * inverse;
  return head;
}

// The angles of the block's row: each is worked out once.
template <int kSteps>
__device__ Angles<kSteps> row_angles(const float* inv_freq, int position, int half, int lane) {
  __shared__ float cosines[kThreads];
  __shared__ float sines[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < half) {
    float sine;
    float cosine;
    sincosf(__fmul_rn(static_cast<float>(position), inv_freq[thread]), &sine, &cosine);
    cosines[thread] = round_bf16(cosine);
    sines[thread] = round_bf16(sine);
  }
  __syncthreads();
  Angles<kSteps> angles;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int column = step * 128 + lane * 4;
    if (column >= half) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      angles.cosines[step].v[j] = cosines[column + j];
      angles.sines[step].v[j] = sines[column + j];
    }
  }
  return angles;
}

// Writes head `unit` of the row.
template <int kSteps, bool kFp8>
__device__ void finish_head(const WideHeads& op, const Rows& rows, int unit,
                            const Head<kSteps>& raw, const RawHead<kSteps>& q_weight,
                            const RawHead<kSteps>& k_weight, const Angles<kSteps>& angles) {
  const int row = static_cast<int>(blockIdx.x);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int half = op.head_dim / 2;
  const float inverse = head_inverse_rms<kSteps>(raw, op.head_dim, op.eps);
  if (unit < op.num_heads) {
    const int64_t head = static_cast<int64_t>(row) * op.num_heads + unit;
    store_head(rotate<kSteps>(raw, inverse, q_weight, angles), op.q + head * op.head_dim, half,
               lane);
    return;
  }
  const int first_value = op.num_heads + op.num_kv_heads;
  const bool is_key = unit < first_value;
  const int kv_head = unit - (is_key ? op.num_heads : first_value);
  const bool in_chunk = op.chunk.k != nullptr;
  const int64_t place = in_chunk
                            ? (static_cast<int64_t>(row) * op.num_kv_heads + kv_head) * op.head_dim
                            : kv_offset(op.places, op.num_kv_heads, op.head_dim,
                                        rows.sequences[row], kv_head, rows.positions[row]);
  const KvLayer& target = in_chunk ? op.chunk : op.kv;
  if (is_key)
    store_kv<kSteps, kFp8>(rotate<kSteps>(raw, inverse, k_weight, angles), target.k, place,
                           in_chunk, op.kv.k_scale, half, lane);
  if (!is_key || op.k_eq_v)
    store_kv<kSteps, kFp8>(plain_norm<kSteps>(raw, inverse), target.v, place, in_chunk,
                           op.kv.v_scale, half, lane);
}

// One block for a row, a warp for each head, several heads on their way at once.
template <int kSteps, bool kFp8>
__global__ void __launch_bounds__(kThreads, kSteps == 1 ? 3 : 2)
    heads_kernel(const WideHeads op, const Rows rows) {
  constexpr int kTogether = 4 / kSteps;
  allow_next();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int half = op.head_dim / 2;
  const auto q_weight = load_head<kSteps>(op.q_norm, half, lane, true);
  const auto k_weight = load_head<kSteps>(op.k_norm, half, lane, true);
  wait_for_previous();
  const int row = static_cast<int>(blockIdx.x);
  const int units = op.num_heads + (op.k_eq_v ? 1 : 2) * op.num_kv_heads;
  const uint16_t* const product = op.product + static_cast<int64_t>(row) * units * op.head_dim;
  RawHead<kSteps> raw[kTogether];
  int first = static_cast<int>(threadIdx.x) / 32;
  const auto load = [&] {
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int unit = first + i * kWarps;
      raw[i] = load_head<kSteps>(product + unit * op.head_dim, half, lane, unit < units);
    }
  };
  load();  // on their way while the angles are worked out
  const auto angles = row_angles<kSteps>(op.inv_freq, rows.positions[row], half, lane);
  for (; first < units; first += kTogether * kWarps, load()) {
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      const int unit = first + i * kWarps;
      if (unit < units)
        finish_head<kSteps, kFp8>(op, rows, unit, unpack_head(raw[i]), q_weight, k_weight, angles);
    }
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

unsigned element_blocks(int columns) {
  return static_cast<unsigned>((columns / 4 + kThreads - 1) / kThreads);
}

template <typename Op>
void launch_rows(const Stream& stream, const Op& op, void (*one)(Op), void (*two)(Op),
                 void (*four)(Op), void (*eight)(Op)) {
  check_shape(op.num_rows, op.hidden, op.next);
  const int sweeps = (op.hidden + kSweep - 1) / kSweep;
  auto* const kernel = sweeps == 1 ? one : sweeps == 2 ? two : sweeps <= 4 ? four : eight;
  launch(stream, kernel, dim3(static_cast<unsigned>(op.num_rows)), dim3(kThreads), 0, op);
}

}  // namespace

void wide_embed(const Stream& stream, const WideEmbed& op) {
  launch_rows(stream, op, embed_kernel<1>, embed_kernel<2>, embed_kernel<4>, embed_kernel<8>);
}

void wide_residual(const Stream& stream, const WideResidual& op) {
  launch_rows(stream, op, residual_kernel<1>, residual_kernel<2>, residual_kernel<4>,
              residual_kernel<8>);
}

void wide_heads(const Stream& stream, const Rows& rows, const WideHeads& op) {
  TANDEM_GPU_CHECK(op.head_dim >= 32 && op.head_dim <= 512 && op.head_dim % 32 == 0);
  TANDEM_GPU_CHECK(op.num_heads > 0 && op.num_kv_heads > 0 && rows.num_rows > 0);
  TANDEM_GPU_CHECK(!op.chunk.is_fp8);
  const bool two = op.head_dim > 256;
  launch(stream,
         op.kv.is_fp8 ? two ? heads_kernel<2, true> : heads_kernel<1, true>
         : two ? heads_kernel<2, false>
                      : heads_kernel<1, false>,
         dim3(static_cast<unsigned>(rows.num_rows)), dim3(kThreads), 0, op, rows);
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
  launch(stream, gather_kernel, dim3(element_blocks(hidden), static_cast<unsigned>(num_rows)),
         dim3(kThreads), 0, hidden_rows, sources, hidden, out, operand);
}

void rows_to_wide_operand(const Stream& stream, const uint16_t* rows, int num_rows, int in_features,
                          const WideOperand& operand) {
  TANDEM_GPU_CHECK(in_features % 32 == 0 && num_rows > 0 && num_rows <= operand.capacity);
  launch(stream, to_operand_kernel,
         dim3(element_blocks(in_features), static_cast<unsigned>(num_rows)), dim3(kThreads), 0,
         rows, in_features, operand);
}

}  // namespace tandem::ops::cuda
