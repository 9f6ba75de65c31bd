// The scheduler's promises over random worlds: priorities, cached prefixes, K that changes.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "engine/block_pool.h"
#include "engine/scheduler.h"

namespace tandem::engine {
namespace {

// A world of integers: requests come, grow by what is accepted, and leave. Every plan is checked
// against the promises of scheduler.h, without using its code.
class World {
 public:
  World(uint64_t seed, const SchedulerLimits& world_limits, int max_k, int64_t num_priorities)
      : random_(seed),
        limits_(world_limits),
        max_k_(max_k),
        num_priorities_(num_priorities),
        free_pages_(limits_.num_page_blocks) {}

  void step() {
    while (waiting_.size() < 12 && below(3) == 0) arrive();
    if (running_.empty() && waiting_.empty()) arrive();
    std::vector<SequenceView> running, queue;
    // K is another one in each step, as the engine may choose it.
    for (Item& item : running_) {
      item.view.max_draft_tokens = static_cast<int>(below(max_k_ + 1));
      running.push_back(view(item));
    }
    int64_t unused = num_unused_;
    for (Item& item : waiting_) {
      find_prefix(item, unused);
      queue.push_back(view(item));
    }
    const int64_t seats = limits_.max_num_seqs - static_cast<int64_t>(running_.size());
    const StepPlan plan = plan_step(limits_, {running, queue, free_pages_, seats});
    ASSERT_NO_FATAL_FAILURE(check(plan));
    apply(plan);
    ASSERT_NO_FATAL_FAILURE(check_world());
    if (!running_.empty() && below(40) == 0) cancel();
  }
  int64_t num_finished() const { return num_finished_; }
  int64_t num_preempted() const { return num_preempted_; }

 private:
  struct Item {
    SequenceView view;
    uint64_t arrival = 0;
    int64_t last_length = 0;  // tokens at its end
    int64_t steps_as_first = 0;
  };

  int64_t below(int64_t n) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }

  SequenceView view(const Item& item) const {
    SequenceView v = item.view;
    v.max_draft_tokens = static_cast<int>(
        std::min<int64_t>(v.max_draft_tokens, item.last_length - v.num_tokens - 1));
    return v;
  }

  // Pages of those that left, which happen to hold what this one needs.
  void find_prefix(Item& item, int64_t& unused) {
    const int64_t most = std::min(unused, (item.view.num_tokens - 1) / limits_.block_size);
    item.view.num_pages = item.view.num_unused_pages =
        most > 0 && below(3) == 0 ? below(most + 1) : 0;
    item.view.num_computed = item.view.num_pages * limits_.block_size;
    unused -= item.view.num_pages;
  }

  static bool ranks_before(const Item& a, const Item& b) {
    return a.view.priority != b.view.priority ? a.view.priority < b.view.priority
                                              : a.arrival < b.arrival;
  }
  template <class Items>
  static void insert(Items& items, const Item& item) {
    items.insert(std::upper_bound(items.begin(), items.end(), item, ranks_before), item);
  }

  void arrive() {
    Item item;
    const int64_t most = limits_.num_page_blocks * limits_.block_size + 1;
    item.view.num_tokens = 1 + below(most - 1);
    if (below(2) == 0) item.view.num_tokens = 1 + below(std::min<int64_t>(10, most - 1));
    item.last_length = item.view.num_tokens + 1 + below(most - item.view.num_tokens);
    item.view.max_draft_tokens = static_cast<int>(below(max_k_ + 1));
    item.arrival = item.view.id = next_id_++;
    item.view.priority = below(num_priorities_);
    insert(waiting_, item);
  }

  void check(const StepPlan& plan) {
    ASSERT_FALSE(plan.sequences.empty());
    int64_t rows = 0, new_pages = 0, freed = 0, taken = 0;
    std::vector<uint64_t> seen(plan.preempted);
    check_preempted(plan);
    for (size_t i = 0; i < plan.preempted.size(); ++i) {
      const Item& newest = running_[running_.size() - 1 - i];
      ASSERT_EQ(plan.preempted[i], newest.view.id);
      freed += newest.view.num_pages;
    }
    size_t num_admitted = 0;
    for (const PlannedSequence& planned : plan.sequences) {
      const Item& item = planned.admitted ? waiting_.at(num_admitted++) : find(planned.id);
      const SequenceView v = view(item);
      ASSERT_EQ(v.id, planned.id);  // admitted in order
      seen.push_back(planned.id);
      ASSERT_GE(planned.num_tokens, 1);
      ASSERT_LE(planned.num_tokens, v.num_pending());
      ASSERT_EQ(planned.num_computed, v.num_computed);
      if (planned.admitted) taken += v.num_unused_pages;
      ASSERT_EQ(planned.samples, planned.num_tokens == v.num_pending());
      ASSERT_GE(planned.num_draft_tokens, 0);
      ASSERT_LE(planned.num_draft_tokens, v.has_state ? v.max_draft_tokens : 0);
      if (!v.has_state) {
        ASSERT_LE(planned.num_tokens, limits_.max_chunk_tokens);
      }
      const int64_t last = v.num_computed + planned.num_rows();
      ASSERT_LE(last, (v.num_pages + planned.num_new_pages) * limits_.block_size);
      rows += planned.num_rows();
      new_pages += planned.num_new_pages;
    }
    ASSERT_EQ(rows, plan.num_rows);
    ASSERT_LE(rows, limits_.max_num_batched_tokens);
    ASSERT_LE(new_pages + taken, free_pages_ + freed);
    std::sort(seen.begin(), seen.end());
    ASSERT_EQ(std::adjacent_find(seen.begin(), seen.end()), seen.end());
    // Everyone who decodes and stays has rows; the first of all always has.
    const auto has_rows = [&](const Item& item) {
      return std::any_of(plan.sequences.begin(), plan.sequences.end(),
                         [&](const auto& p) { return p.id == item.view.id; });
    };
    for (size_t i = 0; i < running_.size() - plan.preempted.size(); ++i)
      if (running_[i].view.has_state) {
        ASSERT_TRUE(has_rows(running_[i]));
      }
    const bool waits = running_.empty() ||
                       (!waiting_.empty() && waiting_[0].view.priority < running_[0].view.priority);
    ASSERT_TRUE(has_rows(waits ? waiting_[0] : running_[0]));
  }

  // Who goes either leaves pages to known tokens of those before it, or its place to the first in
  // the queue, of higher priority; and whoever begins in the same step ranks before it.
  void check_preempted(const StepPlan& plan) {
    if (plan.preempted.empty()) return;
    ASSERT_LE(plan.preempted.size(), running_.size());
    int64_t needed = 0;
    for (const Item& item : running_)
      needed += std::max<int64_t>(
          0, blocks_for(item.view.num_tokens, limits_.block_size) - item.view.num_pages);
    const size_t num_kept = running_.size() - plan.preempted.size();
    const int64_t best = running_[num_kept].view.priority;
    if (needed <= free_pages_) {
      ASSERT_FALSE(waiting_.empty());
      ASSERT_LT(waiting_[0].view.priority, best);
    }
    size_t num_admitted = 0;
    for (const PlannedSequence& planned : plan.sequences)
      if (planned.admitted) {
        ASSERT_LT(waiting_[num_admitted++].view.priority, best);
      }
    if (num_kept == 0) {
      ASSERT_GT(num_admitted, 0U);
    }
  }

  Item& find(uint64_t id) {
    return *std::find_if(running_.begin(), running_.end(),
                         [id](const Item& item) { return item.view.id == id; });
  }

  void apply(const StepPlan& plan) {
    for (size_t i = 0; i < plan.preempted.size(); ++i) {
      Item item = running_.back();
      running_.pop_back();
      free_pages_ += item.view.num_pages;
      item.view.num_pages = item.view.num_computed = 0;
      item.view.has_state = false;
      item.steps_as_first = 0;
      insert(waiting_, item);
      ++num_preempted_;
    }
    for (const PlannedSequence& planned : plan.sequences) {
      if (planned.admitted) {
        Item item = *std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Item& i) { return i.view.id == planned.id; });
        std::erase_if(waiting_, [&](const Item& i) { return i.view.id == planned.id; });
        free_pages_ -= item.view.num_unused_pages;
        num_unused_ -= item.view.num_unused_pages;
        item.view.num_unused_pages = 0;
        insert(running_, item);
      }
      Item& item = find(planned.id);
      item.view.num_pages += planned.num_new_pages;
      free_pages_ -= planned.num_new_pages;
      // Pages that are not empty give up what they held.
      num_unused_ = std::min(num_unused_, free_pages_);
      item.view.num_computed += planned.num_tokens;
      if (!planned.samples) continue;
      const int64_t accepted = below(planned.num_draft_tokens + 1);
      item.view.num_computed += accepted;
      item.view.num_tokens += accepted + 1;
      item.view.has_state = true;
    }
    std::erase_if(running_, [&](const Item& item) {
      const bool done = item.view.num_tokens >= item.last_length;
      if (done) leave(item);
      return done;
    });
  }

  void leave(const Item& item) {
    free_pages_ += item.view.num_pages;
    num_unused_ += item.view.num_pages;
    ++num_finished_;
  }

  void cancel() {
    const auto at = running_.begin() + below(static_cast<int64_t>(running_.size()));
    leave(*at);
    running_.erase(at);
  }

  void check_world() {
    int64_t held = 0;
    for (const Item& item : running_) held += item.view.num_pages;
    ASSERT_EQ(held + free_pages_, limits_.num_page_blocks);
    ASSERT_LE(static_cast<int64_t>(running_.size()), limits_.max_num_seqs);
    ASSERT_TRUE(std::is_sorted(running_.begin(), running_.end(), ranks_before));
    for (const Item& waits : waiting_)
      for (const Item& runs : running_)
        if (waits.view.priority == runs.view.priority) {
          ASSERT_GT(waits.arrival, runs.arrival);
        }
    if (running_.empty()) return;
    // The first has rows in every step, so it can be the first for no longer than its rows, and as
    // many again for one recomputation.
    Item& first = running_.front();
    ASSERT_LE(++first.steps_as_first, 2 * first.last_length);
  }

  std::mt19937_64 random_;
  SchedulerLimits limits_;
  int max_k_;
  int64_t num_priorities_;
  int64_t free_pages_;
  int64_t num_unused_ = 0;  // of these: with known content
  std::vector<Item> running_;
  std::deque<Item> waiting_;
  uint64_t next_id_ = 0;
  int64_t num_finished_ = 0;
  int64_t num_preempted_ = 0;
};

TEST(SchedulerProperty, KeepsItsPromisesOverRandomWorlds) {
  int64_t num_finished = 0, num_preempted = 0;
  for (uint64_t seed = 0; seed < 1000; ++seed) {
    std::mt19937_64 random(seed);
    const auto pick = [&](int64_t low, int64_t high) {
      return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
    };
    SchedulerLimits world_limits;
    world_limits.max_num_seqs = pick(1, 9);
    world_limits.max_num_batched_tokens = world_limits.max_num_seqs + pick(0, 40);
    world_limits.max_chunk_tokens = pick(1, 50);
    world_limits.block_size = pick(1, 6);
    world_limits.num_page_blocks = pick(1, 30);
    World world(seed, world_limits, static_cast<int>(pick(0, 8)), pick(1, 4));
    for (int step = 0; step < 1000; ++step) {
      world.step();
      if (HasFatalFailure()) FAIL() << "seed " << seed << " step " << step;
    }
    num_finished += world.num_finished();
    num_preempted += world.num_preempted();
  }
  EXPECT_GT(num_finished, 50000);
  EXPECT_GT(num_preempted, 20000);
}

}  // namespace
}  // namespace tandem::engine
