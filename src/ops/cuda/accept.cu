#include "ops/cuda/accept.h"

#include "core/random.h"
#include "ops/cuda/accept.cuh"
#include "ops/cuda/clock.cuh"
#include "ops/cuda/draw.h"
#include "ops/cuda/launch.cuh"

namespace tandem::ops::cuda {
namespace {

constexpr int kDraftThreads = 64;
constexpr int kAcceptThreads = 256;
constexpr unsigned kAll = 0xffffffffU;

__global__ void next_draft_token_kernel(const DraftToken op, const int32_t* chosen) {
  allow_next();
  wait_for_previous();
  const int entry = static_cast<int>(blockIdx.x * kDraftThreads + threadIdx.x);
  if (entry < op.num_entries) take_draft(op, entry, draft_place(op, entry), chosen[entry]);
}

// What lane i knows of an entry: row i chose `chosen`, and draft i, if there is one, holds or not.
struct Verdict {
  int chosen = 0;
  int draft = 0;
  bool holds = false;
};
__device__ Verdict judge(const AcceptDrafts& op, int first_row, int num_drafts, int newest,
                         int lane) {
  Verdict verdict;
  if (lane <= num_drafts) verdict.chosen = op.chosen[first_row + lane];
  if (lane >= num_drafts) return verdict;
  verdict.draft = op.tokens[first_row + 1 + lane];
  verdict.holds = verdict.draft == verdict.chosen;
  if (op.synthetic.enabled)
    verdict.holds =
        core::uniform(op.synthetic.seed, static_cast<int64_t>(newest) + 1 + lane,
                      core::Purpose::kAccept,
                      static_cast<uint32_t>(op.tokens[first_row])) < op.synthetic.conditional[lane];
  verdict.holds = verdict.holds && verdict.chosen >= 0;
  return verdict;
}

// `accepted` drafts and `token` came out of a round whose newest token was at position `newest`.
__device__ void begin_next(const NextRound& next, int entry, int first_row, int newest,
                           int accepted, int token, int lane) {
  const int last_key = newest + accepted;  // L - 2
  if (lane <= next.max_drafts) {
    if (next.positions != nullptr) next.positions[first_row + lane] = last_key + 1 + lane;
    if (next.last_keys != nullptr) next.last_keys[first_row + lane] = last_key + 1 + lane;
  }
  if (lane != 0) return;
  if (next.tokens != nullptr) next.tokens[first_row] = token;
  if (next.assistant_tokens != nullptr) next.assistant_tokens[entry] = token;
  if (next.assistant_positions != nullptr)
    next.assistant_positions[entry] = last_key + next.draft_position_offset;
  if (next.assistant_last_keys != nullptr) next.assistant_last_keys[entry] = last_key;
}

// By a lane that knows all of `result` to be written.
__device__ void finish(RoundResult& result) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(&result.finished), "l"(nanoseconds())
               : "memory");
}

// One warp; returns the row whose hidden state the entry keeps, -1: none.
__device__ int accept(const AcceptDrafts& op, int entry, int lane) {
  const int first_row = op.first_rows[entry];
  const int num_drafts = op.num_drafts == nullptr ? 0 : op.num_drafts[entry];
  const int newest = op.positions[first_row];
  const Verdict verdict = judge(op, first_row, num_drafts, newest, lane);
  // Bits beyond the drafts are zero: the first zero is at most at num_drafts.
  const int accepted = __ffs(static_cast<int>(~__ballot_sync(kAll, verdict.holds))) - 1;
  const int own = __shfl_sync(kAll, verdict.chosen, accepted);
  const bool undecided = own == kUndecided;
  const bool failed = own < 0 && !undecided;
  RoundResult& result = op.results[entry];
  if (lane <= kMaxDrafts) {
    const int last = lane == accepted && own >= 0 ? own : 0;
    result.tokens[lane] = lane < accepted ? verdict.draft : last;
  }
  if (lane == 0) {
    result.num_tokens = accepted + (own < 0 ? 0 : 1);
    // The last token that is known counts as the target's own.
    result.num_accepted = undecided && accepted > 0 ? accepted - 1 : accepted;
    result.num_drafted = undecided ? result.num_accepted : num_drafts;
    result.failed = failed ? 1 : 0;
    result.undecided = undecided ? 1 : 0;
  }
  __syncwarp();  // every lane has read what the next round overwrites, and written its token
  if (lane == 0) finish(result);
  if (own >= 0) begin_next(op.next, entry, first_row, newest, accepted, own, lane);
  if (undecided) return accepted == 0 ? -1 : first_row + accepted - 1;
  return first_row + accepted;
}

// Row `row` of hidden_rows becomes row `slot` of states. The whole block.
__device__ void copy_state(const uint16_t* hidden_rows, int row, uint16_t* states, int slot,
                           int hidden) {
  const auto* from =
      reinterpret_cast<const uint4*>(hidden_rows + static_cast<int64_t>(row) * hidden);
  auto* to = reinterpret_cast<uint4*>(states + static_cast<int64_t>(slot) * hidden);
  for (int i = static_cast<int>(threadIdx.x); i < hidden / 8; i += kAcceptThreads) to[i] = from[i];
}

__global__ void __launch_bounds__(kAcceptThreads)
    accept_kernel(const __grid_constant__ AcceptDrafts op) {
  allow_next();
  __shared__ int kept_row;
  const int entry = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x);
  wait_for_previous();
  const int slot = op.slots[entry];
  if (slot < 0) {
    if (thread == 0) {
      op.results[entry] = RoundResult{};
      finish(op.results[entry]);
    }
    return;
  }
  if (thread < 32) {
    const int row = accept(op, entry, thread);
    if (thread == 0) kept_row = row;
  }
  __syncthreads();
  if (kept_row >= 0) copy_state(op.hidden_rows, kept_row, op.states, slot, op.hidden);
}

__global__ void __launch_bounds__(kAcceptThreads) keep_states_kernel(const KeepStates op) {
  allow_next();
  wait_for_previous();
  const KeptState kept = op.kept[blockIdx.x];
  copy_state(op.hidden_rows, kept.row, op.states, kept.slot, op.hidden);
}

}  // namespace

void next_draft_token(const Stream& stream, const DraftToken& op, const int32_t* chosen) {
  TANDEM_GPU_CHECK(op.num_entries > 0 && op.step >= 0 && op.step < kMaxDrafts);
  const auto blocks = static_cast<unsigned>((op.num_entries + kDraftThreads - 1) / kDraftThreads);
  launch(stream, next_draft_token_kernel, dim3(blocks), dim3(kDraftThreads), 0, op, chosen);
}

void accept_drafts(const Stream& stream, const AcceptDrafts& op) {
  TANDEM_GPU_CHECK(op.num_entries > 0);
  TANDEM_GPU_CHECK(op.hidden > 0 && op.hidden % 8 == 0);
  TANDEM_GPU_CHECK(op.next.max_drafts >= 0 && op.next.max_drafts <= kMaxDrafts);
  launch(stream, accept_kernel, dim3(static_cast<unsigned>(op.num_entries)), dim3(kAcceptThreads),
         0, op);
}

void keep_states(const Stream& stream, const KeepStates& op) {
  TANDEM_GPU_CHECK(op.count > 0);
  TANDEM_GPU_CHECK(op.hidden > 0 && op.hidden % 8 == 0);
  launch(stream, keep_states_kernel, dim3(static_cast<unsigned>(op.count)), dim3(kAcceptThreads), 0,
         op);
}

}  // namespace tandem::ops::cuda
