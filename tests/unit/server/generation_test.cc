// A reply whose client does not read: what waits for it is bounded.
#include "server/generation.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/unit/server/demo_model.h"

namespace tandem::server {
namespace {

constexpr int64_t kTokens = 1000;  // of each choice, one a step

speculation::SpecResult run_step(const speculation::SpecBatch& batch) {
  speculation::SpecResult result;
  for (const speculation::SpecSequence& sequence : batch.sequences) {
    result.sequences.emplace_back();
    if (!sequence.samples) continue;
    result.sequences.back().tokens.push_back({.token = 300, .logprob = 0, .top = {}});
    sequence.sampler->commit(300);
  }
  return result;
}

// All that a stream of `n` choices sends when nobody looks before it is over.
ReplyPart late_reader(int64_t n) {
  engine::EngineOptions options;
  options.limits = {.max_num_seqs = n,
                    .max_num_batched_tokens = n,
                    .max_chunk_tokens = n,
                    .block_size = 4,
                    .num_page_blocks = n * 256};
  options.ring_len = 8;
  options.num_ring_blocks = 2 * n;
  options.max_model_len = 1024;
  options.vocab_size = test::demo_model().vocab_size;
  engine::Engine engine(options, run_step);
  EngineThread thread(engine, {.max_requests = n, .stuck_seconds = 60});
  Metrics metrics("demo");
  GenerationJob job;
  job.format = make_completion_format(test::demo_model().tokenizer, {"cmpl-1", 5, "demo"}, {}, {});
  job.prompts = {{2}};
  job.params.stream = true;
  job.params.n = n;
  job.params.max_tokens = kTokens;
  job.params.sampling.temperature = 0;
  std::vector<Admission> admissions;
  for (int64_t i = 0; i < n; ++i) admissions.push_back(*thread.admit(1));
  Generation generation({test::demo_model(), thread, metrics}, std::move(job),
                        std::move(admissions));
  generation.start([] {});
  for (int i = 0; i < 6000 && !thread.idle(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(thread.idle());
  return generation.poll();
}

TEST(Generation, AStreamThatNobodyReadsIsCut) {
  const ReplyPart some = late_reader(4);
  EXPECT_TRUE(some.done);
  EXPECT_TRUE(some.data.ends_with("data: [DONE]\n\n"));
  const ReplyPart many = late_reader(17);
  EXPECT_TRUE(many.done);
  EXPECT_NE(many.data.find("reads too slowly"), std::string::npos) << many.data.substr(0, 300);
  EXPECT_LT(many.data.size(), 100'000U);
}

}  // namespace
}  // namespace tandem::server
