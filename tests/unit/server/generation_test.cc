// A reply whose client does not read: what waits for it is bounded.
#include "server/generation.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
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

engine::EngineOptions engine_options(int64_t n) {
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
  return options;
}

// All that a reply sends when nobody looks before it is over.
ReplyPart late_reader(const engine::StepFunction& run_step, GenerationParams params) {
  const int64_t n = params.n;
  engine::Engine engine(engine_options(n), run_step);
  Metrics metrics("demo");  // the thread's last events are counted
  EngineThread thread(engine, {.max_requests = n, .stuck_seconds = 60});
  GenerationJob job;
  job.format = make_completion_format(test::demo_model().tokenizer, {"cmpl-1", 5, "demo"}, {}, {});
  job.prompts = {{2}};
  job.params = std::move(params);
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
  EXPECT_TRUE(thread.stop(60));  // places are free before the last event is handed out
  return generation.poll();
}

// The same of a stream of `n` choices.
ReplyPart late_reader(int64_t n, int64_t interval = 1) {
  GenerationParams params;
  params.stream = true;
  params.n = n;
  params.stream_interval = interval;
  return late_reader(run_step, std::move(params));
}

std::string demo_text(size_t count) {
  return test::demo_model().tokenizer.decode(std::vector<int32_t>(count, 300), true);
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

// The contents of the chunks of a stream.
std::vector<std::string> chunks_of(const std::string& stream) {
  std::vector<std::string> texts;
  constexpr std::string_view kData = "data: {";
  for (size_t at = stream.find(kData); at != std::string::npos; at = stream.find(kData, at + 1)) {
    const size_t begin = at + kData.size() - 1;
    const auto chunk = nlohmann::json::parse(stream.substr(begin, stream.find("\n\n", at) - begin));
    for (const auto& choice : chunk["choices"]) texts.push_back(choice["text"]);
  }
  return texts;
}

TEST(Generation, ChunksHoldAsManyTokensAsAskedFor) {
  const std::string word = demo_text(1);
  const std::vector<std::string> one = chunks_of(late_reader(1).data);
  const std::vector<std::string> hundred = chunks_of(late_reader(1, 100).data);
  EXPECT_EQ(one.size(), 1000U);
  // The first token at once, then hundreds, and what is left.
  ASSERT_EQ(hundred.size(), 11U);
  EXPECT_EQ(hundred[0], word);
  EXPECT_EQ(hundred[1], demo_text(100));
  EXPECT_EQ(hundred[10], demo_text(99));
  std::string all, parts;
  for (const std::string& text : one) all += text;
  for (const std::string& text : hundred) parts += text;
  EXPECT_EQ(parts, all);
}

// The engine is in the middle of a step when the client hears of the end.
TEST(Generation, AStopStringGivesThePlaceBackAtOnce) {
  std::atomic<int> num_steps = 0;
  std::atomic<bool> over = false;
  const auto second_hangs = [&](const speculation::SpecBatch& batch) {
    if (++num_steps == 2)
      while (!over) std::this_thread::yield();
    return run_step(batch);
  };
  engine::Engine engine(engine_options(1), second_hangs);
  Metrics metrics("demo");
  EngineThread thread(engine, {.max_requests = 1, .stuck_seconds = 60});
  GenerationJob job;
  job.format = make_completion_format(test::demo_model().tokenizer, {"cmpl-1", 5, "demo"}, {}, {});
  job.prompts = {{2}};
  job.params.max_tokens = kTokens;
  job.params.sampling.temperature = 0;
  job.params.stop = {demo_text(1)};
  std::vector<Admission> admissions;
  admissions.push_back(*thread.admit(1));
  Generation generation({test::demo_model(), thread, metrics}, std::move(job),
                        std::move(admissions));
  generation.start([] {});
  while (num_steps < 2) std::this_thread::yield();
  EXPECT_FALSE(thread.admit(1).has_value());
  EXPECT_TRUE(generation.poll().done);
  EXPECT_TRUE(thread.admit(1).has_value());
  over = true;
}

// The token behind a prompt that is all that was asked for is not shown, whatever it is.
TEST(Generation, APromptAloneEndsForItsLength) {
  GenerationParams params;
  params.only_prompt = true;
  params.sampling.stop_token_ids = {300};
  const auto reply = nlohmann::json::parse(late_reader(run_step, std::move(params)).data);
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "length");
  EXPECT_TRUE(reply["choices"][0]["stop_reason"].is_null());
  EXPECT_EQ(reply["usage"]["completion_tokens"], 0);
}

// Where no token may be chosen, the one at fault is who has left none.
TEST(Generation, NothingToChooseFromIsTheRequestsFaultWhereItMayBe) {
  const auto no_token = [](const speculation::SpecBatch& batch) {
    speculation::SpecResult result;
    result.sequences.resize(batch.sequences.size());
    for (auto& sequence : result.sequences) sequence.failed = true;
    return result;
  };
  const auto status = [&](const std::function<void(GenerationParams&)>& change) {
    GenerationParams params;
    change(params);
    return late_reader(no_token, std::move(params)).head->status;
  };
  EXPECT_EQ(status([](GenerationParams&) {}), 500);
  EXPECT_EQ(status([](GenerationParams& p) { p.sampling.min_tokens = 2; }), 500);
  EXPECT_EQ(status([](GenerationParams& p) { p.sampling.allowed_token_ids = {5}; }), 400);
  EXPECT_EQ(status([](GenerationParams& p) { p.thinking_budget = 1; }), 400);
  EXPECT_EQ(status([](GenerationParams& p) {
              p.sampling.min_tokens = 2;
              p.sampling.stop_token_ids = {5};
            }),
            400);
}

}  // namespace
}  // namespace tandem::server
