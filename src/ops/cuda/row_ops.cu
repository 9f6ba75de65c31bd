#include "ops/cuda/row_ops.h"

#include "ops/cuda/cluster.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/ptx.cuh"
#include "ops/cuda/row_math.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kRowThreads = 256;
// Of more rows than this thread blocks have up to twice as many threads: starting them counts.
constexpr int kManyRows = 64;
constexpr int kMostRowThreads = 2 * kRowThreads;
// Thread blocks of more rows than this do not fit at once with the registers that they would like.
constexpr int kRowsWithRegisters = 128;
constexpr int kMaxRowWarps = kMaxHidden / 4 / 32;
static_assert(kMaxRowWarps == 64);                 // add_up() reads two for each lane
static_assert(kMaxHidden == 4 * 8 * kRowThreads);  // a cluster has at most 8 blocks
constexpr int kElementThreads = 256;

__device__ void store_four(const Operand& operand, int row, int column, const Four& x,
                           bool stores = true) {
  store_operand(operand, row, column, x.v[0], x.v[1], stores);
  store_operand(operand, row, column + 2, x.v[2], x.v[3], stores);
}

// Eight columns; every thread of a warp calls it.
__device__ void store_eight(const Operand& operand, int row, int column, const Eight& x,
                            bool active) {
  auto* const data = static_cast<uint8_t*>(operand.data);
  if (operand.input_scale > 0.0F) {
    const bool upper = column % 16 != 0;
    const uint2 words = e4m3_words(x, operand.divisor(), upper);
    if (active)
      *reinterpret_cast<uint2*>(data + operand_offset(operand, row, column / 16 * 16) +
                                (upper ? 8 : 0)) = words;
  } else if (active) {
    *reinterpret_cast<uint4*>(data + operand_offset(operand, row, column)) = pack(x);
  }
}

template <typename Loaded = Pieces4>
__device__ Four load_product(const Partials& sums, float scale, int row, int column, int pieces) {
  return scaled(sum_pieces4(load_pieces4<Loaded>(sums, row, column, pieces), pieces), scale);
}

// A row belongs to a cluster of blocks, four columns of it to a thread: one multiprocessor alone
// would need longer to fetch the row's partial sums than all the rest takes. Each warp's 128
// columns give one part of the row's sums, and parts are added by their columns: the order depends
// on `hidden` and piece_groups() alone.
struct RowShape {
  unsigned cluster;
  unsigned threads;
};
// A short row has sums of many pieces: kPieceGroups threads share those of four columns.
constexpr int kPieceGroups = 4;
constexpr int kMaxCluster = 8;
RowShape row_shape(int hidden, int groups, int num_rows) {
  const unsigned fours = static_cast<unsigned>(hidden) / 4;
  const unsigned most_fours = groups > 1             ? kRowThreads / static_cast<unsigned>(groups)
                              : num_rows > kManyRows ? kMostRowThreads
                                                     : kRowThreads;  // of a block
  unsigned cluster = 1;
  while (fours > cluster * most_fours) cluster *= 2;
  if (groups > 1) return {cluster, kRowThreads};
  return {cluster, ((fours + cluster - 1) / cluster + 31) / 32 * 32};
}

struct RowPlace {
  int row;
  int column;  // the first of four
  int cluster;
  int rank;   // in the cluster
  int group;  // of the threads that share these columns; all but 0 only help to load
};
template <int kGroups>
__device__ RowPlace row_place() {
  int cluster = 0;
  int rank = 0;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(cluster));
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const int threads = static_cast<int>(blockDim.x) / kGroups;
  const int thread = static_cast<int>(threadIdx.x);
  return {static_cast<int>(blockIdx.x) / cluster, (rank * threads + thread % threads) * 4, cluster,
          rank, thread / threads};
}

// load_product() of a row. With several groups each adds a run of the pieces in order, and group 0
// adds their sums in order; the other groups get zeros. Whole blocks.
template <int kGroups, typename Loaded = Pieces4>
__device__ Four load_row(const Partials& sums, float scale, const RowPlace& place, int pieces) {
  if constexpr (kGroups == 1) {
    return load_product<Loaded>(sums, scale, place.row, place.column, pieces);
  } else {
    __shared__ float4 parts[kGroups - 1][kRowThreads / kGroups];
    const int thread = static_cast<int>(threadIdx.x) % (kRowThreads / kGroups);
    const int first = pieces * place.group / kGroups;
    const int count = pieces * (place.group + 1) / kGroups - first;
    Partials run = sums;
    run.data += static_cast<int64_t>(first) * sums.num_rows * kSetColumns;
    float4 sum = {0.0F, 0.0F, 0.0F, 0.0F};
    sum = load_sum4(run, place.row, place.column, count);
    if (place.group > 0) parts[place.group - 1][thread] = sum;
    __syncthreads();
    if (place.group > 0) return {};
#pragma unroll
    for (int i = 0; i < kGroups - 1; ++i) {
      const float4 part = parts[i][thread];
      sum = {sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w};
    }
    return scaled(sum, scale);
  }
}

// Where the warps of a cluster leave their parts of one sum: each tells every block, and a block
// that has all of them goes on; no barrier of the cluster is in the way.
struct RowSum {
  float parts[kMaxRowWarps];
  uint64_t arrived;  // counts bytes
};

// Between this and the first add_up(): cluster_wait(), as all blocks must have come this far.
template <int kSums>
__device__ void prepare_sums(RowSum (&sums)[kSums], const RowPlace& place) {
  if (threadIdx.x == 0) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) {
      const uint32_t barrier = ptx::shared_address(&sums[i].arrived);
      ptx::barrier_init(barrier, 1);
      ptx::barrier_arrive_expect(barrier,
                                 static_cast<uint32_t>(place.cluster) * blockDim.x / 32 * 4);
    }
    ptx::fence_barrier_init_cluster();
  }
  __syncthreads();
  ptx::cluster_arrive();
}

// The sum over the cluster, the same bits in every thread.
__device__ float add_up(float value, const RowPlace& place, bool live, RowSum& sum) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int num_warps = static_cast<int>(blockDim.x) / 32;
  const int part = place.rank * num_warps + static_cast<int>(threadIdx.x) / 32;
  value = warp_sum(value);
  if (place.cluster == 1) {  // asynchronous stores are for clusters alone
    if (lane == 0) sum.parts[part] = value;
    __syncthreads();
  } else {
    const uint32_t arrived = ptx::shared_address(&sum.arrived);
    if (live && lane < place.cluster)
      ptx::store_peer_async(ptx::peer_address(ptx::shared_address(&sum.parts[part]), lane), value,
                            ptx::peer_address(arrived, lane));
    if (live) ptx::barrier_wait_cluster(arrived, 0);
  }
  const int total = place.cluster * num_warps;
  const float low = lane < total ? sum.parts[lane] : 0.0F;
  const float high = lane + 32 < total ? sum.parts[lane + 32] : 0.0F;
  return warp_sum(low + high);
}

__device__ float row_inverse_rms(const Four& x, const ColumnCount& columns, float eps,
                                 const RowPlace& place, bool live, RowSum& sum) {
  float squares = 0.0F;
#pragma unroll
  for (int j = 0; j < 4; ++j) squares += x.v[j] * x.v[j];
  return inverse_rms(add_up(squares, place, live, sum), columns, eps);
}

// Writes the residual and its norm. x is zero beyond the row.
__device__ void finish_row(const Four& x, const RowPlace& place, int hidden, uint16_t* residual,
                           const NextNorm& next, uint2 weight_bits, const ColumnCount& columns,
                           bool live, RowSum& sum) {
  const bool active = live && place.group == 0 && place.column < hidden;
  const int64_t start = static_cast<int64_t>(place.row) * hidden;
  if (active) store_bits(residual + start + place.column, x);
  const float inverse = row_inverse_rms(x, columns, next.eps, place, live, sum);
  const Four n = normalized(x, inverse, weight_bits);
  if (next.operand.data != nullptr) store_four(next.operand, place.row, place.column, n, active);
  if (active && next.normed != nullptr) store_bits(next.normed + start + place.column, n);
}

// What the kernels of a row do before they wait: norm weights are in registers, and divisions done,
// when the results of the kernel before come.
__device__ uint2 load_weight(const uint16_t* weight, const RowPlace& place, int hidden) {
  return place.column < hidden ? load_bits(weight + place.column) : make_uint2(0, 0);
}
__device__ int pieces_at(const Partials& sums, int column, int num_columns) {
  return column < num_columns ? sums.num_pieces(column / kSetColumns) : 0;
}

__global__ void __launch_bounds__(kMostRowThreads) embed_norm_kernel(const EmbedNorm op) {
  allow_next();
  __shared__ RowSum sums[1];
  const RowPlace place = row_place<1>();
  prepare_sums(sums, place);
  const ColumnCount columns(op.hidden);
  const uint2 weight = load_weight(op.next.weight, place, op.hidden);
  ptx::cluster_wait();
  wait_for_previous();
  Four x;
  if (place.column < op.hidden) x = load_embedding(op.table, op.tokens[place.row], place.column);
  finish_row(x, place, op.hidden, op.x, op.next, weight, columns, true, sums[0]);
}

template <int kGroups>
__global__ void __launch_bounds__(kGroups > 1 ? kRowThreads : kMostRowThreads)
    start_layer_kernel(const StartLayer op) {
  allow_next();
  __shared__ RowSum sums[1];
  const RowPlace place = row_place<kGroups>();
  prepare_sums(sums, place);
  const ColumnCount columns(op.hidden);
  const uint2 weight = load_weight(op.next.weight, place, op.hidden);
  const int pieces = pieces_at(op.sums, place.column, op.hidden);
  ptx::cluster_wait();
  wait_for_previous();
  const Four x = load_row<kGroups>(op.sums, op.scale, place, pieces);
  finish_row(x, place, op.hidden, op.x, op.next, weight, columns, true, sums[0]);
}

template <int kGroups, typename Loaded>
__device__ void residual_norm_row(const ResidualNorm& op, bool rehearses) {
  __shared__ RowSum sums[2];
  const RowPlace place = row_place<kGroups>();
  prepare_sums(sums, place);
  const ColumnCount columns(op.hidden);
  const uint2 post_weight = load_weight(op.post_weight, place, op.hidden);
  const uint2 weight = load_weight(op.next.weight, place, op.hidden);
  const int pieces = pieces_at(op.sums, place.column, op.hidden);
  ptx::cluster_wait();
#pragma unroll 1
  for (int turn = first_turn(rehearses); turn < 2; ++turn) {
    const bool live = turn == 1;
    if (live) wait_for_previous();
    Four old;
    if (live && place.group == 0 && place.column < op.hidden)
      old = unpack(load_bits(op.x + static_cast<int64_t>(place.row) * op.hidden + place.column));
    const Four y = load_row<kGroups, Loaded>(op.sums, op.scale, place, live ? pieces : 0);
    const float inverse = row_inverse_rms(y, columns, op.eps, place, live, sums[0]);
    const Four norm = normalized(y, inverse, post_weight);
    const Four x = joined(old, norm, op.layer_scalar);
    finish_row(x, place, op.hidden, op.x, op.next, weight, columns, live, sums[1]);
    if (kGroups > 1 || place.cluster == 1) __syncthreads();
  }
}

template <int kGroups>
__global__ void __launch_bounds__(kGroups > 1 ? kRowThreads : kMostRowThreads)
    residual_norm_kernel(const ResidualNorm op) {
  allow_next();
  // More threads than this find no room before the product in front of them is over.
  residual_norm_row<kGroups, Pieces4>(op, gridDim.x * blockDim.x <= 132 * kRowThreads);
}

// The same for so many rows that they fit at once only if each thread has few registers.
__global__ void __launch_bounds__(kMostRowThreads, 3)
    residual_norm_many_kernel(const ResidualNorm op) {
  allow_next();
  residual_norm_row<1, PiecesOf<4>>(op, false);
}

// The same of many rows, where every instruction counts: a row has one thread block, eight columns
// a thread. Squares are added as above, where a lane has four columns and a warp one part: two
// parts lie in a warp here.
constexpr int kRowBlockThreads = 512;

// Over the block, the same bits in every thread. Each call needs parts of its own.
__device__ float eight_inverse_rms(const Eight& x, const ColumnCount& columns, float eps,
                                   float (&parts)[kMaxRowWarps]) {
  float squares[2] = {};
#pragma unroll
  for (int four = 0; four < 2; ++four) {
#pragma unroll
    for (int j = 4 * four; j < 4 * four + 4; ++j) squares[four] += x.v[j] * x.v[j];
#pragma unroll
    for (int mask = 8; mask > 0; mask /= 2)
      squares[four] += __shfl_xor_sync(0xffffffffU, squares[four], mask);
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane % 16 == 0) parts[threadIdx.x / 16] = squares[0] + squares[1];
  __syncthreads();
  const int total = static_cast<int>(blockDim.x) / 16;
  return inverse_rms(warp_sum(lane < total ? parts[lane] : 0.0F), columns, eps);
}

__global__ void __launch_bounds__(kRowBlockThreads, 2)
    residual_norm_row_kernel(const ResidualNorm op) {
  __shared__ float branch_parts[kMaxRowWarps];
  __shared__ float parts[kMaxRowWarps];
  allow_next();
  const int row = static_cast<int>(blockIdx.x);
  const int column = static_cast<int>(threadIdx.x) * 8;
  const bool active = column < op.hidden;
  const ColumnCount columns(op.hidden);
  const auto load = [&](const uint16_t* source) {
    return active ? *reinterpret_cast<const uint4*>(source + column) : uint4{};
  };
  const uint4 post_weight = load(op.post_weight);
  const uint4 weight = load(op.next.weight);
  const int pieces = pieces_at(op.sums, column, op.hidden);
  wait_for_previous();
  uint16_t* const residual = op.x + static_cast<int64_t>(row) * op.hidden;
  EightSums<1, 4> sums(op.sums, row, active ? column : 0, 0, {pieces});
  const uint4 old = load(residual);
  sums.add_up();
  Eight x = sums.scaled_run(0, op.scale);
  const float inverse = eight_inverse_rms(x, columns, op.eps, branch_parts);
  x = unpack(added(old, pack(normalized(x, inverse, post_weight))));
  if (op.layer_scalar != 1.0F)
#pragma unroll
    for (float& value : x.v) value = round_bf16(value * op.layer_scalar);
  if (active) *reinterpret_cast<uint4*>(residual + column) = pack(x);
  const Eight n = normalized(x, eight_inverse_rms(x, columns, op.next.eps, parts), weight);
  if (op.next.operand.data != nullptr) store_eight(op.next.operand, row, column, n, active);
  if (active && op.next.normed != nullptr)
    *reinterpret_cast<uint4*>(op.next.normed + static_cast<int64_t>(row) * op.hidden + column) =
        pack(n);
}

// A block has a tile of eight rows and 128 columns: it writes whole runs of the operand.
__global__ void __launch_bounds__(kElementThreads) gelu_operand_kernel(const GeluOperand op) {
  allow_next();
  const int row = static_cast<int>(blockIdx.y * 8 + threadIdx.x / 32);
  const int column = static_cast<int>(blockIdx.x * kSetColumns + threadIdx.x % 32 * 4);
  const bool active = row < op.num_rows && column < op.intermediate;
  const int gate_column = gated_feature(column, false);
  const int pieces = active ? op.sums.num_pieces(gate_column / kSetColumns) : 0;
  wait_for_previous();
  if (!active) return;
  const Four gate = load_product(op.sums, op.gate_scale, row, gate_column, pieces);
  const Four up = load_product(op.sums, op.up_scale, row, gated_feature(column, true), pieces);
  Four out;
#pragma unroll
  for (int j = 0; j < 4; ++j) out.v[j] = round_bf16(round_bf16(gelu_tanh(gate.v[j])) * up.v[j]);
  store_four(op.operand, row, column, out);
}

__global__ void __launch_bounds__(kElementThreads) assistant_input_kernel(const AssistantInput op) {
  allow_next();
  const int row = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x * kElementThreads + threadIdx.x) * 4;
  wait_for_previous();
  if (column >= 2 * op.hidden) return;
  const Four x = load_input(op, row, column);
  store_four(op.operand, row, column, x);
}

__global__ void __launch_bounds__(kElementThreads) store_state_kernel(const StoreState op) {
  allow_next();
  const int row = static_cast<int>(blockIdx.y);
  const int column = static_cast<int>(blockIdx.x * kElementThreads + threadIdx.x) * 4;
  const int pieces = pieces_at(op.sums, column, op.hidden);
  wait_for_previous();
  if (column >= op.hidden) return;
  store_bits(op.states + static_cast<int64_t>(row) * op.hidden + column,
             load_product(op.sums, op.scale, row, column, pieces));
}

void check_rows(int num_rows, int hidden) {
  TANDEM_GPU_CHECK(num_rows > 0);
  TANDEM_GPU_CHECK(hidden > 0 && hidden % 32 == 0 && hidden <= kMaxHidden);
}

void check_operand(const Operand& operand, int num_rows) {
  TANDEM_GPU_CHECK(operand.data == nullptr || num_rows <= 8 * operand.num_tiles);
}

void check_next(const NextNorm& next, int num_rows) {
  TANDEM_GPU_CHECK(next.weight != nullptr);
  check_operand(next.operand, num_rows);
}

template <typename Op>
void launch_rows(const Stream& stream, const Op& op, int groups, void (*kernel)(Op)) {
  const RowShape shape = row_shape(op.hidden, groups, op.num_rows);
  launch_clusters(stream, shape.cluster, kernel,
                  dim3(shape.cluster * static_cast<unsigned>(op.num_rows)), dim3(shape.threads), 0,
                  op);
}

unsigned element_blocks(int columns) {
  return static_cast<unsigned>((columns / 4 + kElementThreads - 1) / kElementThreads);
}

}  // namespace

int piece_groups(const Partials& sums, int hidden) {
  const bool shared = sums.max_pieces > Pieces4::kTogether &&
                      hidden <= 4 * (kRowThreads / kPieceGroups) * kMaxCluster;
  return shared ? kPieceGroups : 1;
}

void embed_norm(const Stream& stream, const EmbedNorm& op) {
  check_rows(op.num_rows, op.hidden);
  check_next(op.next, op.num_rows);
  launch_rows(stream, op, 1, embed_norm_kernel);
}

void start_layer(const Stream& stream, const StartLayer& op) {
  check_rows(op.num_rows, op.hidden);
  check_next(op.next, op.num_rows);
  TANDEM_GPU_CHECK(op.num_rows <= op.sums.num_rows);
  const int groups = piece_groups(op.sums, op.hidden);
  launch_rows(stream, op, groups,
              groups > 1 ? start_layer_kernel<kPieceGroups> : start_layer_kernel<1>);
}

void residual_norm(const Stream& stream, const ResidualNorm& op) {
  check_rows(op.num_rows, op.hidden);
  check_next(op.next, op.num_rows);
  TANDEM_GPU_CHECK(op.num_rows <= op.sums.num_rows);
  const int groups = piece_groups(op.sums, op.hidden);
  if (groups == 1 && op.num_rows > kManyRows && op.hidden <= 8 * kRowBlockThreads) {
    launch(stream, residual_norm_row_kernel, dim3(static_cast<unsigned>(op.num_rows)),
           dim3(static_cast<unsigned>((op.hidden / 8 + 31) / 32 * 32)), 0, op);
    return;
  }
  launch_rows(stream, op, groups,
              groups > 1                         ? residual_norm_kernel<kPieceGroups>
              : op.num_rows > kRowsWithRegisters ? residual_norm_many_kernel
                                                 : residual_norm_kernel<1>);
}

void gelu_operand(const Stream& stream, const GeluOperand& op) {
  TANDEM_GPU_CHECK(op.num_rows > 0 && op.num_rows <= op.sums.num_rows);
  TANDEM_GPU_CHECK(op.intermediate > 0 && op.intermediate % 32 == 0);
  check_operand(op.operand, op.num_rows);
  const auto sets = static_cast<unsigned>((op.intermediate + kSetColumns - 1) / kSetColumns);
  launch(stream, gelu_operand_kernel, dim3(sets, static_cast<unsigned>((op.num_rows + 7) / 8)),
         dim3(kElementThreads), 0, op);
}

void assistant_input(const Stream& stream, const AssistantInput& op) {
  check_rows(op.num_rows, op.hidden);
  check_operand(op.operand, op.num_rows);
  TANDEM_GPU_CHECK(op.states != nullptr || op.num_rows <= op.state_sums.num_rows);
  launch(stream, assistant_input_kernel,
         dim3(element_blocks(2 * op.hidden), static_cast<unsigned>(op.num_rows)),
         dim3(kElementThreads), 0, op);
}

void store_state(const Stream& stream, const StoreState& op) {
  check_rows(op.num_rows, op.hidden);
  TANDEM_GPU_CHECK(op.num_rows <= op.sums.num_rows);
  launch(stream, store_state_kernel,
         dim3(element_blocks(op.hidden), static_cast<unsigned>(op.num_rows)), dim3(kElementThreads),
         0, op);
}

}  // namespace tandem::ops::cuda
