#include "ops/cuda/draw.h"

#include "core/random.h"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr unsigned kAll = 0xffffffffU;
constexpr int kTurns = kLikeliest / 32;  // token turn * 32 + lane of a row is this lane's
constexpr int kWarps = 4;                // of a thread block, a row each
constexpr double kInfinity = __builtin_huge_val();

// This lane's tokens of a row, in candidate order. A token that is out has no part in anything.
struct Tokens {
  float logits[kTurns];
  int32_t ids[kTurns];
  bool in[kTurns];

  // Calls each(turn, how many that are in come before) for this lane's tokens that are in.
  template <typename Each>
  __device__ void number(const Each& each) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int before = 0;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      const unsigned those = __ballot_sync(kAll, in[turn]);
      if (in[turn]) each(turn, before + __popc(those & ((1U << lane) - 1U)));
      before += __popc(those);
    }
  }
};

__device__ Tokens load_tokens(const DrawTokens& op, const Likeliest& row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Tokens tokens;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const int place = turn * 32 + lane;
    tokens.logits[turn] = row.logits[place];
    tokens.ids[turn] = row.ids[place];
    tokens.in[turn] = place < row.count;
    for (int i = 0; i < op.num_suppressed; ++i)
      tokens.in[turn] = tokens.in[turn] && op.suppressed[i] != tokens.ids[turn];
  }
  return tokens;
}

// The first token that is in, the same in every lane; id -1: none is.
struct First {
  float logit = 0.0F;
  int32_t id = -1;
};
__device__ First first_of(const Tokens& tokens) {
  First first;
#pragma unroll
  for (int turn = kTurns - 1; turn >= 0; --turn) {
    const unsigned those = __ballot_sync(kAll, tokens.in[turn]);
    if (those == 0) continue;
    const int lane = __ffs(static_cast<int>(those)) - 1;
    first.logit = __shfl_sync(kAll, tokens.logits[turn], lane);
    first.id = __shfl_sync(kAll, tokens.ids[turn], lane);
  }
  return first;
}

__device__ double sum_up_to(double value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const double other = __shfl_up_sync(kAll, value, distance);
    if (lane >= distance) value += other;
  }
  return value;
}

// Leaves those of top-p. Returns whether what comes before a token may or may not be enough.
__device__ bool keep_top_p(Tokens& tokens, float largest, const DrawRules& rules, double slack) {
  double before[kTurns];
  double total = 0.0;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    const double depth = static_cast<double>(tokens.logits[turn]) - static_cast<double>(largest);
    const double weight = tokens.in[turn] ? exp(depth / rules.temperature) : 0.0;
    const double up_to = sum_up_to(weight);
    before[turn] = total + up_to - weight;
    total += __shfl_sync(kAll, up_to, 31);
  }
  const double mass = rules.top_p * total;
  bool is_close = false;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn) {
    // Nothing comes before the first.
    is_close = is_close || (tokens.in[turn] && before[turn] > 0.0 &&
                            fabs(before[turn] - mass) <= slack * total);
    tokens.in[turn] = tokens.in[turn] && before[turn] < mass;
  }
  return __any_sync(kAll, is_close) != 0;
}

// As gumbel_from_bits() in sampling/rng.h.
__device__ double noise_of(const DrawRules& rules, int64_t position, int32_t id) {
  const auto index = static_cast<uint32_t>(id);
  const uint32_t high = core::random_word(rules.seed, position, core::Purpose::kTokenHigh, index);
  const uint32_t low = core::random_word(rules.seed, position, core::Purpose::kTokenLow, index);
  const double v = (static_cast<double>(high) * 0x1p32 + static_cast<double>(low) + 0.5) * 0x1p-64;
  return -log(-log1p(-fmin(v, 1 - 0x1p-53)));
}

// The token with the largest score.
__device__ int32_t win_draw(const Tokens& tokens, float largest, const DrawRules& rules,
                            int64_t position, double slack) {
  double best = -kInfinity;
  double second = -kInfinity;
  int32_t id = -1;
#pragma unroll 1
  for (int turn = 0; turn < kTurns; ++turn) {
    if (!tokens.in[turn]) continue;
    const double depth = static_cast<double>(tokens.logits[turn]) - static_cast<double>(largest);
    const double score = depth / rules.temperature + noise_of(rules, position, tokens.ids[turn]);
    if (score > best) {
      second = best;
      best = score;
      id = tokens.ids[turn];
    } else {
      second = fmax(second, score);
    }
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const double other_best = __shfl_xor_sync(kAll, best, mask);
    const double other_second = __shfl_xor_sync(kAll, second, mask);
    const int32_t other_id = __shfl_xor_sync(kAll, id, mask);
    second = fmax(fmax(second, other_second), fmin(best, other_best));
    if (other_best > best) {
      best = other_best;
      id = other_id;
    }
  }
  return best - second > slack * (1.0 + fabs(best)) ? id : kUndecided;
}

__device__ int32_t choose(const DrawTokens& op, const Likeliest& row, const DrawRules& rules,
                          int64_t position) {
  if (row.status != 1) return row.status == 0 ? -1 : kUndecided;
  Tokens tokens = load_tokens(op, row);
  const First first = first_of(tokens);
  if (first.id < 0 || rules.temperature <= 0.0) return first.id;
  Tokens kept = tokens;
  tokens.number([&](int turn, int before) { kept.in[turn] = before < rules.top_k; });
  if (rules.top_p < 1.0 && keep_top_p(kept, first.logit, rules, op.slack)) return kUndecided;
  const double floor = static_cast<double>(first.logit) + rules.min_p_depth;
#pragma unroll
  for (int turn = 0; turn < kTurns; ++turn)
    kept.in[turn] = kept.in[turn] && static_cast<double>(kept.logits[turn]) >= floor;
  return win_draw(kept, first.logit, rules, position, op.slack);
}

// A warp for each row.
__global__ void __launch_bounds__(kWarps * 32) draw_kernel(const __grid_constant__ DrawTokens op) {
  allow_next();
  const int row = static_cast<int>(blockIdx.x * kWarps + threadIdx.x / 32);
  wait_for_previous();
  if (row >= op.num_rows) return;
  const int sequence = op.sequences[row];
  if (sequence < 0) return;
  const auto& likeliest = *reinterpret_cast<const Likeliest*>(
      static_cast<const uint8_t*>(op.likeliest) + static_cast<size_t>(row) * op.stride);
  const int32_t token =
      choose(op, likeliest, op.rules[sequence], static_cast<int64_t>(op.positions[row]) + 1);
  if (threadIdx.x % 32 == 0) op.tokens[row] = token;
}

}  // namespace

void draw_tokens(const Stream& stream, const DrawTokens& op) {
  TANDEM_GPU_CHECK(op.num_rows > 0 && op.rules != nullptr && op.likeliest != nullptr);
  TANDEM_GPU_CHECK(op.num_suppressed >= 0 && op.num_suppressed < kLikeliest);
  launch(stream, draw_kernel, dim3(static_cast<unsigned>((op.num_rows + kWarps - 1) / kWarps)),
         dim3(kWarps * 32), 0, op);
}

}  // namespace tandem::ops::cuda
