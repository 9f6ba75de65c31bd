// The product of few rows with many weights, bound by how fast weights can be read.
//
// Weights are the tensor cores' left operand, from registers: 64 output features of a warpgroup by
// all rows, which lie in shared memory. One thread copies a share of the packed weights, one run of
// bytes, into a ring there (product_copies.cuh), and it begins before the kernels in front have
// finished: only the activations depend on them. Two warpgroups take 64 output features each and
// add over the inputs in index order. What they leave is partial sums, or gate and up joined
// (gelu_product.h).
#include "ops/cuda/gelu_join.cuh"
#include "ops/cuda/product_blocks.cuh"
#include "ops/cuda/product_copies.cuh"

namespace tandem::ops::cuda {
namespace few {
namespace {

// A thread block's weights from which on a ring of all shared memory is worth its price: nothing
// fits beside it.
constexpr int64_t kLongShare = 200 * 1024;
// Where a block has this much to read, no two of them may share a multiprocessor: the first that
// falls free would take two, and others none. So many bytes fit once.
constexpr int64_t kOwnShare = 96 * 1024;
constexpr int kOwnBytes = 115 * 1024;

// This warp's 16 features of all rows.
template <int kTiles>
__device__ inline void store_piece(float (&sums)[kTiles * 4], float* piece) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float* const column = piece + threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
    float* const row = column + (tile * 8 + lane % 4 * 2) * kSetColumns;
    row[0] = sums[tile * 4];
    row[kSetColumns] = sums[tile * 4 + 1];
    row[8] = sums[tile * 4 + 2];
    row[kSetColumns + 8] = sums[tile * 4 + 3];
  }
}

template <typename S>
__device__ inline void publish(const Job& job, const float (&sums)[S::kTiles * 4]) {
  auto* const target = reinterpret_cast<float4*>(published<S>(job, static_cast<int>(blockIdx.x)));
#pragma unroll
  for (int i = 0; i < S::kTiles; ++i)
    __stcg(target + i * (kWarps * 32) + threadIdx.x,
           make_float4(sums[i * 4], sums[i * 4 + 1], sums[i * 4 + 2], sums[i * 4 + 3]));
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::add_release(flags_of(job) + blockIdx.x, 1);
}

// sums = what the block before this one has of the same set, the stages from `place` on, + sums.
template <typename S>
__device__ inline void add_published(float (&sums)[S::kTiles * 4], Ring<S> ring,
                                     RingPlace<S::kStages> place) {
#pragma unroll
  for (int i = 0; i < S::kTiles; ++i) {
    if (i % S::stage_tiles() == 0) {
      if (i > 0) {
        // Where the ring has no room for all of them.
        if (S::kStages * S::stage_tiles() < S::kTiles) {
          __syncwarp();
          if (threadIdx.x % 32 == 0) ptx::barrier_arrive(ring.empty(place.stage));
        }
        place.advance();
      }
      ptx::barrier_wait(ring.full(place.stage), place.parity);
    }
    const uint4 first = ptx::load_shared(ring.weights(place.stage) +
                                         (i % S::stage_tiles() * kWarps * 32 + threadIdx.x) * 16);
    sums[i * 4] = __uint_as_float(first.x) + sums[i * 4];
    sums[i * 4 + 1] = __uint_as_float(first.y) + sums[i * 4 + 1];
    sums[i * 4 + 2] = __uint_as_float(first.z) + sums[i * 4 + 2];
    sums[i * 4 + 3] = __uint_as_float(first.w) + sums[i * 4 + 3];
  }
}

// Joins gate and up of a set, each warpgroup for itself. Takes the sums.
template <typename S>
__device__ void join(const Job& job, float (&sums)[S::kTiles * 4], int set, uint32_t staging) {
  const Operand& out = job.gelu.out;
  const JoinScales scales{job.gelu.gate_scale, job.gelu.up_scale};
  const int thread = static_cast<int>(threadIdx.x);
  const int first = set * (kSetColumns / 2) + thread / 128 * 32;  // of the warpgroup's features
  if (S::kFp8 && out.input_scale > 0.0F) {
    const uint32_t joined = staging + thread / 128 * (S::kTiles * kE4m3TileBytes);
    join_e4m3<S::kTiles>(sums, scales, out.input_scale, joined, 1 + thread / 128);
    auto* const target = static_cast<uint4*>(out.data) + first / 32 * (S::kTiles * 16);
    for (int i = thread % 128; i < S::kTiles * 16; i += 128)
      if (first + i / 8 % 2 * 16 < job.intermediate) target[i] = ptx::load_shared(joined + i * 16);
    return;
  }
  const int lane = thread % 32;
  const int column = first + thread % 128 / 32 * kGatedGroup + lane % 4 * 2;
  join_tiles<S::kTiles>(sums, scales, [&](int tile, uint32_t two) {
    if (column < job.intermediate)
      store_operand(out, tile * 8 + lane / 4, column, low_bf16(two), high_bf16(two));
  });
}

// The share's piece of a set is complete.
template <typename S>
__device__ inline void finish_piece(const Job& job, float (&sums)[S::kTiles * 4],
                                    const Piece& piece, Ring<S> ring,
                                    const RingPlace<S::kStages>& place) {
  if constexpr (!S::kGelu) {
    const int slot =
        static_cast<int>(blockIdx.x) - job.plan.share_of(piece.set * job.plan.set_blocks);
    const int64_t index = static_cast<int64_t>(piece.set) * job.plan.max_pieces + slot;
    store_piece<S::kTiles>(sums, job.partials + index * (S::kTiles * 8 * kSetColumns));
  } else {
    if (piece.end != job.plan.set_blocks) return publish<S>(job, sums);
    if (piece.begin != 0) add_published<S>(sums, ring, place);
    join<S>(job, sums, piece.set, ring.staging());
  }
}

// The stages of a piece, in order. What a stage costs beside its products counts: a warp's
// instructions, and the waits for barriers, shared memory and tensor cores one after the other.
template <typename S>
struct Multiplier {
  static constexpr int kStage = S::kStageBlocks;

  Ring<S> ring;
  uint32_t own_weights;  // of the first stage
  RingPlace<S::kStages> place = {};

  __device__ explicit Multiplier(Ring<S> ring_in)
      : ring(ring_in), own_weights(lane_bytes<S>(ring_in.weights(0))) {}
  __device__ uint32_t weights(int stage) const {
    return own_weights + stage * (kStage * S::kBlockBytes);
  }
  __device__ void give_back(int stage) const {
    if (threadIdx.x % 32 == 0) ptx::barrier_arrive(ring.empty(stage));
  }

  __device__ void two_stages(float (&sums)[S::kTiles * 4]) {
    RingPlace<S::kStages> next = place;
    next.advance();
    ptx::barrier_wait(ring.full(place.stage), place.parity);
    const Blocks<S, kStage> first(weights(place.stage), ring.rows(place.stage, 0));
    ptx::barrier_wait(ring.full(next.stage), next.parity);
    const Blocks<S, kStage> second(weights(next.stage), ring.rows(next.stage, 0));
    add_two<S>(sums, first, second);
    __syncwarp();
    give_back(place.stage);
    give_back(next.stage);
    place = next;
    place.advance();
  }
  // A stage in registers.
  struct Stage {
    Blocks<S, kStage> blocks;
    int place;
  };
  __device__ Stage next_stage() {
    ptx::barrier_wait(ring.full(place.stage), place.parity);
    const Stage stage{Blocks<S, kStage>(weights(place.stage), ring.rows(place.stage, 0)),
                      place.stage};
    place.advance();
    return stage;
  }
  __device__ static void start(PartProducts<S>& products, const Stage& stage, int part) {
    ptx::pin(products);
    ptx::warpgroup_fence();
    start_part<S>(products, stage.blocks, part);
  }
  __device__ void give_back(const Stage& stage) const {
    __syncwarp();
    give_back(stage.place);
  }
  // Adds up the stage whose first two parts are under way, the first one in products[kFirst], and
  // starts those of the next one.
  template <int kFirst>
  __device__ Stage follow(float (&sums)[S::kTiles * 4], PartProducts<S> (&products)[2],
                          const Stage& now) {
    Stage next;
#pragma unroll
    for (int part = 0; part < S::kParts; ++part) {
      PartProducts<S>& own = products[(kFirst + part) % 2];
      if (part + 2 == S::kParts) next = next_stage();
      ptx::warpgroup_wait<1>();
      if (part + 1 == S::kParts) give_back(now);
      add_part<S>(sums, own, part);
      if (part + 2 < S::kParts)
        start(own, now, part + 2);
      else
        start(own, next, part + 2 - S::kParts);
    }
    return next;
  }
  // The same without a next one.
  template <int kFirst>
  __device__ void finish(float (&sums)[S::kTiles * 4], PartProducts<S> (&products)[2],
                         const Stage& last) {
#pragma unroll
    for (int part = 0; part + 2 < S::kParts; ++part) {
      PartProducts<S>& own = products[(kFirst + part) % 2];
      ptx::warpgroup_wait<1>();
      add_part<S>(sums, own, part);
      start(own, last, part + 2);
    }
    ptx::warpgroup_wait<0>();
    give_back(last);
#pragma unroll
    for (int part = S::kParts - 2; part < S::kParts; ++part)
      add_part<S>(sums, products[(kFirst + part) % 2], part);
  }
  // The same sums as one stage after the other.
  __device__ void pipeline(float (&sums)[S::kTiles * 4], int num_stages) {
    constexpr int kSecond = S::kParts % 2;  // where the first part of every second stage is
    PartProducts<S> products[2];
    Stage stage = next_stage();
    start(products[0], stage, 0);
    start(products[1], stage, 1);
    // Paths that met before the end would make ptxas wait after every product.
#pragma unroll 1
    for (; num_stages > 2; num_stages -= 2) {
      const Stage second = follow<0>(sums, products, stage);
      stage = follow<kSecond>(sums, products, second);
    }
    if (num_stages == 2)
      finish<kSecond>(sums, products, follow<0>(sums, products, stage));
    else
      finish<0>(sums, products, stage);
  }
  // `count` blocks, from block `within` of the set on.
  __device__ void one_stage(float (&sums)[S::kTiles * 4], int within, int count) {
    ptx::barrier_wait(ring.full(place.stage), place.parity);
    with_count<kStage>(count, [&](auto blocks) {
      add_blocks<S, blocks>(
          sums, Blocks<S, blocks>(weights(place.stage), ring.rows(place.stage, within)));
    });
    __syncwarp();
    give_back(place.stage);
    place.advance();
  }
  __device__ void piece(float (&sums)[S::kTiles * 4], int begin, int end) {
    while (begin < end) {
      if constexpr (S::kTwoStages) {
        if (begin % kStage == 0) {
#pragma unroll 1
          for (; end - begin >= 2 * kStage; begin += 2 * kStage) two_stages(sums);
          if (begin == end) break;
        }
      }
      if constexpr (S::kPipelined) {
        const int whole = begin % kStage == 0 ? (end - begin) / kStage : 0;
        if (whole > 0) {
          pipeline(sums, whole);
          begin += whole * kStage;
          continue;
        }
      }
      const int count = min(kStage - begin % kStage, end - begin);
      one_stage(sums, begin, count);
      begin += count;
    }
  }
};

template <typename S>
__device__ void compute_share(const Job& job, int begin, int end, Ring<S> ring) {
  float sums[S::kTiles * 4] = {};
  Multiplier<S> multiplier(ring);
  bool is_first = true;
  ptx::barrier_wait(ring.first_rows(), 0);
  for (Piece piece(begin, end, job.plan.set_blocks); piece.exists();
       piece = piece.before(begin, job.plan.set_blocks)) {
    int from = piece.begin;
    if (S::kSplitsRows && is_first) {
      from = min(from + S::kStageBlocks - from % S::kStageBlocks, piece.end);
      multiplier.piece(sums, piece.begin, from);
      ptx::barrier_wait(ring.other_rows(), 0);
      is_first = false;
    }
    multiplier.piece(sums, from, piece.end);
    finish_piece<S>(job, sums, piece, ring, multiplier.place);
#pragma unroll
    for (float& sum : sums) sum = 0.0F;
  }
}

template <typename S>
__device__ void work_on(const Job& job) {
  extern __shared__ __align__(128) uint8_t shared[];
  allow_next();
  const Ring<S> ring{ptx::shared_address(shared)};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < S::kStages; ++stage) {
      ptx::barrier_init(ring.full(stage), 1);
      ptx::barrier_init(ring.empty(stage), kWarps);
    }
    ptx::barrier_init(ring.first_rows(), 1);
    ptx::barrier_init(ring.other_rows(), 1);
    ptx::barrier_init(ring.turn(), 1);
    ptx::fence_barrier_init();
  }
  __syncthreads();
  const int begin = job.plan.share_begin(static_cast<int>(blockIdx.x));
  const int end = job.plan.share_begin(static_cast<int>(blockIdx.x) + 1);
  if (threadIdx.x >= kWarps * 32) {
    if constexpr (S::kPipelined) ptx::lower_registers<40>();
    if (threadIdx.x == kWarps * 32) copy_share<S>(job, begin, end, ring);
    return;
  }
  if constexpr (S::kPipelined) ptx::raise_registers<232>();
  wait_for_previous();  // what the last product left has been read
  if (threadIdx.x == 0) ptx::barrier_arrive(ring.turn());
  compute_share<S>(job, begin, end, ring);
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 1) product_kernel(const Job job) {
  if constexpr (S::kIsUsed)
    work_on<S>(job);
  else
    __trap();
}

template <typename S>
void launch_product(const Stream& stream, const PackedLinear& weight, Job job) {
  // On a small card no two thread blocks fit anyway.
  constexpr int kMostBytes = S::kSmallCard || S::kBytes > kOwnBytes ? S::kBytes : kOwnBytes;
  static const bool configured = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(
        product_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, kMostBytes));
    return true;
  }();
  (void)configured;
  job.weights = weight.data.as<uint8_t>();
  job.plan = weight.partials(nullptr, S::kTiles * 8);
  const bool alone = weight.size_bytes() / weight.num_shares >= kOwnShare;
  launch(stream, product_kernel<S>, dim3(static_cast<unsigned>(weight.num_shares)),
         dim3(S::kThreads), alone ? kMostBytes : S::kBytes, job);
}

template <PackedType kType, bool kGelu, RingLength kRing>
void launch_for_tiles(const Stream& stream, const PackedLinear& weight, int num_tiles,
                      const Job& job) {
  constexpr RingLength kManyRows = kRing == RingLength::kShort ? RingLength::kLong : kRing;
  switch (num_tiles) {
    case 1:
      return launch_product<Shape<1, kType, kGelu, kRing>>(stream, weight, job);
    case 2:
      return launch_product<Shape<2, kType, kGelu, kRing>>(stream, weight, job);
    case 4:
      return launch_product<Shape<4, kType, kGelu, kRing>>(stream, weight, job);
    case 8:
      return launch_product<Shape<8, kType, kGelu, kGelu ? kManyRows : kRing>>(stream, weight, job);
    case 12:
      return launch_product<Shape<12, kType, kGelu, kManyRows>>(stream, weight, job);
    case 16:
      return launch_product<Shape<16, kType, kGelu, kManyRows>>(stream, weight, job);
    case 20:
      return launch_product<Shape<20, kType, kGelu, kManyRows>>(stream, weight, job);
    case 24:
      return launch_product<Shape<24, kType, kGelu, kManyRows>>(stream, weight, job);
    default:
      check_condition(false, "num_tiles 1, 2, 4, 8, 12, 16, 20 or 24");
  }
}

template <PackedType kType, bool kGelu>
void launch_for_length(const Stream& stream, const PackedLinear& weight, int num_tiles,
                       const Job& job) {
  static const bool small_card = max_shared_bytes() < ring_bytes(RingLength::kLong);
  // Weights of 8 bits with rows of BF16 are heads: their shares are long.
  constexpr bool kIsHead = kType == PackedType::kFp8Weights || kType == PackedType::kIntegers;
  const bool is_long = kIsHead || weight.size_bytes() / weight.num_shares >= kLongShare;
  if (small_card)
    launch_for_tiles<kType, kGelu, RingLength::kSmallCard>(stream, weight, num_tiles, job);
  else if (is_long)
    launch_for_tiles<kType, kGelu, RingLength::kLong>(stream, weight, num_tiles, job);
  else if constexpr (!kIsHead)
    launch_for_tiles<kType, kGelu, RingLength::kShort>(stream, weight, num_tiles, job);
}

template <bool kGelu>
void launch_for_weight(const Stream& stream, const PackedLinear& weight, int num_tiles,
                       const Job& job) {
  switch (weight.type) {
    case PackedType::kFp8:
      return launch_for_length<PackedType::kFp8, kGelu>(stream, weight, num_tiles, job);
    case PackedType::kBF16:
      return launch_for_length<PackedType::kBF16, kGelu>(stream, weight, num_tiles, job);
    case PackedType::kFp8Weights:
      if constexpr (!kGelu)
        return launch_for_length<PackedType::kFp8Weights, false>(stream, weight, num_tiles, job);
      break;
    case PackedType::kIntegers:
      if constexpr (!kGelu)
        return launch_for_length<PackedType::kIntegers, false>(stream, weight, num_tiles, job);
      break;
  }
  check_condition(false, "a gated weight of FP8 or BF16");
}

}  // namespace
}  // namespace few

void product(const Stream& stream, const PackedLinear& weight, const void* operand, int num_tiles,
             float* partials, Follows follows) {
  few::Job job{};
  job.most_ahead = follows == Follows::kProduct ? few::kMaxStages : few::kHeldBack;
  job.operand = static_cast<const uint8_t*>(operand);
  job.partials = partials;
  few::launch_for_weight<false>(stream, weight, num_tiles, job);
}

bool takes_gelu_product(const PackedLinear& weight) {
  return weight.gated && weight.max_pieces <= 2;
}

size_t gelu_exchange_bytes(const PackedLinear& weight, int num_rows) {
  const auto piece = static_cast<size_t>(num_rows) * kSetColumns * sizeof(float);
  return few::kFlagBytes + static_cast<size_t>(weight.num_shares) * piece;
}

void gelu_product(const Stream& stream, const PackedLinear& weight, const void* operand,
                  int num_tiles, const GeluProduct& gelu) {
  TANDEM_GPU_CHECK(takes_gelu_product(weight) && gelu.out.data != operand);
  TANDEM_GPU_CHECK(gelu.out.num_tiles == num_tiles && gelu.exchange != nullptr);
  TANDEM_GPU_CHECK(weight.num_shares <= few::kMaxShares);
  few::Job job{};
  job.most_ahead = few::kHeldBack;
  job.operand = static_cast<const uint8_t*>(operand);
  job.intermediate = weight.out_features / 2;
  job.gelu = gelu;
  few::launch_for_weight<true>(stream, weight, num_tiles, job);
}

}  // namespace tandem::ops::cuda
