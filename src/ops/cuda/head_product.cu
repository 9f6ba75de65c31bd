#include "ops/cuda/head_product.h"

#include <algorithm>

#include "ops/cuda/few_rows.cuh"
#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/head_screen.cuh"
#include "ops/cuda/head_tokens.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_shape.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kThreads = kFewThreads + 64;  // one more warp copies, one tells the next block
constexpr int kStageBytes = 16 * 1024;
constexpr int kMaxStages = 13;
constexpr int kMostShared = 226 * 1024;  // or what the card has

struct Small {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  uint64_t rows_full;
  uint64_t part_left;  // in memory, by every warp that multiplies
  float parts[2 * kFewWarps];
  Key keys[kFewWarps][8];
  int32_t suppressed[kMaxHeadSuppressed];
  float lengths[8];  // of a screen's rows
};
constexpr int kSmallBytes = (sizeof(Small) + 127) / 128 * 128;

struct Factor {
  const uint8_t* weights;
  Partials plan;
};

struct Job {
  Factor side;  // no weights: none
  Factor head;
  float* side_partials;
  const uint8_t* operand;
  NormedRows normed;
  int num_stages;
  HeadLogits logits;
  ArgmaxScratch scratch;
  int32_t* tokens;
  DraftToken draft;
  uint32_t* flags;   // [shares] 1: the share's part is there
  float4* exchange;  // [shares][kFewThreads]
  ScreenPlaces screen;
};

// The side product has the head's rows.
constexpr PackedType side_type_of(PackedType head) {
  return head == PackedType::kFp8 ? head : PackedType::kBF16;
}
template <PackedType kHead>
constexpr PackedType kSideType = side_type_of(kHead);
// Whether what comes of the head is not tokens, but what is left of a screen.
template <PackedType kHead>
constexpr bool kScreens = kHead == PackedType::kIntegers;
constexpr int kLengthsBarrier = 2;

// Sets come from the last to the first: what a share has of the set that the next one continues is
// left in memory first, and needed there last.
using few::Piece;

// The pieces of this thread block's share of a factor.
template <typename Visit>
__device__ inline void for_pieces(const Factor& factor, const Visit& visit) {
  const int share = static_cast<int>(blockIdx.x);
  if (factor.weights == nullptr || share >= factor.plan.num_shares) return;
  const int begin = factor.plan.share_begin(share);
  for (Piece piece(begin, factor.plan.share_begin(share + 1), factor.plan.set_blocks);
       piece.exists(); piece = piece.before(begin, factor.plan.set_blocks))
    visit(piece);
}

struct Ring {
  uint32_t weights, full, empty;
  int num_stages;
  int stage = 0;
  uint32_t parity = 0;

  __device__ uint32_t at() const { return weights + stage * kStageBytes; }
  __device__ uint32_t full_at() const { return full + stage * 8; }
  __device__ uint32_t empty_at() const { return empty + stage * 8; }
  __device__ void advance() {
    if (++stage < num_stages) return;
    stage = 0;
    parity ^= 1;
  }
};

// The thread that copies: the weights of the pieces, a stage at a time.
struct Copies {
  uint32_t rows_full;
  Ring ring;
  uint64_t policy = ptx::evict_first_policy();
  int copied = 0;

  template <PackedType kType>
  __device__ void copy(const Factor& factor) {
    using S = OneTile<kType>;
    for_pieces(factor, [&](const Piece& piece) {
      for (int within = piece.begin; within < piece.end;) {
        const int count = min(S::kStageBlocks - within % S::kStageBlocks, piece.end - within);
        ptx::barrier_wait(ring.empty_at(), ring.parity ^ 1);
        if (copied >= few::kHeldBack && copied < ring.num_stages &&
            !ptx::barrier_passed(rows_full, 0))
          ptx::barrier_wait(ring.full + (copied - few::kHeldBack) * 8, 0);
        ++copied;
        ptx::barrier_arrive_expect(ring.full_at(), count * S::kBlockBytes);
        const int64_t block = static_cast<int64_t>(piece.set) * factor.plan.set_blocks + within;
        ptx::bulk_copy(ring.at(), factor.weights + block * S::kBlockBytes, count * S::kBlockBytes,
                       ring.full_at(), policy);
        ring.advance();
        within += count;
      }
    });
  }
};

// The first candidates a thread has met of two rows, and whether all it met was finite. Ids fall:
// among equals the newest comes first.
class Candidates {
 public:
  // x: an uncapped logit. `counts`: it exists and is not suppressed.
  __device__ void meet(const HeadLogits& head, int which, float x, int id, bool counts) {
    if (head.cap > 0.0F) return meet_capped(head, which, x, id, counts);
    const bool first = counts && x >= largest_[which] && x > -kInfinity;
    largest_[which] = first ? x : largest_[which];
    first_[which] = first ? id : first_[which];
  }
  __device__ void note_finite(const HeadLogits& head, int which, float x, bool inside) {
    finite_[which] = finite_[which] && (!inside || is_finite(head, x));
  }
  __device__ Key best(const HeadLogits& head, int which) const {
    if (!finite_[which]) return kNotFiniteKey;
    if (head.cap > 0.0F) return capped_[which];
    return first_[which] < 0 ? kNoKey : make_key(largest_[which], first_[which]);
  }

 private:
  __device__ void meet_capped(const HeadLogits& head, int which, float x, int id, bool counts) {
    if (!counts || !(x >= floor_of(head.cap, largest_[which]))) return;
    largest_[which] = fmaxf(largest_[which], x);
    const Key key = make_key(capped_rarely(head.cap, x), id);
    if (key > capped_[which]) capped_[which] = key;
  }

  float largest_[2] = {-kInfinity, -kInfinity};
  int first_[2] = {-1, -1};           // without a cap: whose logit it is
  Key capped_[2] = {kNoKey, kNoKey};  // with one
  bool finite_[2] = {true, true};
};

// A set is complete.
template <bool kScreening>
__device__ inline void take_set(const Job& job, const Small& small, const SuppressedIds& suppressed,
                                int first_id, const float (&sums)[4], const float2& scales,
                                Candidates& candidates) {
  const HeadLogits& head = job.logits;
  const int row = static_cast<int>(threadIdx.x) % 4 * 2;
  bool hidden[2];  // ids first_id, first_id + 8
  suppressed.hide(head, small.suppressed, first_id, hidden);
#pragma unroll
  for (int upper = 1; upper >= 0; --upper) {
    const int id = first_id + upper * 8;
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const bool inside = id < head.vocab_size && row + which < head.num_rows;
      const float x = sums[upper * 2 + which] * (upper == 0 ? scales.x : scales.y);
      if constexpr (kScreening) {
        if (row + which < head.num_rows)
          __stcg(job.screen.logits + static_cast<int64_t>(row + which) * job.screen.columns + id,
                 x);
      } else {
        candidates.note_finite(head, which, x, inside);
      }
      candidates.meet(head, which, x, id, inside && !hidden[upper]);
    }
  }
}

// The first candidate of the thread block for row threadIdx.x.
__device__ Key first_of_block(const Job& job, Small& small, const Candidates& candidates) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int which = 0; which < 2; ++which) {
    Key key = candidates.best(job.logits, which);
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2) {
      const Key other = __shfl_xor_sync(kWholeWarp, key, mask);
      key = other > key ? other : key;
    }
    if (lane < 4) small.keys[warp][lane * 2 + which] = key;
  }
  ptx::named_barrier(1, kFewThreads);
  Key key = kNoKey;
  const int row = static_cast<int>(threadIdx.x);
  if (row >= job.logits.num_rows) return key;
#pragma unroll
  for (int i = 0; i < kFewWarps; ++i) key = small.keys[i][row] > key ? small.keys[i][row] : key;
  return key;
}

// The rows' first candidates of this thread block meet those of the others.
template <bool kScreening>
__device__ void tell(const Job& job, Small& small, const Candidates& candidates) {
  if constexpr (kScreening) ptx::named_barrier(kLengthsBarrier, kFewThreads + 32);
  const Key key = first_of_block(job, small, candidates);
  const int row = static_cast<int>(threadIdx.x);
  if (row >= job.logits.num_rows) return;
  if constexpr (kScreening) {
    if (key == kNoKey) return;
    const float error = job.screen.errors[key_id(key)] * small.lengths[row];
    atomicMax(job.screen.lower + row, ordered(key_logit(key) - error));
  } else {
    tell_candidate(job.scratch, row, gridDim.x, key, job.tokens, job.draft);
  }
}

// A warp: how long the screen's rows are, for the warps that multiply and, by the first thread
// block, for the second kernel; rows that were made here too.
__device__ void measure_rows(const Job& job, Small& small, const uint8_t* rows, bool made_here) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto* const chunks = reinterpret_cast<const uint4*>(rows);  // of 8 inputs, row lane % 8
  const int num_chunks = job.head.plan.set_blocks * 32;
  float squares = 0.0F;
#pragma unroll 4
  for (int i = lane; i < num_chunks; i += 32) {
    const uint4 chunk = chunks[i];
    squares += sum_of_squares(chunk);
    if (made_here && blockIdx.x == 0)
      __stcg(reinterpret_cast<uint4*>(job.screen.operand) + i, chunk);
  }
  squares += __shfl_xor_sync(kWholeWarp, squares, 8);
  squares += __shfl_xor_sync(kWholeWarp, squares, 16);
  if (lane < 8) {
    small.lengths[lane] = row_length(squares);
    if (blockIdx.x == 0) job.screen.lengths[lane] = small.lengths[lane];
  }
  __syncwarp();
  ptx::named_arrive(kLengthsBarrier, kFewThreads + 32);
}

// This share's part of a set that the next one continues. Who releases it to another thread block
// waits for it behind all weights on their way, so a warp of its own does.
__device__ inline void leave_part(const Job& job, Small& small, const float (&sums)[4]) {
  __stcg(job.exchange + static_cast<int64_t>(blockIdx.x) * kFewThreads + threadIdx.x,
         make_float4(sums[0], sums[1], sums[2], sums[3]));
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::barrier_arrive(ptx::shared_address(&small.part_left));
}
__device__ inline bool leaves_part(const Factor& head) {
  return head.plan.share_begin(static_cast<int>(blockIdx.x) + 1) % head.plan.set_blocks != 0;
}
__device__ inline void release_part(const Job& job, Small& small) {
  ptx::barrier_wait(ptx::shared_address(&small.part_left), 0);
  ptx::add_release(job.flags + blockIdx.x, 1);
}
// What the share before this one has of the set.
__device__ inline float4 fetch_part(const Job& job) {
  const int share = static_cast<int>(blockIdx.x) - 1;
  uint32_t* const flag = job.flags + share;
  if (threadIdx.x % 32 == 0)
    while (ptx::load_acquire(flag) == 0) __nanosleep(20);
  __syncwarp();
  const float4 part =
      __ldcg(job.exchange + static_cast<int64_t>(share) * kFewThreads + threadIdx.x);
  ptx::named_barrier(1, kFewThreads);
  if (threadIdx.x == 0) *flag = 0;
  return part;
}

// The stages of a piece, in order. A stage's place is free as soon as its bytes are in registers.
template <PackedType kType>
struct Multiplier {
  using S = OneTile<kType>;
  static constexpr int kStage = S::kStageBlocks;
  using Stage = few::Blocks<S, kStage>;
  Ring& ring;
  uint32_t rows;
  uint32_t own = few::lane_bytes<S>();

  __device__ uint32_t rows_at(int within) const { return rows + within * S::kRowBytes; }
  __device__ void give_back() {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(ring.empty_at());
    ring.advance();
  }
  // `kCount` blocks, from block `within` of the set on.
  template <int kCount>
  __device__ few::Blocks<S, kCount> take(int within) {
    ptx::barrier_wait(ring.full_at(), ring.parity);
    const few::Blocks<S, kCount> blocks(ring.at() + own, rows_at(within));
    give_back();
    return blocks;
  }
  // Products that run while the next stage is taken. `before`: the stage whose products are then
  // done.
  __device__ void start(float (&sums)[4], const Stage& stage, Stage& before) {
    ptx::warpgroup_fence();
#pragma unroll
    for (int i = 0; i < kStage * Stage::kHalves; ++i) stage.multiply_bf16(sums, i);
    ptx::warpgroup_commit();
    ptx::warpgroup_wait<1>();
    ptx::pin(before.a);
  }
  // Pairs of stages while there are any. Gives the block behind them.
  __device__ int add_pairs(float (&sums)[4], int within, int end) {
    if (end - within < 2 * kStage) return within;
    Stage even;
    Stage odd;
    ptx::pin(sums);
#pragma unroll 1
    for (; end - within >= 2 * kStage; within += 2 * kStage) {
      even = take<kStage>(within);
      start(sums, even, odd);
      odd = take<kStage>(within + kStage);
      start(sums, odd, even);
    }
    ptx::warpgroup_wait<0>();
    ptx::pin(odd.a);
    ptx::pin(sums);
    return within;
  }
  __device__ void add(float (&sums)[4], const Piece& piece) {
    for (int within = piece.begin; within < piece.end;) {
      if constexpr (!S::kFp8)
        if (within % kStage == 0) within = add_pairs(sums, within, piece.end);
      if (within == piece.end) return;
      const int count = min(kStage - within % kStage, piece.end - within);
      few::with_count<kStage>(
          count, [&](auto blocks) { few::add_blocks<S, blocks>(sums, take<blocks>(within)); });
      within += count;
    }
  }
};

template <PackedType kHead>
__device__ void compute(const Job& job, Small& small, Ring ring, uint32_t rows) {
  for_pieces(job.side, [&](const Piece& piece) {
    float sums[4] = {};
    Multiplier<kSideType<kHead>>{ring, rows}.add(sums, piece);
    const Partials& plan = job.side.plan;
    const int slot = static_cast<int>(blockIdx.x) - plan.share_of(piece.set * plan.set_blocks);
    const int64_t index = static_cast<int64_t>(piece.set) * plan.max_pieces + slot;
    store_few(sums, job.side_partials + index * (8 * kSetColumns), job.logits.num_rows);
  });
  const SuppressedIds suppressed(job.logits, small.suppressed);
  Candidates candidates;
  for_pieces(job.head, [&](const Piece& piece) {
    float4 before = {0.0F, 0.0F, 0.0F, 0.0F};
    const bool continues = piece.begin > 0;
    if (continues && piece.end == job.head.plan.set_blocks) before = fetch_part(job);
    const int first_id = first_id_of(piece.set);
    const float2 scales = two_scales(job.logits, first_id);
    float sums[4] = {};
    Multiplier<kHead>{ring, rows}.add(sums, piece);
    if (piece.end < job.head.plan.set_blocks) return leave_part(job, small, sums);
    if (continues) {
      sums[0] = before.x + sums[0];
      sums[1] = before.y + sums[1];
      sums[2] = before.z + sums[2];
      sums[3] = before.w + sums[3];
    }
    take_set<kScreens<kHead>>(job, small, suppressed, first_id, sums, scales, candidates);
  });
  tell<kScreens<kHead>>(job, small, candidates);
}

template <PackedType kHead, bool kNormed>
__global__ void __launch_bounds__(kThreads, 1)
    head_product_kernel(const __grid_constant__ Job job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  Small& small = *reinterpret_cast<Small*>(shared);
  const int row_bytes = job.head.plan.set_blocks * OneTile<kHead>::kRowBytes;
  uint8_t* const rows = shared + kSmallBytes;
  const Ring ring{ptx::shared_address(rows + row_bytes), ptx::shared_address(small.full),
                  ptx::shared_address(small.empty), job.num_stages};
  const uint32_t rows_full = ptx::shared_address(&small.rows_full);
  if (threadIdx.x == 0) {
    for (int i = 0; i < job.num_stages; ++i) {
      ptx::barrier_init(ring.full + i * 8, 1);
      ptx::barrier_init(ring.empty + i * 8, kFewWarps);
    }
    ptx::barrier_init(rows_full, 1);
    ptx::barrier_init(ptx::shared_address(&small.part_left), kFewWarps);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  if (threadIdx.x >= kFewThreads) {
    if constexpr (kScreens<kHead>) {
      if (threadIdx.x >= kFewThreads + 32) {
        ptx::barrier_wait(rows_full, 0);
        measure_rows(job, small, rows, kNormed);
      }
    }
    if (threadIdx.x == kFewThreads + 32 && leaves_part(job.head)) release_part(job, small);
    if (threadIdx.x != kFewThreads) return;
    Copies copies{rows_full, ring};
    copies.copy<kSideType<kHead>>(job.side);
    copies.copy<kHead>(job.head);
    return;
  }
  if (static_cast<int>(threadIdx.x) < job.logits.num_suppressed)
    small.suppressed[threadIdx.x] = job.logits.suppressed[threadIdx.x];
  if constexpr (kNormed) {
    const NormConstants constants = norm_constants(job.normed);
    for (int i = static_cast<int>(threadIdx.x); i < row_bytes / 16; i += kFewThreads)
      reinterpret_cast<uint4*>(rows)[i] = make_uint4(0, 0, 0, 0);
    ptx::named_barrier(1, kFewThreads);
    wait_for_previous();
    make_normed_rows(job.normed, constants, job.logits.num_rows, rows, small.parts);
    ptx::fence_async_shared();
    ptx::named_barrier(1, kFewThreads);
    if (threadIdx.x == 0) ptx::barrier_arrive(rows_full);
  } else {
    ptx::named_barrier(1, kFewThreads);
    wait_for_previous();
    if (threadIdx.x == 0) {
      ptx::fence_async_global();
      ptx::barrier_arrive_expect(rows_full, static_cast<uint32_t>(row_bytes));
      ptx::bulk_copy(ptx::shared_address(rows), job.operand, static_cast<uint32_t>(row_bytes),
                     rows_full);
    }
    ptx::barrier_wait(rows_full, 0);
  }
  compute<kHead>(job, small, ring, ptx::shared_address(rows));
}

int row_bytes(const PackedLinear& head) {
  return head.in_features * 8 * head.row_value_bytes();
}
int max_shared() {
  return std::min(kMostShared, max_shared_bytes());
}
int num_stages(const PackedLinear& head) {
  return std::min(kMaxStages, (max_shared() - kSmallBytes - row_bytes(head)) / kStageBytes);
}

template <PackedType kHead, bool kNormed>
void launch_kernel(const Stream& stream, const PackedLinear& head, const Job& job) {
  const auto kernel = head_product_kernel<kHead, kNormed>;
  static const bool configured = [&] {
    TANDEM_CUDA_CHECK(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, max_shared()));
    return true;
  }();
  (void)configured;
  launch(stream, kernel, dim3(static_cast<unsigned>(head.num_shares)), dim3(kThreads),
         static_cast<size_t>(kSmallBytes + row_bytes(head) + job.num_stages * kStageBytes), job);
}

template <bool kNormed>
void launch_for_type(const Stream& stream, const PackedLinear& head, const Job& job) {
  switch (head.type) {
    case PackedType::kFp8:
      return launch_kernel<PackedType::kFp8, kNormed>(stream, head, job);
    case PackedType::kBF16:
      return launch_kernel<PackedType::kBF16, kNormed>(stream, head, job);
    case PackedType::kFp8Weights:
      return launch_kernel<PackedType::kFp8Weights, kNormed>(stream, head, job);
    case PackedType::kIntegers:
      return launch_kernel<PackedType::kIntegers, kNormed>(stream, head, job);
  }
}

Job job_of(const PackedLinear& head, const SideProduct& side, const HeadArgmax& argmax) {
  TANDEM_GPU_CHECK(takes_head_product(head, side, argmax.logits));
  TANDEM_GPU_CHECK(argmax.logits.num_rows > 0 && argmax.exchange != nullptr);
  TANDEM_GPU_CHECK(argmax.logits.vocab_size <= head.out_features);
  Job job{};
  job.head = {head.data.as<uint8_t>(), head.partials(nullptr, 8)};
  if (side.weight != nullptr) {
    job.side = {side.weight->data.as<uint8_t>(), side.weight->partials(nullptr, 8)};
    job.side_partials = side.partials;
  }
  job.num_stages = num_stages(head);
  job.logits = argmax.logits;
  job.scratch = argmax_scratch(argmax.scratch, argmax.logits.num_rows);
  job.tokens = argmax.tokens;
  job.draft = argmax.draft;
  job.flags = static_cast<uint32_t*>(argmax.exchange);
  job.exchange =
      reinterpret_cast<float4*>(static_cast<uint8_t*>(argmax.exchange) + few::kFlagBytes);
  return job;
}

void check_rows(const NormedRows& rows, const PackedLinear& head, const HeadArgmax& argmax) {
  TANDEM_GPU_CHECK(takes_normed_rows(rows.sums, rows.hidden) && rows.hidden == head.in_features);
  TANDEM_GPU_CHECK(argmax.logits.num_rows <= kFewRows && rows.new_x == nullptr);
  TANDEM_GPU_CHECK((head.type == PackedType::kFp8) == (rows.input_scale > 0.0F));
}

// Uncapped: the order of logits before the cap is the order after it, but for those it makes equal.
Job screen_job(const PackedLinear& head, const HeadScreen& screen, const SideProduct& side,
               const HeadArgmax& argmax) {
  TANDEM_GPU_CHECK(takes_screened_head(head, *screen.weight, side, argmax.logits));
  TANDEM_GPU_CHECK(screen.workspace != nullptr && screen.errors != nullptr);
  Job job = job_of(*screen.weight, side, argmax);
  job.logits.cap = 0.0F;
  job.logits.scales = screen.scales;
  job.screen = screen_places(screen);
  return job;
}

}  // namespace

bool takes_head_product(const PackedLinear& head, const SideProduct& side) {
  const bool side_fits = side.weight == nullptr || (side.weight->type == side_type_of(head.type) &&
                                                    side.weight->in_features == head.in_features &&
                                                    side.weight->num_shares <= head.num_shares);
  return side_fits && head.max_pieces <= 2 && head.num_shares <= few::kMaxShares &&
         num_stages(head) >= 2;
}

bool takes_head_product(const PackedLinear& head, const SideProduct& side,
                        const HeadLogits& logits) {
  return logits.num_rows <= kMaxHeadRows && logits.num_suppressed <= kMaxHeadSuppressed &&
         takes_head_product(head, side);
}

size_t head_exchange_bytes(const PackedLinear& head) {
  return few::kFlagBytes + static_cast<size_t>(head.num_shares) * kFewThreads * sizeof(float4);
}

void head_product(const Stream& stream, const PackedLinear& head, const SideProduct& side,
                  const void* operand, const HeadArgmax& argmax) {
  TANDEM_GPU_CHECK(head.type != PackedType::kIntegers);
  Job job = job_of(head, side, argmax);
  job.operand = static_cast<const uint8_t*>(operand);
  launch_for_type<false>(stream, head, job);
}

void head_product(const Stream& stream, const PackedLinear& head, const SideProduct& side,
                  const NormedRows& rows, const HeadArgmax& argmax) {
  TANDEM_GPU_CHECK(head.type != PackedType::kIntegers);
  check_rows(rows, head, argmax);
  Job job = job_of(head, side, argmax);
  job.normed = rows;
  launch_for_type<true>(stream, head, job);
}

bool takes_screened_head(const PackedLinear& head, const PackedLinear& screen,
                         const SideProduct& side, const HeadLogits& logits) {
  const bool same_shape = screen.out_features == head.out_features &&
                          screen.in_features == head.in_features &&
                          screen.num_shares == head.num_shares;
  return head.type == PackedType::kBF16 && screen.type == PackedType::kIntegers && same_shape &&
         takes_head_product(screen, side, logits);
}

ScreenPlaces screen_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                         const SideProduct& side, const void* operand, const HeadArgmax& argmax) {
  Job job = screen_job(head, screen, side, argmax);
  job.operand = static_cast<const uint8_t*>(operand);
  launch_for_type<false>(stream, *screen.weight, job);
  return job.screen;
}

ScreenPlaces screen_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                         const SideProduct& side, const NormedRows& rows,
                         const HeadArgmax& argmax) {
  check_rows(rows, head, argmax);
  Job job = screen_job(head, screen, side, argmax);
  job.normed = rows;
  launch_for_type<true>(stream, *screen.weight, job);
  return job.screen;
}

void screened_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                   const SideProduct& side, const void* operand, const HeadArgmax& argmax) {
  const ScreenPlaces places = screen_head(stream, head, screen, side, operand, argmax);
  confirm_screened(stream, head, places, operand, 1, argmax);
}

void screened_head(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                   const SideProduct& side, const NormedRows& rows, const HeadArgmax& argmax) {
  const ScreenPlaces places = screen_head(stream, head, screen, side, rows, argmax);
  confirm_screened(stream, head, places, places.operand, 1, argmax);
}

}  // namespace tandem::ops::cuda
