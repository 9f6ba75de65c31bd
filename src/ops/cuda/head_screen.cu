#include "ops/cuda/head_screen.h"

#include "ops/cuda/head_rows.cuh"
#include "ops/cuda/head_screen.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/product_shape.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr size_t kHeaderBytes =
    kMaxProductRows * (2 * sizeof(uint32_t) + sizeof(float)) + few::kMaxShares * sizeof(uint32_t);

size_t operand_bytes(const PackedLinear& screen) {
  return static_cast<size_t>(screen.in_features) * kMaxHeadRows * 2;
}
size_t logits_bytes(const PackedLinear& screen) {
  return sizeof(float) * kMaxHeadRows * kSetColumns * static_cast<size_t>(screen.num_sets);
}

struct Job {
  HeadLogits head;  // as screened, without a cap
  ScreenPlaces screen;
  ArgmaxScratch scratch;
  const uint8_t* operand;
  int num_tiles;
};

// Lane s gets the largest logit of set s, or NaN.
__device__ float largest_of_sets(const SetLogits<kWarpSets>& logits, int lane) {
  float mine = 0.0F;
#pragma unroll
  for (int s = 0; s < kWarpSets; ++s) {
    const float(&x)[4] = logits.x[s];
    const float four = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
    const bool comparable = x[0] == x[0] && x[1] == x[1] && x[2] == x[2] && x[3] == x[3];
    float largest = from_ordered(__reduce_max_sync(kWholeWarp, ordered(four)));
    if (!__all_sync(kWholeWarp, comparable)) largest = __int_as_float(0x7fffffff);
    if (lane == s) mine = largest;
  }
  return mine;
}

// As argmax_kernel (head.cu): warp w of a block reads kWarpSets sets of row w of a tile.
__global__ void __launch_bounds__(32 * kTileWarps)
    screen_rows_kernel(const __grid_constant__ Job job) {
  allow_next();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.y * kTileWarps + threadIdx.x / 32);
  const int first_set = static_cast<int>(blockIdx.x) * kWarpSets;
  const int pieces = lane_pieces(job.head, first_set, lane);
  const Suppressed suppressed(job.head, lane);
  wait_for_previous();
  if (row >= job.head.num_rows) return;
  if (blockIdx.x == 0) {
    const float length =
        operand_length(job.operand, job.num_tiles, job.head.sums.set_blocks, row, lane);
    if (lane == 0) __stcg(job.screen.lengths + row, length);
  }
  SetLogits<kWarpSets> logits;
  load_logits(job.head, row, first_set, lane, pieces, logits);
  const float largest = largest_of_sets(logits, lane);
  if (pieces > 0)
    job.screen.largest[static_cast<int64_t>(first_set + lane) * kMaxProductRows + row] = largest;
  const Key key = first_key(job.head, suppressed, first_set, lane, logits);
  if (lane != 0) return;
  // Whatever cannot be compared has no bound, and is confirmed.
  if (key != kNoKey && key != kNotFiniteKey) atomicMax(&job.scratch.keys[row], key);
  if (ptx::count_up(&job.scratch.arrivals[row], gridDim.x - 1) != gridDim.x - 1) return;
  const Key first = atomicExch(&job.scratch.keys[row], kNoKey);
  if (first == kNoKey) return;
  const float error = job.screen.errors[key_id(first)] * __ldcg(job.screen.lengths + row);
  job.screen.lower[row] = ordered(key_logit(first) - error);
}

}  // namespace

size_t screen_workspace_bytes(const PackedLinear& screen) {
  return kHeaderBytes + operand_bytes(screen) + logits_bytes(screen) +
         sizeof(float) * kMaxProductRows * static_cast<size_t>(screen.num_sets) +
         sizeof(int32_t) * static_cast<size_t>(ids_of_share(screen)) *
             static_cast<size_t>(screen.num_shares);
}

ScreenPlaces screen_places(const HeadScreen& screen) {
  auto* const base = static_cast<uint8_t*>(screen.workspace);
  const PackedLinear& weight = *screen.weight;
  ScreenPlaces places;
  places.columns = weight.num_sets * kSetColumns;
  places.scales = screen.scales;
  places.errors = screen.errors;
  places.lower = reinterpret_cast<uint32_t*>(base);
  places.told_lengths = places.lower + kMaxProductRows;
  places.counts = places.told_lengths + kMaxProductRows;
  places.lengths = reinterpret_cast<float*>(places.counts + few::kMaxShares);
  places.operand = base + kHeaderBytes;
  places.logits = reinterpret_cast<float*>(places.operand + operand_bytes(weight));
  places.largest =
      reinterpret_cast<float*>(places.operand + operand_bytes(weight) + logits_bytes(weight));
  places.ids =
      reinterpret_cast<int32_t*>(places.largest + int64_t{kMaxProductRows} * weight.num_sets);
  places.room = ids_of_share(weight);
  return places;
}

bool takes_screened_rows(const PackedLinear& head, const PackedLinear& screen, int num_tiles) {
  const int most_tiles = lists_rows(screen, {}) ? kMaxListedTiles : kMaxScreenedTiles;
  return num_tiles <= most_tiles && head.type == PackedType::kBF16 &&
         screen.type == PackedType::kIntegers && screen.out_features == head.out_features &&
         screen.in_features == head.in_features && screen.num_shares == head.num_shares &&
         head.max_pieces <= 2;
}

void screened_rows(const Stream& stream, const PackedLinear& head, const HeadScreen& screen,
                   const void* operand, int num_tiles, float* partials, const HeadArgmax& argmax) {
  TANDEM_GPU_CHECK(takes_screened_rows(head, *screen.weight, num_tiles) &&
                   screen.workspace != nullptr);
  TANDEM_GPU_CHECK(argmax.logits.num_rows > 0 && argmax.logits.num_rows <= num_tiles * 8);
  TANDEM_GPU_CHECK(argmax.logits.vocab_size <= head.out_features);
  ScreenPlaces places = screen_places(screen);
  if (lists_rows(*screen.weight, argmax.logits)) {
    places.lists = true;
    list_screened(stream, *screen.weight, places, operand, num_tiles, argmax.logits);
    return confirm_screened(stream, head, places, operand, num_tiles, argmax);
  }
  product(stream, *screen.weight, operand, num_tiles, partials);
  places.sums = screen.weight->partials(partials, num_tiles * 8);
  Job job{};
  job.head = argmax.logits;
  job.head.sums = places.sums;
  job.head.scales = screen.scales;
  job.head.cap = 0.0F;
  job.screen = places;
  job.scratch = argmax_scratch(argmax.scratch, argmax.logits.num_rows);
  job.operand = static_cast<const uint8_t*>(operand);
  job.num_tiles = num_tiles;
  const int sets = (argmax.logits.vocab_size + kSetColumns - 1) / kSetColumns;
  launch(stream, screen_rows_kernel,
         dim3(static_cast<unsigned>((sets + kWarpSets - 1) / kWarpSets),
              static_cast<unsigned>((argmax.logits.num_rows + kTileWarps - 1) / kTileWarps)),
         dim3(32 * kTileWarps), 0, job);
  confirm_screened(stream, head, places, operand, num_tiles, argmax);
}

}  // namespace tandem::ops::cuda
