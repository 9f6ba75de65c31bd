#include "ops/cuda/row_facts.h"

#include "core/random.h"
#include "ops/cuda/head_keys.cuh"
#include "ops/cuda/launch.cuh"
#include "ops/cuda/row_math.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffU;
constexpr int kSetSize = 128;  // a warp's look at a row
constexpr int kWarpSets = 4;   // sets that a warp reads at once
constexpr int kSetWarps = 8;
constexpr int kRowThreads = 1024;
constexpr int kGatherThreads = 256;
// The 128 likeliest tokens lie in the 128 sets with the largest maxima. Room for the keys of all of
// them, or on cards with little shared memory of some at a time.
constexpr int kRowKeys = kLikeliest * kSetSize;
constexpr int kFewRowKeys = 8192;
static_assert(kMaxVocab / kSetSize <= kFewRowKeys);

// Of every set of every row, [num_rows][num_sets].
struct SetFacts {
  Key* keys;    // the first candidate
  Key* scores;  // of rows that draw: the best contender
  float* sums;  // of exp(logit - that of the first candidate)
  int* ahead;   // tokens that come before the row's target
};

__device__ float minus_infinity() {
  return -__int_as_float(0x7f800000);
}

// Columns beyond the vocabulary are at -inf, which is no candidate and adds nothing.
__device__ float4 load_logits(const float* row, int vocab_size, int column) {
  const float none = minus_infinity();
  if (vocab_size % 4 == 0)
    return column < vocab_size ? *reinterpret_cast<const float4*>(row + column)
                               : make_float4(none, none, none, none);
  return {column < vocab_size ? row[column] : none,
          column + 1 < vocab_size ? row[column + 1] : none,
          column + 2 < vocab_size ? row[column + 2] : none,
          column + 3 < vocab_size ? row[column + 3] : none};
}

__device__ Key warp_max(Key key) {
  const uint32_t high = __reduce_max_sync(kAll, static_cast<uint32_t>(key >> 32));
  const bool leads = static_cast<uint32_t>(key >> 32) == high;
  const uint32_t low = __reduce_max_sync(kAll, leads ? static_cast<uint32_t>(key) : 0U);
  return (static_cast<Key>(high) << 32) | low;
}

// -log(-log(1 - v)), v from 64 random bits as in sampling/rng.h; absolute errors stay below 1e-4.
__device__ float gumbel(uint32_t high, uint32_t low) {
  const float fraction = (static_cast<float>(low) + 0.5F) * 0x1p-32F;
  if (high < 0x80000000U) return -logf(-log1pf(-(static_cast<float>(high) + fraction) * 0x1p-32F));
  const float rest = (static_cast<float>(~high) + (1.0F - fraction)) * 0x1p-32F;  // 1 - v
  return -logf(-logf(fmaxf(rest, 0x1p-53F)));
}

// What a row's scores are made of; no draw where inverse_temperature is 0.
struct RowDraw {
  Draw draw;
  int64_t position;
};
__device__ RowDraw draw_of(const RowFactsJob& op, int row) {
  const int sequence = op.draws == nullptr ? -1 : op.sequences[row];
  if (sequence < 0) return {};
  return {op.draws[sequence], static_cast<int64_t>(op.positions[row]) + 1};
}

// Keys of four neighbouring tokens by score; kNoKey where a token cannot be drawn.
__device__ void score_keys(const RowDraw& row, const float (&x)[4], int first_id, Key (&keys)[4]) {
  // Only there do the lower halves count.
  constexpr uint32_t kEdge = 1U << 20;
  const auto block = static_cast<uint32_t>(first_id) / 4;
  const core::PhiloxCounter high =
      core::random_block(row.draw.seed, row.position, core::Purpose::kTokenHigh, block);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint32_t low = 0x80000000U;
    if (high[static_cast<size_t>(j)] < kEdge || ~high[static_cast<size_t>(j)] < kEdge)
      low = core::random_block(row.draw.seed, row.position, core::Purpose::kTokenLow,
                               block)[static_cast<size_t>(j)];
    const float noise = gumbel(high[static_cast<size_t>(j)], low);
    keys[j] = x[j] > minus_infinity()
                  ? make_key(x[j] * row.draw.inverse_temperature + noise, first_id + j)
                  : kNoKey;
  }
}

struct OneSet {
  Key key;
  float sum;
  int ahead;
};

// The same in every lane. `target`: all ones where there is none.
__device__ OneSet look_at(const float (&x)[4], int first_id, int vocab_size, Key target) {
  bool finite = true;
  Key best = kNoKey;
  int ahead = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    finite = finite && x[j] < __int_as_float(0x7f800000);
    const Key key = make_key(x[j], first_id + j);
    ahead += first_id + j < vocab_size && key > target ? 1 : 0;
    if (x[j] > minus_infinity() && key > best) best = key;
  }
  OneSet set;
  set.key = __all_sync(kAll, finite) ? warp_max(best) : kNotFiniteKey;
  set.ahead = static_cast<int>(__reduce_add_sync(kAll, static_cast<unsigned>(ahead)));
  set.sum = 0.0F;
  if (set.key == kNoKey || set.key == kNotFiniteKey) return set;
  const float largest = key_logit(set.key);
  float sum = 0.0F;
#pragma unroll
  for (int j = 0; j < 4; ++j) sum += expf(x[j] - largest);
  set.sum = warp_sum(sum);
  return set;
}

__device__ Key target_key(const RowFactsJob& op, int row) {
  const int target = op.targets == nullptr ? -1 : op.targets[row];
  if (target < 0) return kNotFiniteKey;
  return make_key(op.logits[static_cast<int64_t>(row) * op.vocab_size + target], target);
}

__global__ void __launch_bounds__(32 * kSetWarps)
    set_facts_kernel(const RowFactsJob op, const SetFacts out, int num_sets) {
  allow_next();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.y);
  const int first_set = static_cast<int>(blockIdx.x * kSetWarps + threadIdx.x / 32) * kWarpSets;
  wait_for_previous();
  const float* const logits = op.logits + static_cast<int64_t>(row) * op.vocab_size;
  float4 values[kWarpSets];
#pragma unroll
  for (int s = 0; s < kWarpSets; ++s)
    values[s] = load_logits(logits, op.vocab_size, (first_set + s) * kSetSize + lane * 4);
  const Key target = target_key(op, row);
  const RowDraw draw = draw_of(op, row);
#pragma unroll
  for (int s = 0; s < kWarpSets; ++s) {
    const float x[4] = {values[s].x, values[s].y, values[s].z, values[s].w};
    const OneSet set = look_at(x, (first_set + s) * kSetSize + lane * 4, op.vocab_size, target);
    Key best_score = kNoKey;
    if (draw.draw.inverse_temperature > 0.0F) {
      Key scores[4];
      score_keys(draw, x, (first_set + s) * kSetSize + lane * 4, scores);
#pragma unroll
      for (int j = 0; j < 4; ++j) best_score = scores[j] > best_score ? scores[j] : best_score;
      best_score = warp_max(best_score);
    }
    if (lane != 0 || first_set + s >= num_sets) continue;
    const int64_t place = static_cast<int64_t>(row) * num_sets + first_set + s;
    out.keys[place] = set.key;
    out.scores[place] = best_score;
    out.sums[place] = set.sum;
    out.ahead[place] = set.ahead;
  }
}

// Sorts keys[0 .. count), the largest first, by bitonic merging; what lies behind up to the next
// power of two (at least kLikeliest) is overwritten with kNoKey. Every thread of the block calls
// it.
__device__ void sort_keys(Key* keys, int count) {
  int size = kLikeliest;
  while (size < count) size *= 2;
  for (int i = count + static_cast<int>(threadIdx.x); i < size; i += kRowThreads) keys[i] = kNoKey;
  __syncthreads();
  for (int run = 2; run <= size; run *= 2)
    for (int distance = run / 2; distance > 0; distance /= 2) {
      for (int i = static_cast<int>(threadIdx.x); i < size / 2; i += kRowThreads) {
        const int low = 2 * i - (i & (distance - 1));
        const int high = low + distance;
        const bool descending = (low & run) == 0;
        const Key a = keys[low];
        const Key b = keys[high];
        if ((a < b) == descending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
}

// Tokens of the set that come no later than `bound`, appended to keys in any order. Whole warps.
__device__ void append_set(const float* row, int vocab_size, int set, int lane, Key bound,
                           Key* keys, int* count) {
  const int column = set * kSetSize + lane * 4;
  const float4 values = load_logits(row, vocab_size, column);
  const float x[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const Key key = make_key(x[j], column + j);
    if (x[j] > minus_infinity() && key >= bound) keys[atomicAdd(count, 1)] = key;
  }
}

// Sums over a row's sets, in the order of threads; the result is thread 0's.
struct RowSums {
  double weight;
  int ahead;
};
__device__ RowSums add_sets(const SetFacts& sets, int64_t begin, int num_sets, float largest,
                            RowSums* of_warps) {
  const int thread = static_cast<int>(threadIdx.x);
  RowSums mine = {0.0, 0};
  for (int i = thread; i < num_sets; i += kRowThreads) {
    mine.ahead += sets.ahead[begin + i];
    const Key key = sets.keys[begin + i];
    if (key == kNoKey || key == kNotFiniteKey) continue;
    mine.weight += static_cast<double>(sets.sums[begin + i] * expf(key_logit(key) - largest));
  }
  mine.weight = warp_sum(mine.weight);
  mine.ahead = warp_sum(mine.ahead);
  if (thread % 32 == 0) of_warps[thread / 32] = mine;
  __syncthreads();
  if (thread >= 32) return {};
  mine = of_warps[thread];
  return {warp_sum(mine.weight), warp_sum(mine.ahead)};
}

// The contenders of a row that draws, found as its likeliest tokens are. The whole block; keys
// [kRowKeys] and sets [kContenders] are free to use.
__device__ void find_contenders(const RowFactsJob& op, const RowDraw& draw, const float* row,
                                const Key* set_scores, int num_sets, Key* keys, int* sets,
                                int* count, RowFacts& result) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  for (int i = thread; i < num_sets; i += kRowThreads) keys[i] = set_scores[i];
  sort_keys(keys, num_sets);
  const Key bound = keys[kContenders - 1];
  if (thread < kContenders)
    sets[thread] = keys[thread] == kNoKey ? -1 : key_id(keys[thread]) / kSetSize;
  if (thread == 0) *count = 0;
  __syncthreads();
  for (int i = thread / 32; i < kContenders; i += kRowThreads / 32) {
    if (sets[i] < 0) continue;
    const int column = sets[i] * kSetSize + lane * 4;
    const float4 values = load_logits(row, op.vocab_size, column);
    const float x[4] = {values.x, values.y, values.z, values.w};
    Key scores[4];
    score_keys(draw, x, column, scores);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (scores[j] != kNoKey && scores[j] >= bound) keys[atomicAdd(count, 1)] = scores[j];
  }
  __syncthreads();
  const int found = *count;
  sort_keys(keys, found);
  if (thread == 0) {
    result.num_contenders = found < kContenders ? found : kContenders;
    result.last_score = found == 0 ? 0.0F : key_logit(keys[result.num_contenders - 1]);
  }
  if (thread >= kContenders) return;
  const int id = thread < found ? key_id(keys[thread]) : -1;
  result.contender_ids[thread] = id;
  result.contender_logits[thread] = id < 0 ? 0.0F : row[id];
}

// Sets begin .. end - 1 of those named.
__device__ void append_sets(const float* logits, int vocab_size, const int* sets, int begin,
                            int end, Key bound, Key* keys, int* count) {
  for (int i = begin + static_cast<int>(threadIdx.x) / 32; i < end; i += kRowThreads / 32)
    if (sets[i] >= 0)
      append_set(logits, vocab_size, sets[i], static_cast<int>(threadIdx.x) % 32, bound, keys,
                 count);
}

template <int kKeys>
constexpr int kSetsAtOnce = kKeys == kRowKeys ? kLikeliest : (kKeys - kLikeliest) / kSetSize;

// Sorts the keys of the first sets that were appended, and those of the others that come before the
// last of the likeliest so far. Gives how many there are.
template <int kKeys>
__device__ int sort_appended(bool finite, const float* logits, int vocab_size, const int* sets,
                             Key bound, Key* keys, int* count) {
  int found = *count;
  sort_keys(keys, found);
  for (int begin = kSetsAtOnce<kKeys>; begin < kLikeliest; begin += kSetsAtOnce<kKeys>) {
    if (found >= kLikeliest) bound = keys[kLikeliest - 1];
    if (threadIdx.x == 0) *count = min(found, kLikeliest);
    __syncthreads();
    const int end = min(begin + kSetsAtOnce<kKeys>, kLikeliest);
    if (finite) append_sets(logits, vocab_size, sets, begin, end, bound, keys, count);
    __syncthreads();
    found = *count;
    sort_keys(keys, found);
  }
  return found;
}

// One block per row. The 128th of the sets' maxima bounds the 128th token from below, so only the
// sets down to it can hold one of the 128.
template <int kKeys>
__global__ void __launch_bounds__(kRowThreads, 1)
    row_facts_kernel(const RowFactsJob op, const SetFacts set_facts, int num_sets, RowFacts* out) {
  allow_next();
  extern __shared__ Key keys[];  // [kKeys]
  __shared__ int sets[kLikeliest];
  __shared__ RowSums of_warps[kRowThreads / 32];
  __shared__ int count;
  const int thread = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.x);
  const int64_t first = static_cast<int64_t>(row) * num_sets;
  wait_for_previous();
  const float* const logits = op.logits + static_cast<int64_t>(row) * op.vocab_size;
  for (int i = thread; i < num_sets; i += kRowThreads) keys[i] = set_facts.keys[first + i];
  sort_keys(keys, num_sets);
  const Key largest = keys[0];
  const Key bound = keys[kLikeliest - 1];
  const bool finite = largest != kNotFiniteKey;
  if (thread < kLikeliest)
    sets[thread] = keys[thread] == kNoKey ? -1 : key_id(keys[thread]) / kSetSize;
  if (thread == 0) count = 0;
  __syncthreads();
  if (finite) append_sets(logits, op.vocab_size, sets, 0, kSetsAtOnce<kKeys>, bound, keys, &count);
  const RowSums sums = add_sets(set_facts, first, num_sets, key_logit(largest), of_warps);
  __syncthreads();
  const int found = sort_appended<kKeys>(finite, logits, op.vocab_size, sets, bound, keys, &count);
  RowFacts& result = out[row];
  if (thread == 0) {
    const int target = op.targets == nullptr ? -1 : op.targets[row];
    result.likeliest.status = finite ? 1 : 0;
    result.likeliest.count = found < kLikeliest ? found : kLikeliest;
    result.sum = static_cast<float>(sums.weight);
    result.target_logit = target < 0 ? 0.0F : logits[target];
    result.target_rank = sums.ahead;
  }
  if (thread < kMaxAsked) {
    const int sequence = op.asked == nullptr ? -1 : op.sequences[row];
    const int id =
        sequence < 0 ? -1 : op.asked[static_cast<int64_t>(sequence) * kMaxAsked + thread];
    result.asked[thread] = id < 0 ? __int_as_float(0x7fffffff) : logits[id];
  }
  if (thread < kLikeliest) {
    const bool there = thread < found;
    result.likeliest.logits[thread] = there ? key_logit(keys[thread]) : 0.0F;
    result.likeliest.ids[thread] = there ? key_id(keys[thread]) : -1;
  }
  const RowDraw draw = draw_of(op, row);
  if (thread == 0) result.num_contenders = 0;
  if (!finite || draw.draw.inverse_temperature <= 0.0F) return;
  __syncthreads();
  find_contenders(op, draw, logits, set_facts.scores + first, num_sets, keys, sets, &count, result);
}

// Of kSetWarps * kWarpSets neighbouring sets: RowFacts::weight, then weight_before.
constexpr int kWeights = 1 + kContenders;
static_assert(kWeights <= 32);

// weights [num_rows][gridDim.x][kWeights]
__global__ void __launch_bounds__(32 * kSetWarps)
    set_weights_kernel(const RowFactsJob op, const RowFacts* facts, float* weights) {
  allow_next();
  __shared__ Key contenders[kContenders];
  __shared__ float of_warps[kSetWarps][kWeights];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int row = static_cast<int>(blockIdx.y);
  wait_for_previous();
  const RowFacts& known = facts[row];
  if (known.likeliest.status == 0 || known.num_contenders == 0) return;
  const float inverse_temperature = draw_of(op, row).draw.inverse_temperature;
  const float largest = known.likeliest.logits[0];
  // Nothing comes before what is not there.
  if (thread < kContenders)
    contenders[thread] = thread < known.num_contenders
                             ? make_key(known.contender_logits[thread], known.contender_ids[thread])
                             : kNotFiniteKey;
  __syncthreads();
  const float* const logits = op.logits + static_cast<int64_t>(row) * op.vocab_size;
  const int first_set = (static_cast<int>(blockIdx.x) * kSetWarps + thread / 32) * kWarpSets;
  float sums[kWeights] = {};
  for (int s = 0; s < kWarpSets; ++s) {
    const int column = (first_set + s) * kSetSize + lane * 4;
    const float4 values = load_logits(logits, op.vocab_size, column);
    const float x[4] = {values.x, values.y, values.z, values.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float weight = expf((x[j] - largest) * inverse_temperature);
      const Key key = make_key(x[j], column + j);
      sums[0] += weight;
#pragma unroll
      for (int i = 0; i < kContenders; ++i) sums[1 + i] += key > contenders[i] ? weight : 0.0F;
    }
  }
#pragma unroll
  for (int i = 0; i < kWeights; ++i) {
    sums[i] = warp_sum(sums[i]);
    if (lane == 0) of_warps[thread / 32][i] = sums[i];
  }
  __syncthreads();
  if (thread >= kWeights) return;
  float sum = 0.0F;
  for (int w = 0; w < kSetWarps; ++w) sum += of_warps[w][thread];
  weights[(static_cast<int64_t>(row) * gridDim.x + blockIdx.x) * kWeights + thread] = sum;
}

// One warp per row.
__global__ void __launch_bounds__(32)
    row_weights_kernel(const float* weights, int num_blocks, RowFacts* out) {
  allow_next();
  const int lane = static_cast<int>(threadIdx.x);
  wait_for_previous();
  RowFacts& result = out[blockIdx.x];
  if (lane >= kWeights || result.likeliest.status == 0 || result.num_contenders == 0) return;
  const float* const row = weights + static_cast<int64_t>(blockIdx.x) * num_blocks * kWeights;
  float sum = 0.0F;
  for (int block = 0; block < num_blocks; ++block) sum += row[block * kWeights + lane];
  if (lane == 0)
    result.weight = sum;
  else
    result.weight_before[lane - 1] = sum;
}

__global__ void __launch_bounds__(kGatherThreads)
    gather_logits_kernel(const float* row, const int32_t* ids, int count, float* out) {
  allow_next();
  wait_for_previous();
  const int i = static_cast<int>(blockIdx.x * kGatherThreads + threadIdx.x);
  if (i < count) out[i] = row[ids[i]];
}

int64_t num_sets_of(int vocab_size) {
  return (vocab_size + kSetSize - 1) / kSetSize;
}
// Of the kernels whose blocks take kSetWarps * kWarpSets sets.
int64_t num_blocks_of(int vocab_size) {
  constexpr int64_t kBlockSets = kSetWarps * kWarpSets;
  return (num_sets_of(vocab_size) + kBlockSets - 1) / kBlockSets;
}

}  // namespace

size_t row_facts_scratch_bytes(int num_rows, int vocab_size) {
  return static_cast<size_t>(num_rows * num_sets_of(vocab_size)) *
             (2 * sizeof(Key) + sizeof(float) + sizeof(int)) +
         static_cast<size_t>(num_rows * num_blocks_of(vocab_size)) * kWeights * sizeof(float);
}

void row_facts(const Stream& stream, const RowFactsJob& job, void* scratch, RowFacts* out) {
  TANDEM_GPU_CHECK(job.draws == nullptr || (job.sequences != nullptr && job.positions != nullptr));
  TANDEM_GPU_CHECK(job.num_rows > 0 && job.vocab_size > 0 && job.vocab_size <= kMaxVocab);
  constexpr size_t kAllBytes = kRowKeys * sizeof(Key);
  static const bool has_room = static_cast<size_t>(max_shared_bytes()) >= kAllBytes + 4096;
  static const size_t shared_bytes = has_room ? kAllBytes : kFewRowKeys * sizeof(Key);
  static const auto kernel = has_room ? row_facts_kernel<kRowKeys> : row_facts_kernel<kFewRowKeys>;
  static const bool allowed = [] {
    TANDEM_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shared_bytes)));
    return true;
  }();
  TANDEM_GPU_CHECK(allowed);
  const int64_t num_sets = num_sets_of(job.vocab_size);
  SetFacts sets;
  sets.keys = static_cast<Key*>(scratch);
  sets.scores = sets.keys + job.num_rows * num_sets;
  sets.sums = reinterpret_cast<float*>(sets.scores + job.num_rows * num_sets);
  sets.ahead = reinterpret_cast<int*>(sets.sums + job.num_rows * num_sets);
  auto* const weights = reinterpret_cast<float*>(sets.ahead + job.num_rows * num_sets);
  const int64_t num_blocks = num_blocks_of(job.vocab_size);
  const dim3 grid(static_cast<unsigned>(num_blocks), static_cast<unsigned>(job.num_rows));
  launch(stream, set_facts_kernel, grid, dim3(32 * kSetWarps), 0, job, sets,
         static_cast<int>(num_sets));
  launch(stream, kernel, dim3(static_cast<unsigned>(job.num_rows)), dim3(kRowThreads), shared_bytes,
         job, sets, static_cast<int>(num_sets), out);
  if (job.draws == nullptr) return;
  launch(stream, set_weights_kernel, grid, dim3(32 * kSetWarps), 0, job, out, weights);
  launch(stream, row_weights_kernel, dim3(static_cast<unsigned>(job.num_rows)), dim3(32), 0,
         weights, static_cast<int>(num_blocks), out);
}

void gather_logits(const Stream& stream, const float* row, const int32_t* ids, int count,
                   float* out) {
  TANDEM_GPU_CHECK(count > 0);
  launch(stream, gather_logits_kernel,
         dim3(static_cast<unsigned>((count + kGatherThreads - 1) / kGatherThreads)),
         dim3(kGatherThreads), 0, row, ids, count, out);
}

}  // namespace tandem::ops::cuda
