#include "ops/cuda/row_product.h"

#include <algorithm>

#include "ops/cuda/few_rows.cuh"
#include "ops/cuda/gelu_join.cuh"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

// One more warp copies, unless all copies are under way at once: a block without it has its
// registers beside a block of attention.
constexpr int all_threads(bool copy_warp) {
  return kFewThreads + (copy_warp ? 32 : 0);
}
// Weights arrive in runs of 16 KB. Few of them on their way keep memory busy; more would queue up
// in front of what the kernels before read, and this one's norm.
constexpr int kRunBytes = 16 * 1024;
constexpr int kMaxRuns = 14;
struct Small {
  uint64_t full[kMaxRuns];
  uint64_t rows_full;
  float parts[2 * kFewWarps];
};
constexpr int kMostShared = 224 * 1024;  // or what the card has
static_assert(kFewRows <= 8);

enum class Source { kOperand, kNormed, kInput };
constexpr int runs_ahead(Source source) {
  return source == Source::kOperand ? 4 : 2;
}

struct Job {
  const uint8_t* weights;
  Partials plan;
  int num_rows;
  int row_blocks;    // of the rows in shared memory
  int share_blocks;  // of the largest share
  const uint8_t* operand;
  NormedRows normed;
  AssistantInput input;
  RowResults results;
  int intermediate;
};

template <bool kFp8>
using Tile = OneTile<kFp8 ? PackedType::kFp8 : PackedType::kBF16>;

// A share's part of one set.
struct Piece {
  int set;
  int begin, end;  // blocks within the set
  int place;       // of its first block in the share
};
struct Share {
  int begin, end, set_blocks;

  __device__ explicit Share(const Partials& plan)
      : begin(plan.share_begin(static_cast<int>(blockIdx.x))),
        end(plan.share_begin(static_cast<int>(blockIdx.x) + 1)),
        set_blocks(plan.set_blocks) {}
  __device__ Piece piece_of(int set) const {
    const int first = set * set_blocks;
    const int from = max(begin, first);
    return {set, from - first, min(end - first, set_blocks), from - begin};
  }
  __device__ int first_set() const { return begin / set_blocks; }
  __device__ int last_set() const { return (end - 1) / set_blocks; }
};

struct Places {
  uint32_t weights, rows, full, rows_full;
  uint8_t* rows_pointer;
  Small* small;
};
template <bool kFp8>
__device__ Places places_of(const Job& job, uint8_t* shared) {
  using Bytes = Tile<kFp8>;
  uint8_t* const rows = shared + job.share_blocks * Bytes::kBlockBytes;
  auto* const small = reinterpret_cast<Small*>(rows + job.row_blocks * Bytes::kRowBytes);
  return {ptx::shared_address(shared),
          ptx::shared_address(rows),
          ptx::shared_address(small->full),
          ptx::shared_address(&small->rows_full),
          rows,
          small};
}

// One thread.
template <bool kFp8, int kAhead>
__device__ void copy_weights(const Job& job, const Share& share, const Places& places) {
  using Bytes = Tile<kFp8>;
  constexpr int kRunBlocks = kRunBytes / Bytes::kBlockBytes;
  const uint64_t policy = ptx::evict_first_policy();
  const int count = share.end - share.begin;
  for (int run = 0; run * kRunBlocks < count; ++run) {
    const int first = run * kRunBlocks;
    const uint32_t bytes =
        static_cast<uint32_t>(min(kRunBlocks, count - first)) * Bytes::kBlockBytes;
    if (run >= kAhead) ptx::barrier_wait(places.full + (run - kAhead) * 8, 0);
    ptx::barrier_arrive_expect(places.full + run * 8, bytes);
    ptx::bulk_copy(places.weights + static_cast<uint32_t>(first * Bytes::kBlockBytes),
                   job.weights + static_cast<int64_t>(share.begin + first) * Bytes::kBlockBytes,
                   bytes, places.full + run * 8, policy);
  }
}
// One thread.
template <bool kFp8>
__device__ void copy_rows(const Job& job, const Share& share, const Places& places) {
  using Bytes = Tile<kFp8>;
  ptx::fence_async_global();
  ptx::barrier_arrive_expect(places.rows_full,
                             static_cast<uint32_t>(share.end - share.begin) * Bytes::kRowBytes);
  for (int set = share.first_set(); set <= share.last_set(); ++set) {
    const Piece piece = share.piece_of(set);
    ptx::bulk_copy(places.rows + static_cast<uint32_t>(piece.place * Bytes::kRowBytes),
                   job.operand + static_cast<int64_t>(piece.begin) * Bytes::kRowBytes,
                   static_cast<uint32_t>(piece.end - piece.begin) * Bytes::kRowBytes,
                   places.rows_full);
  }
}

// The inputs that the share needs of concat(embedding, state).
template <bool kFp8>
__device__ void make_inputs(const Job& job, const Share& share, const Places& places) {
  const AssistantInput& input = job.input;
  const Operand operand{places.rows_pointer, 1, input.operand.input_scale};
  const int fours = (share.end - share.begin) * 8;
  for (int i = static_cast<int>(threadIdx.x); i < fours * job.num_rows; i += kFewThreads) {
    const int row = i / fours;
    const int place = i % fours;
    const int column = (share.begin + place / 8) % share.set_blocks * 32 + place % 8 * 4;
    const Four x = load_input(input, row, column);
    store_operand(operand, row, place * 4, x.v[0], x.v[1]);
    store_operand(operand, row, place * 4 + 2, x.v[2], x.v[3]);
  }
}

// Joins gate and up: this warp's kGatedGroup features of a set.
__device__ void join(const Job& job, const float (&sums)[4], int set) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = set * (kSetColumns / 2) + static_cast<int>(threadIdx.x) / 32 * kGatedGroup;
  const uint32_t two = join_rows(sums, job.results.gate_scale, job.results.up_scale);
  if (first < job.intermediate && lane / 4 < job.num_rows)
    store_operand(job.results.joined, lane / 4, first + lane % 4 * 2, low_bf16(two),
                  high_bf16(two));
}

// sums += kCount blocks of weights (this lane's address) times the rows, with the bits of
// product(): as many as a stage has, or fewer, go to FP32 together.
template <bool kFp8, int kCount>
__device__ void multiply_blocks(float (&sums)[4], uint32_t weights, uint32_t rows) {
  using S = Tile<kFp8>;
  if constexpr (kCount <= S::kStageBlocks) {
    few::add_blocks<S, kCount>(sums, few::Blocks<S, kCount>(weights, rows));
  } else {
    static_assert(kCount == 2 * S::kStageBlocks);
    using Stage = few::Blocks<S, S::kStageBlocks>;
    const Stage first(weights, rows);
    few::add_two<S>(
        sums, first,
        Stage(weights + S::kStageBlocks * S::kBlockBytes, rows + S::kStageBlocks * S::kRowBytes));
  }
}

template <bool kFp8, bool kJoined, bool kRowsByInput>
__device__ void multiply_share(const Job& job, const Share& share, const Places& places) {
  using Bytes = Tile<kFp8>;
  constexpr int kTogether = Bytes::kStageBlocks;
  const uint32_t own = places.weights + few::lane_bytes<Bytes>();
  constexpr int kRunBlocks = kRunBytes / Bytes::kBlockBytes;
  int runs_there = 0;
  const auto await = [&](int place) {  // of the last block needed
    for (; runs_there * kRunBlocks <= place; ++runs_there)
      ptx::barrier_wait(places.full + runs_there * 8, 0);
  };
  for (int set = share.first_set(); set <= share.last_set(); ++set) {
    const Piece piece = share.piece_of(set);
    const uint32_t weights = own + (piece.place - piece.begin) * Bytes::kBlockBytes;
    const uint32_t rows =
        places.rows + (kRowsByInput ? 0 : (piece.place - piece.begin) * Bytes::kRowBytes);
    float sums[4] = {};
    int within = piece.begin;
    const auto add = [&](auto count) {
      await(piece.place + within + count - 1 - piece.begin);
      multiply_blocks<kFp8, count>(sums, weights + within * Bytes::kBlockBytes,
                                   rows + within * Bytes::kRowBytes);
      within += count;
    };
    while (within < piece.end) {
      const int left = piece.end - within;
      const int count = min(kTogether - within % kTogether, left);
      if (count < kTogether || left < 2 * kTogether) {
        few::with_count<kTogether>(count, add);
      } else if constexpr (kFp8) {
        const int pairs = left / (2 * kTogether);
        multiply_stages(sums, pairs, weights + within * Bytes::kBlockBytes,
                        rows + within * Bytes::kRowBytes,
                        [&](int block) { await(piece.place + within - piece.begin + block); });
        within += pairs * 2 * kTogether;
      } else {
        add(std::integral_constant<int, 2 * kTogether>());
      }
    }
    if constexpr (kJoined) {
      join(job, sums, set);
    } else {
      const int slot = static_cast<int>(blockIdx.x) - job.plan.share_of(set * share.set_blocks);
      const int64_t index = static_cast<int64_t>(set) * job.plan.max_pieces + slot;
      store_few(sums, job.results.partials + index * (8 * kSetColumns), job.num_rows);
    }
  }
}

template <bool kFp8, Source kSource, bool kJoined, bool kCopyWarp>
__global__ void __launch_bounds__(all_threads(kCopyWarp),
                                  kFp8&& kSource == Source::kNormed ? (kCopyWarp ? 3 : 4) : 2)
    row_product_kernel(const __grid_constant__ Job job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  const Places places = places_of<kFp8>(job, shared);
  const Share share(job.plan);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kMaxRuns; ++i) ptx::barrier_init(places.full + i * 8, 1);
    ptx::barrier_init(places.rows_full, 1);
    ptx::fence_barrier_init();
  }
  if constexpr (kSource != Source::kOperand)  // rows that are not there
    for (int i = static_cast<int>(threadIdx.x); i < job.row_blocks * Tile<kFp8>::kRowBytes / 16;
         i += all_threads(kCopyWarp))
      reinterpret_cast<uint4*>(places.rows_pointer)[i] = make_uint4(0, 0, 0, 0);
  __syncthreads();
  if (threadIdx.x == (kCopyWarp ? kFewThreads : 0))
    copy_weights<kFp8, runs_ahead(kSource)>(job, share, places);
  if (kCopyWarp && threadIdx.x >= kFewThreads) return;
  __syncwarp();
  NormConstants constants;
  if constexpr (kSource == Source::kNormed) constants = norm_constants(job.normed);
  wait_for_previous();
  if constexpr (kSource == Source::kOperand) {
    if (threadIdx.x == 0) copy_rows<kFp8>(job, share, places);
    ptx::barrier_wait(places.rows_full, 0);
  } else {
    if constexpr (kSource == Source::kNormed)
      make_normed_rows(job.normed, constants, job.num_rows, places.rows_pointer,
                       places.small->parts);
    else
      make_inputs<kFp8>(job, share, places);
    ptx::fence_async_shared();
    ptx::named_barrier(1, kFewThreads);
  }
  multiply_share<kFp8, kJoined, kSource == Source::kNormed>(job, share, places);
}

int max_shared() {
  return std::min(kMostShared, max_shared_bytes());
}
int share_blocks(const PackedLinear& weight) {
  return static_cast<int>((weight.total_blocks() + weight.num_shares - 1) / weight.num_shares);
}
int shared_bytes(const PackedLinear& weight, int row_blocks) {
  const int row_bytes = weight.type == PackedType::kFp8 ? 256 : 512;
  return share_blocks(weight) * static_cast<int>(weight.block_bytes()) + row_blocks * row_bytes +
         static_cast<int>(sizeof(Small));
}

template <bool kFp8, Source kSource, bool kJoined, bool kCopyWarp>
void launch_threads(const Stream& stream, const PackedLinear& weight, const Job& job) {
  const auto kernel = row_product_kernel<kFp8, kSource, kJoined, kCopyWarp>;
  static const bool configured = [&] {
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, max_shared()));
    return true;
  }();
  (void)configured;
  launch(stream, kernel, dim3(static_cast<unsigned>(weight.num_shares)),
         dim3(all_threads(kCopyWarp)), static_cast<size_t>(shared_bytes(weight, job.row_blocks)),
         job);
}

template <bool kFp8, Source kSource, bool kJoined>
void launch_kernel(const Stream& stream, const PackedLinear& weight, const Job& job) {
  if (job.share_blocks * weight.block_bytes() > runs_ahead(kSource) * kRunBytes)
    launch_threads<kFp8, kSource, kJoined, true>(stream, weight, job);
  else
    launch_threads<kFp8, kSource, kJoined, false>(stream, weight, job);
}

template <Source kSource>
void run(const Stream& stream, const PackedLinear& weight, int num_rows, const RowResults& results,
         Job& job) {
  TANDEM_GPU_CHECK(takes_row_product(weight) && num_rows > 0 && num_rows <= kFewRows);
  const bool joins = results.joined.data != nullptr;
  TANDEM_GPU_CHECK(joins == weight.gated && joins != (results.partials != nullptr));
  job.weights = weight.data.as<uint8_t>();
  job.plan = weight.partials(nullptr, 8);
  job.num_rows = num_rows;
  job.share_blocks = share_blocks(weight);
  job.row_blocks = kSource == Source::kNormed ? weight.set_blocks : job.share_blocks;
  job.results = results;
  job.intermediate = weight.out_features / 2;
  if (weight.type == PackedType::kFp8)
    (joins ? launch_kernel<true, kSource, true> : launch_kernel<true, kSource, false>)(stream,
                                                                                       weight, job);
  else
    (joins ? launch_kernel<false, kSource, true>
           : launch_kernel<false, kSource, false>)(stream, weight, job);
}

void check_scale(const PackedLinear& weight, float input_scale) {
  TANDEM_GPU_CHECK((weight.type == PackedType::kFp8) == (input_scale > 0.0F));
}

}  // namespace

bool takes_normed_rows(const Partials& sums, int hidden) {
  return hidden <= kMaxNormedHidden && sums.max_pieces <= Pieces4::kTogether;
}

bool takes_row_product(const PackedLinear& weight) {
  return shared_bytes(weight, std::max(share_blocks(weight), kMaxNormedHidden / 32)) <=
             max_shared() &&
         share_blocks(weight) * weight.block_bytes() <= kMaxRuns * kRunBytes &&
         (!weight.gated || weight.max_pieces == 1);
}

void row_product(const Stream& stream, const PackedLinear& weight, const void* operand,
                 int num_rows, const RowResults& results) {
  Job job{};
  job.operand = static_cast<const uint8_t*>(operand);
  run<Source::kOperand>(stream, weight, num_rows, results, job);
}

void row_product(const Stream& stream, const PackedLinear& weight, const NormedRows& rows,
                 int num_rows, const RowResults& results) {
  TANDEM_GPU_CHECK(takes_normed_rows(rows.sums, rows.hidden) && rows.hidden == weight.in_features);
  TANDEM_GPU_CHECK(num_rows <= rows.sums.num_rows && rows.weight != nullptr);
  TANDEM_GPU_CHECK(rows.x != rows.new_x || rows.x == nullptr);
  check_scale(weight, rows.input_scale);
  Job job{};
  job.normed = rows;
  run<Source::kNormed>(stream, weight, num_rows, results, job);
}

void row_product(const Stream& stream, const PackedLinear& weight, const AssistantInput& rows,
                 const RowResults& results) {
  TANDEM_GPU_CHECK(2 * rows.hidden == weight.in_features);
  check_scale(weight, rows.operand.input_scale);
  Job job{};
  job.input = rows;
  run<Source::kInput>(stream, weight, rows.num_rows, results, job);
}

}  // namespace tandem::ops::cuda
