// The product of few rows with many weights, bound by how fast weights can be read.
//
// Weights are the tensor cores' left operand, from registers: 64 output features of a warpgroup by
// all rows, which lie in shared memory. One thread copies a share of the packed weights, one run of
// bytes, into a ring there (product_copies.cuh), and it begins before the kernels in front have
// finished: only the activations depend on them. Two warpgroups take 64 output features each and
// add over the inputs in index order. What they leave is partial sums, or gate and up joined
// (gelu_product.h).
#include "ops/cuda/gelu_join.cuh"
#include "ops/cuda/product_multiplier.cuh"

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
    join_e4m3<S::kTiles>(sums, scales, out.divisor(), joined, 1 + thread / 128);
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

// What becomes of the sums of a share's pieces (product_multiplier.cuh).
template <typename S>
struct Leaves {
  const Job& job;

  __device__ void begin(const Piece&) const {}
  __device__ void finish(float (&sums)[S::kTiles * 4], const Piece& piece, const Ring<S>& ring,
                         const RingPlace<S::kStages>& place) const {
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
};

template <typename S>
__global__ void __launch_bounds__(S::kThreads, 1) product_kernel(const Job job) {
  if constexpr (S::kIsUsed) {
    extern __shared__ __align__(128) uint8_t shared[];
    allow_next();
    const Ring<S> ring{ptx::shared_address(shared)};
    work_on<S>(job, ring, Leaves<S>{job});
  } else {
    __trap();
  }
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
  with_tiles<1, 2, 4, 8, 12, 16, 20, 24>(num_tiles, [&](auto tiles) {
    constexpr bool kIsMany = kGelu ? tiles >= 8 : tiles > 8;
    launch_product<Shape<tiles, kType, kGelu, kIsMany ? kManyRows : kRing>>(stream, weight, job);
  });
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
