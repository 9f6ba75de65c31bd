#include "server/engine_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace tandem::server {
namespace {

using namespace std::chrono_literals;

// A model that answers 7 again and again, and can be held in the middle of a step.
class Script {
 public:
  speculation::SpecResult run(const speculation::SpecBatch& batch) {
    {
      std::unique_lock lock(mutex_);
      ++num_steps_;
      stands_ = held_;
      changed_.notify_all();
      changed_.wait(lock, [this] { return !held_; });
      stands_ = false;
      if (num_steps_ == failing_step_) throw std::runtime_error("the card is gone");
    }
    if (meanwhile) meanwhile();
    speculation::SpecResult result;
    for (const speculation::SpecSequence& sequence : batch.sequences) {
      result.sequences.emplace_back();
      if (!sequence.samples) continue;
      result.sequences.back().tokens.push_back({.token = 7, .logprob = 0, .top = {}});
      sequence.sampler->commit(7);
    }
    return result;
  }

  void hold(bool held) {
    const std::lock_guard lock(mutex_);
    held_ = held;
    changed_.notify_all();
  }
  void fail_at(int64_t step) {
    const std::lock_guard lock(mutex_);
    failing_step_ = step;
  }
  // Until a step is being held.
  bool wait_until_it_stands() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [this] { return stands_; });
  }
  std::function<void()> meanwhile;

  void wait_for_step() {
    std::unique_lock lock(mutex_);
    const int64_t before = num_steps_;
    changed_.wait_for(lock, 20s, [&] { return num_steps_ > before || (held_ && num_steps_ > 0); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t num_steps_ = 0;
  int64_t failing_step_ = -1;
  bool held_ = false;
  bool stands_ = false;
};

// What came for one request.
class Events {
 public:
  EventSink sink() {
    return [this](base::Result<engine::TokenEvent> event) {
      const std::lock_guard lock(mutex_);
      if (!event)
        refused_ = event.error().message;
      else {
        num_tokens_ += event->tokens.size();
        if (event->finish) reason_ = event->finish->reason;
      }
      changed_.notify_all();
    };
  }
  // True once the last event has come.
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [this] { return reason_ || !refused_.empty(); });
  }
  bool wait_for_tokens(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return num_tokens_ >= count; });
  }
  std::optional<engine::FinishReason> reason() {
    const std::lock_guard lock(mutex_);
    return reason_;
  }
  size_t num_tokens() {
    const std::lock_guard lock(mutex_);
    return num_tokens_;
  }
  std::string refused() {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<engine::FinishReason> reason_;
  std::string refused_;
  size_t num_tokens_ = 0;
};

engine::EngineOptions engine_options() {
  engine::EngineOptions options;
  options.limits = {.max_num_seqs = 2,
                    .max_num_batched_tokens = 16,
                    .max_chunk_tokens = 16,
                    .block_size = 4,
                    .num_page_blocks = 4096};
  options.ring_len = 8;
  options.num_ring_blocks = 4;
  options.max_model_len = 10000;
  options.vocab_size = 40;
  return options;
}

class EngineThreadTest : public testing::Test {
 protected:
  std::shared_ptr<Admission> place() {
    auto admission = thread_.admit(1);
    return admission ? std::make_shared<Admission>(std::move(*admission)) : nullptr;
  }
  uint64_t submit(Events& events, int64_t max_tokens) {
    return thread_.submit({.id = 0,
                           .prompt_ids = {1, 2, 3},
                           .sampling = {.temperature = 0,
                                        .logit_bias = {},
                                        .banned_token_ids = {},
                                        .allowed_token_ids = {},
                                        .seed = {},
                                        .stop_token_ids = {}},
                           .max_tokens = max_tokens,
                           .num_draft_tokens = {}},
                          place(), events.sink());
  }
  bool becomes_idle() {
    for (int i = 0; i < 2000 && !thread_.idle(); ++i) std::this_thread::sleep_for(10ms);
    return thread_.idle();
  }
  bool becomes_healthy() {
    for (int i = 0; i < 2000 && !thread_.healthy(); ++i) std::this_thread::sleep_for(10ms);
    return thread_.healthy();
  }

  Script script_;
  engine::Engine engine_{engine_options(),
                         [this](const auto& batch) { return script_.run(batch); }};
  std::atomic<int64_t> step_tokens_{0};
  EngineThread thread_{
      engine_, {.max_requests = 3, .stuck_seconds = 0.05, .on_step = [this](int64_t num_tokens) {
                  step_tokens_ += num_tokens;
                }}};
};

TEST_F(EngineThreadTest, AnswersAreCompleteAndPlacesComeBack) {
  Events first, second;
  submit(first, 5);
  submit(second, 9);
  ASSERT_TRUE(first.wait() && second.wait());
  EXPECT_EQ(first.num_tokens(), 5U);
  EXPECT_EQ(second.num_tokens(), 9U);
  EXPECT_EQ(second.reason(), engine::FinishReason::kLength);
  EXPECT_TRUE(becomes_idle());
  EXPECT_EQ(thread_.stats().num_held_pages, 0);
  EXPECT_EQ(step_tokens_.load(), 3 + 5 + 3 + 9);  // prompts and output
}

TEST_F(EngineThreadTest, NoMoreRequestsThanPlaces) {
  auto first = place(), second = place(), third = place();
  ASSERT_TRUE(first && second && third);
  EXPECT_EQ(place(), nullptr);
  EXPECT_FALSE(thread_.admit(1).has_value());
  second.reset();
  EXPECT_FALSE(thread_.admit(2).has_value());
  EXPECT_TRUE(thread_.admit(1).has_value());
}

TEST_F(EngineThreadTest, ManyThreadsNeverExceedThePlaces) {
  std::atomic<int64_t> held{0}, most{0}, got{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        auto admission = thread_.admit(1);
        if (!admission) continue;
        ++got;
        const int64_t now = ++held;
        int64_t seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        --held;
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most.load(), 3);
  EXPECT_GT(got.load(), 0);
  EXPECT_TRUE(thread_.idle());
}

TEST_F(EngineThreadTest, CancelEndsARequestBeforeTheNextStep) {
  Events events;
  const uint64_t id = submit(events, 9000);
  script_.wait_for_step();
  thread_.cancel(id);
  ASSERT_TRUE(events.wait());
  EXPECT_EQ(events.reason(), engine::FinishReason::kCancelled);
  EXPECT_LT(events.num_tokens(), 9000U);
  EXPECT_TRUE(becomes_idle());
  thread_.cancel(id);  // nothing happens
  Events next;
  submit(next, 1);
  EXPECT_TRUE(next.wait());
}

TEST_F(EngineThreadTest, RefusalsOfTheEngineReachTheSink) {
  Events events;
  submit(events, 1'000'000);
  ASSERT_TRUE(events.wait());
  EXPECT_NE(events.refused().find("max_tokens"), std::string::npos);
  EXPECT_TRUE(becomes_idle());
}

TEST_F(EngineThreadTest, AStuckStepIsNoticed) {
  EXPECT_TRUE(thread_.healthy());
  script_.hold(true);
  Events events;
  submit(events, 3);
  script_.wait_for_step();
  std::this_thread::sleep_for(100ms);
  EXPECT_FALSE(thread_.healthy());
  script_.hold(false);
  ASSERT_TRUE(events.wait());
  EXPECT_TRUE(becomes_idle());
  EXPECT_TRUE(becomes_healthy());
}

TEST_F(EngineThreadTest, AStepThatFailsEndsEveryRequestAndAllLaterOnes) {
  script_.fail_at(4);
  Events first, second, later;
  submit(first, 100);
  submit(second, 100);
  ASSERT_TRUE(first.wait() && second.wait());
  for (Events* events : {&first, &second}) {
    EXPECT_NE(events->refused().find("device failed"), std::string::npos) << events->refused();
    EXPECT_EQ(events->refused().find("card"), std::string::npos) << "the cause is for the log";
    EXPECT_LT(events->num_tokens(), 5U);
  }
  EXPECT_TRUE(becomes_idle());
  EXPECT_TRUE(thread_.failed());
  EXPECT_FALSE(thread_.healthy());
  submit(later, 1);
  ASSERT_TRUE(later.wait());
  EXPECT_NE(later.refused().find("device failed"), std::string::npos);
  EXPECT_TRUE(becomes_idle());
  thread_.cancel(1);
  thread_.cancel_all();
}

TEST_F(EngineThreadTest, SoIsASinkThatDoesNotReturn) {
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  engine::EngineRequest request;
  request.prompt_ids = {1, 2};
  request.max_tokens = 1;
  thread_.submit(std::move(request), place(), [released](const auto&) { released.wait(); });
  for (int i = 0; i < 2000 && thread_.healthy(); ++i) std::this_thread::sleep_for(10ms);
  EXPECT_FALSE(thread_.healthy());
  release.set_value();
  EXPECT_TRUE(becomes_healthy());
}

// Events wait for the next step to be under way, and for nothing else.
class MeanwhileTest : public testing::Test {
 protected:
  void submit(Events& events, int64_t max_tokens) {
    engine::EngineRequest request;
    request.prompt_ids = {1};
    request.sampling.temperature = 0;
    request.max_tokens = max_tokens;
    id_ = thread_.submit(std::move(request),
                         std::make_shared<Admission>(std::move(*thread_.admit(1))), events.sink());
  }

  Script script_;
  engine::Engine engine_{engine_options(),
                         [this](const auto& batch) { return script_.run(batch); }};
  EngineThread thread_{engine_,
                       {.max_requests = 8, .stuck_seconds = 10, .set_meanwhile = [this](auto work) {
                          script_.meanwhile = std::move(work);
                        }}};
  uint64_t id_ = 0;
};

TEST_F(MeanwhileTest, AnswersAreComplete) {
  Events first, second;
  submit(first, 5);
  submit(second, 9);
  ASSERT_TRUE(first.wait() && second.wait());
  EXPECT_EQ(first.num_tokens(), 5U);
  EXPECT_EQ(second.num_tokens(), 9U);
}

TEST_F(MeanwhileTest, TokensComeWithTheNextStepAndBeforeACancel) {
  Events events;
  submit(events, 9000);
  ASSERT_TRUE(events.wait_for_tokens(1));
  script_.hold(true);
  ASSERT_TRUE(script_.wait_until_it_stands());
  const size_t held = events.num_tokens();
  thread_.cancel(id_);
  std::this_thread::sleep_for(20ms);
  EXPECT_EQ(events.num_tokens(), held) << "the device was busy with the next step by then";
  script_.hold(false);
  ASSERT_TRUE(events.wait());
  EXPECT_EQ(events.reason(), engine::FinishReason::kCancelled);
  // Those of the step before, and of the one that was held.
  EXPECT_EQ(events.num_tokens(), held + 2);
}

TEST_F(MeanwhileTest, TokensBeforeAFailureAreNotLost) {
  script_.fail_at(4);
  Events events;
  submit(events, 100);
  ASSERT_TRUE(events.wait());
  EXPECT_NE(events.refused().find("device failed"), std::string::npos);
  EXPECT_EQ(events.num_tokens(), 3U);
}

TEST(EngineThread, TheEndCancelsWhatIsLeft) {
  Script script;
  engine::Engine engine(engine_options(), [&](const auto& batch) { return script.run(batch); });
  Events running, waiting;
  {
    EngineThread thread(engine, {.max_requests = 8, .stuck_seconds = 10});
    for (Events* events : {&running, &waiting})
      thread.submit(
          {.id = 0, .prompt_ids = {1}, .sampling = {}, .max_tokens = 9000, .num_draft_tokens = {}},
          std::make_shared<Admission>(std::move(*thread.admit(1))), events->sink());
    script.wait_for_step();
  }
  EXPECT_EQ(running.reason(), engine::FinishReason::kCancelled);
  EXPECT_EQ(waiting.reason(), engine::FinishReason::kCancelled);
  EXPECT_FALSE(engine.has_work());
}

}  // namespace
}  // namespace tandem::server
