#include "engine/kv_plan.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/block_pool.h"

namespace tandem::engine {
namespace {

constexpr int64_t kSnapshotShare = 4;
constexpr int64_t kSnapshotsPerSequence = 2;
constexpr double kMiB = 1024.0 * 1024.0;

double mib(int64_t bytes) {
  return static_cast<double>(bytes) / kMiB;
}

}  // namespace

base::Result<KvPlan> plan_kv(const KvPlanInput& input) {
  TANDEM_CHECK_EQ(input.ring_len % input.block_size, 0);
  const int64_t length = input.max_model_len == 0 ? input.longest_model_len : input.max_model_len;
  if (length < 2 || length > input.longest_model_len)
    return base::invalid(
        "max_model_len: expected at least 2 (a token of the prompt and one of the answer) and at "
        "most {} (max_position_embeddings of the target), got {}",
        input.longest_model_len, length);
  const int64_t ring_blocks = input.ring_len / input.block_size;
  const int64_t ring_bytes = ring_blocks * input.ring_block_bytes;
  // A model without full layers has pages of no bytes; they still count positions.
  const int64_t page_bytes = std::max<int64_t>(1, input.page_block_bytes);
  const int64_t affordable_pages =
      std::max<int64_t>(0, input.budget_bytes - ring_bytes) / page_bytes;
  KvPlan plan;
  plan.max_model_len = input.max_model_len;
  if (plan.max_model_len == 0)
    plan.max_model_len = std::min(input.longest_model_len, affordable_pages * input.block_size);
  const int64_t pages_of_one = blocks_for(plan.max_model_len, input.block_size);
  if (plan.max_model_len < 2 || pages_of_one > affordable_pages)
    return base::make_error(
        base::ErrorCode::kResourceExhausted,
        fmt::format("KV cache: expected at least {:.1f} MiB for one request of {} tokens, got "
                    "{:.1f} MiB; give it more memory or lower max_model_len",
                    mib(ring_bytes + std::max<int64_t>(1, pages_of_one) * page_bytes),
                    std::max<int64_t>(plan.max_model_len, 2), mib(input.budget_bytes)));
  const int64_t for_rings = input.budget_bytes - pages_of_one * page_bytes;
  plan.max_num_seqs =
      std::min(input.max_num_seqs, ring_bytes == 0 ? input.max_num_seqs : for_rings / ring_bytes);
  plan.num_ring_blocks = plan.max_num_seqs * ring_blocks;
  plan.asked_num_seqs = input.max_num_seqs;
  // Where memory decides how long a request may be, more of it makes that longer.
  plan.bytes_for_asked =
      input.max_num_seqs * ring_bytes + blocks_for(length, input.block_size) * page_bytes;
  plan.budget_bytes = input.budget_bytes;
  const int64_t spare = (for_rings - plan.max_num_seqs * ring_bytes) / kSnapshotShare;
  const int64_t most_snapshots =
      input.ring_block_bytes == 0 ? spare : spare / input.ring_block_bytes;
  plan.num_snapshot_blocks =
      std::min(most_snapshots, kSnapshotsPerSequence * plan.max_num_seqs * input.snapshot_blocks);
  plan.snapshot_bytes = plan.num_snapshot_blocks * input.ring_block_bytes;
  const int64_t fixed_bytes = plan.max_num_seqs * ring_bytes + plan.snapshot_bytes;
  // The scheduler admits only where everyone who runs has a page of growth left, also where no
  // request would take it: without it half of many short requests waited for the others.
  const int64_t growth = plan.max_num_seqs > 1 ? plan.max_num_seqs : 0;
  plan.num_page_blocks = std::min((input.budget_bytes - fixed_bytes) / page_bytes,
                                  plan.max_num_seqs * pages_of_one + growth);
  plan.size_bytes = fixed_bytes + plan.num_page_blocks * input.page_block_bytes;
  return plan;
}

std::string few_sequences_warning(const KvPlan& plan, int64_t asked_bytes) {
  if (plan.max_num_seqs == plan.asked_num_seqs) return {};
  const auto gib = [](int64_t bytes) { return mib(bytes) / 1024; };
  // Up, so that it is enough.
  const std::string advice =
      plan.budget_bytes < asked_bytes
          ? std::string("the card has left no more; a lower --max-model-len may do")
          : fmt::format("--kv-cache-gib {:.2f} would do",
                        std::ceil(100 * gib(plan.bytes_for_asked)) / 100);
  return fmt::format(
      "--max-num-seqs {}: {} run at once, the others wait: a KV cache of {:.2f} GiB has no room "
      "for more beside one request of {} tokens; {}",
      plan.asked_num_seqs, plan.max_num_seqs, gib(plan.budget_bytes), plan.max_model_len, advice);
}

}  // namespace tandem::engine
