// The engine over real forwards of the small random pairs: the text is a function of the request.
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <map>
#include <random>

#include "base/log.h"
#include "engine/runtime.h"
#include "speculation/sequence_runner.h"

namespace tandem::engine {
namespace {

std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(TANDEM_TEST_DATA) / "golden" / name;
}

constexpr int64_t kCount = 10;

// Greedy, sampled, penalised; prompts from one token to several windows of 16.
EngineRequest varied_request(uint64_t id) {
  EngineRequest r;
  r.id = id;
  const size_t prompt_len = 1 + id * 13 % 61;
  for (size_t i = 0; i < prompt_len; ++i)
    r.prompt_ids.push_back(static_cast<int32_t>(3 + (id * 17 + i * 29) % 150));
  r.sampling.temperature = id % 2 == 0 ? 0.0 : 0.9;
  r.sampling.seed = 500 + id;
  r.sampling.num_logprobs = 0;
  if (id % 3 == 1) r.sampling.top_k = 20;
  if (id % 4 == 3) r.sampling.repetition_penalty = 1.3;
  r.sampling.ignore_eos = id % 5 != 0;
  r.max_tokens = 20 + static_cast<int64_t>(id * 7 % 40);
  return r;
}

// Prompts that share a beginning of several windows and part at different places.
EngineRequest branching_request(uint64_t id) {
  EngineRequest r = varied_request(id);
  r.prompt_ids.clear();
  for (size_t i = 0; i < 70 + id; ++i) {
    const size_t parts_at = id % 3 == 0 ? 49 : 70;
    r.prompt_ids.push_back(static_cast<int32_t>(3 + (i * 29 + (i < parts_at ? 0 : id)) % 150));
  }
  r.max_tokens = std::min<int64_t>(r.max_tokens, 40);
  return r;
}

using MakeRequest = EngineRequest (*)(uint64_t);

struct Outcome {
  std::map<uint64_t, std::vector<int32_t>> texts;
  // Random models repeat themselves: a text says less than the numbers behind it.
  std::map<uint64_t, std::vector<float>> logprobs;
  EngineStats stats;
};

void expect_same(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_EQ(got.texts, want.texts) << what;
  EXPECT_EQ(got.logprobs, want.logprobs) << what;
}

Outcome run(Engine& engine, MakeRequest make = varied_request) {
  base::set_log_level(base::LogLevel::kError);  // random weights accept nothing: it would warn
  for (uint64_t id = 0; id < kCount; ++id) {
    const base::Status status = engine.add_request(make(id));
    EXPECT_TRUE(status.has_value()) << status.error().message;
  }
  Outcome outcome;
  while (engine.has_work()) {
    for (const TokenEvent& event : engine.step()) {
      for (const auto& choice : event.tokens) {
        outcome.texts[event.id].push_back(choice.token);
        outcome.logprobs[event.id].push_back(choice.logprob);
      }
      if (event.finish) {
        EXPECT_NE(event.finish->reason, FinishReason::kError) << event.finish->error;
      }
    }
    EXPECT_EQ(engine.find_fault(), "");
  }
  outcome.stats = engine.stats();
  EXPECT_EQ(outcome.stats.num_held_pages, 0);
  return outcome;
}

RuntimeOptions small(const std::string& target, const std::string& assistant) {
  RuntimeOptions options;
  options.pair.target = golden(target);
  options.pair.assistant = golden(assistant);
  options.num_threads = 1;
  options.max_model_len = 160;
  options.max_num_batched_tokens = 128;
  options.block_size = 16;
  return options;
}

Outcome run(const RuntimeOptions& options, MakeRequest make = varied_request) {
  auto runtime = Runtime::open(options);
  EXPECT_TRUE(runtime.has_value()) << runtime.error().message;
  if (!runtime) return {};
  (*runtime)->kv().poison();  // what was never written must never be read
  return run((*runtime)->engine(), make);
}

// The memory of `num_pages` pages and rings for `seqs` sequences.
int64_t kv_bytes_for(const RuntimeOptions& options, int64_t seqs, int64_t num_pages) {
  RuntimeOptions wide = options;
  wide.max_num_seqs = seqs;
  const auto runtime = Runtime::open(wide);
  EXPECT_TRUE(runtime.has_value()) << runtime.error().message;
  const KvPlan& plan = (*runtime)->kv_plan();
  const model::KvBlockBytes bytes = model::kv_block_bytes((*runtime)->pair().target->config(),
                                                          options.block_size, core::DType::kBF16);
  // Three quarters of what a request's pages leave go to pages.
  const int64_t one = blocks_for(plan.max_model_len, options.block_size);
  return plan.num_ring_blocks * bytes.ring_block_bytes +
         (one + (num_pages - one) * 4 / 3) * bytes.page_block_bytes;
}

// Each request alone, no drafts, the whole prompt in one pass.
Outcome plain_run(RuntimeOptions options, MakeRequest make = varied_request) {
  options.max_num_seqs = 1;
  options.num_draft_tokens = 0;
  options.pair.assistant.reset();
  return run(options, make);
}

class EnginePair : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(EnginePair, TextIsThatOfPlainDecoding) {
  RuntimeOptions options = small(GetParam().first, GetParam().second);
  const Outcome want = plain_run(options);
  ASSERT_EQ(want.texts.size(), static_cast<size_t>(kCount));
  int64_t num_drafts = 0;
  for (int k = 0; k <= 8; ++k) {
    options.num_draft_tokens = k;
    options.max_num_seqs = k % 2 == 0 ? 8 : 1;
    options.max_chunk_tokens = k % 3 == 0 ? 7 : 128;
    options.num_threads = k % 4 < 2 ? 1 : 2;
    const Outcome got = run(options);
    expect_same(got, want, fmt::format("K = {}", k));
    num_drafts += got.stats.acceptance.num_drafts;
  }
  EXPECT_GT(num_drafts, 1000);
}

INSTANTIATE_TEST_SUITE_P(Goldens, EnginePair,
                         ::testing::Values(std::pair("unified/target", "unified/assistant"),
                                           std::pair("classic/target", "classic/assistant"),
                                           std::pair("unified/target-fp8", "unified/assistant-fp8"),
                                           std::pair("classic/target-fp8", "classic/assistant"),
                                           std::pair("unified/target", "unified/assistant-fp8")));

TEST(EngineModel, PreemptionKeepsTheText) {
  RuntimeOptions options = small("unified/target", "unified/assistant");
  const Outcome want = plain_run(options);
  options.max_num_seqs = 6;
  options.max_model_len = 128;
  options.block_size = 4;
  for (const int k : {0, 3, 8}) {
    options.num_draft_tokens = k;
    options.kv_bytes = kv_bytes_for(options, 6, 32);  // what one request of 128 needs
    const Outcome got = run(options);
    expect_same(got, want, fmt::format("K = {}", k));
    EXPECT_GT(got.stats.num_preemptions, 2) << "K = " << k;
  }
}

// The second time over, and behind each other's prompts: as if nothing had been there before.
TEST_P(EnginePair, CachedPrefixesKeepTheText) {
  RuntimeOptions options = small(GetParam().first, GetParam().second);
  options.prefix_caching = false;
  const Outcome want = plain_run(options, branching_request);
  EXPECT_EQ(want.stats.num_prefix_queries, 0);
  options.prefix_caching = true;
  options.max_num_seqs = 3;
  options.max_chunk_tokens = 50;
  for (const int k : {0, 1, 4, 8}) {
    options.num_draft_tokens = k;
    auto runtime = Runtime::open(options);
    ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
    (*runtime)->kv().poison();
    expect_same(run((*runtime)->engine(), branching_request), want, fmt::format("K = {}", k));
    const int64_t once = (*runtime)->engine().stats().num_prefix_hits;
    EXPECT_GT(once, 64);
    expect_same(run((*runtime)->engine(), branching_request), want, fmt::format("K = {}", k));
    EXPECT_GT((*runtime)->engine().stats().num_prefix_hits, once + 400);
  }
}

TEST(EngineModel, EvictedPrefixesKeepTheText) {
  RuntimeOptions options = small("unified/target", "unified/assistant");
  const Outcome want = plain_run(options, branching_request);
  options.max_num_seqs = 4;
  options.block_size = 4;
  options.num_draft_tokens = 3;
  auto runtime = Runtime::open(options);
  ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
  (*runtime)->kv().poison();
  speculation::SpeculativeStep step(*(*runtime)->pair().target, (*runtime)->pair().assistant.get(),
                                    (*runtime)->kv(), {.max_sequences = 4, .synthetic = {}});
  // Three of the requests do not fit at once, nor do the snapshots of one round.
  EngineOptions small_pools = (*runtime)->engine().options();
  small_pools.limits.num_page_blocks = 44;
  small_pools.num_snapshot_blocks = 13;
  Engine engine(small_pools, [&](const speculation::SpecBatch& batch) {
    return step.run({.backend = ops::Backend::kCpu}, batch);
  });
  for (int round = 0; round < 3; ++round)
    expect_same(run(engine, branching_request), want, fmt::format("round {}", round));
  EXPECT_GT(engine.stats().num_preemptions, 2);
  EXPECT_GT(engine.stats().num_prefix_hits, 40);
}

TEST(EngineModel, SmallBudgetsKeepTheText) {
  RuntimeOptions options = small("unified/target", "unified/assistant");
  const Outcome want = plain_run(options);
  options.max_num_seqs = 8;
  options.num_draft_tokens = 5;
  for (const int64_t budget : {8, 13, 40}) {
    options.max_num_batched_tokens = budget;
    expect_same(run(options), want, fmt::format("budget {}", budget));
  }
}

TEST(EngineModel, IsTheRunnerOfSingleSequences) {
  const RuntimeOptions options = small("unified/target", "unified/assistant");
  const Outcome want = plain_run(options);
  auto runtime = Runtime::open(options);
  ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
  const model::Pair& pair = (*runtime)->pair();
  speculation::RunnerOptions runner_options;
  runner_options.max_tokens = 200;
  speculation::SequenceRunner runner(*pair.target, pair.assistant.get(), runner_options);
  for (uint64_t id = 0; id < kCount; ++id) {
    const EngineRequest r = varied_request(id);
    speculation::RunRequest request;
    request.prompt = r.prompt_ids;
    request.sampling = r.sampling;
    request.max_new_tokens = r.max_tokens;
    if (!r.sampling.ignore_eos) request.eos_ids = eos_token_ids(*pair.target);
    request.seed = *r.sampling.seed;
    EXPECT_EQ(runner.run({}, request).tokens, want.texts.at(id)) << id;
  }
}

// Drafters over a batch: three that mean no good, and one that has read the answers.
class ScriptedDrafter : public model::Drafter {
 public:
  enum class Style { kRandom, kNan, kConstant, kAnswers };
  ScriptedDrafter(Style style, const Outcome& answers) : style_(style) {
    for (uint64_t id = 0; id < kCount; ++id) {
      answers_.push_back(varied_request(id).prompt_ids);
      const std::vector<int32_t>& text = answers.texts.at(id);
      answers_.back().insert(answers_.back().end(), text.begin(), text.end());
    }
  }

  void step(const ops::Context&, const model::DraftBatch& batch, const model::KvStore&,
            const core::TensorView& state, const core::TensorView& logits,
            model::Observer*) override {
    for (int64_t r = 0; r < batch.num_rows(); ++r) {
      float* row = logits.row<float>(r);
      const bool constant = style_ == Style::kConstant || style_ == Style::kAnswers;
      for (int64_t i = 0; i < logits.cols(); ++i)
        row[i] = constant ? 0.0F : static_cast<float>(random_() % 1000);
      if (style_ == Style::kNan && random_() % 3 == 0)
        row[random_() % 100] = std::numeric_limits<float>::quiet_NaN();
      const auto at = static_cast<size_t>(r);
      if (style_ == Style::kAnswers) row[answer(batch.last_keys[at], batch.token_ids[at])] = 1.0F;
    }
    // It also spoils the state it was given.
    auto* bytes = static_cast<uint8_t*>(state.data);
    std::fill_n(bytes, state.rows() * state.cols() * static_cast<int64_t>(sizeof(uint16_t)),
                uint8_t{0xff});
  }
  std::span<const int32_t> suppress_tokens() const override { return {}; }

 private:
  // What follows `token` in any answer within a round of that place: nearly always right.
  int32_t answer(int32_t last_key, int32_t token) const {
    for (const std::vector<int32_t>& text : answers_)
      for (size_t i = static_cast<size_t>(last_key) + 1;
           i + 1 < text.size() && i < static_cast<size_t>(last_key) + 9; ++i)
        if (text[i] == token) return text[i + 1];
    return 0;
  }

  Style style_;
  std::vector<std::vector<int32_t>> answers_;
  std::mt19937_64 random_{3};
};

TEST(EngineModel, NoDrafterChangesTheText) {
  RuntimeOptions options = small("unified/target", "unified/assistant");
  const Outcome want = plain_run(options);
  options.num_draft_tokens = 6;
  auto runtime = Runtime::open(options);
  ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
  using Style = ScriptedDrafter::Style;
  for (const Style style : {Style::kRandom, Style::kNan, Style::kConstant, Style::kAnswers}) {
    ScriptedDrafter drafter(style, want);
    (*runtime)->kv().poison();
    speculation::SpeculativeStepOptions step_options;
    step_options.max_sequences = options.max_num_seqs;
    speculation::SpeculativeStep step(*(*runtime)->pair().target, &drafter, (*runtime)->kv(),
                                      step_options);
    Engine engine((*runtime)->engine().options(), [&](const speculation::SpecBatch& batch) {
      return step.run({.backend = ops::Backend::kCpu}, batch);
    });
    const Outcome got = run(engine);
    expect_same(got, want, fmt::format("style {}", static_cast<int>(style)));
    if (style == Style::kAnswers) {
      EXPECT_GT(got.stats.acceptance.mean_acceptance_length(), 4);
    }
  }
}

// The same step with the same bytes as evaluation has.
TEST(EngineModel, Fp8KvIsThatOfTheRunner) {
  RuntimeOptions options = small("classic/target-fp8", "classic/assistant");
  auto runtime = Runtime::open(options);
  ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
  ASSERT_EQ((*runtime)->kv().config().dtype, core::DType::kF8E4M3);
  const Outcome got = run((*runtime)->engine());
  const model::Pair& pair = (*runtime)->pair();
  const core::DType dtype = core::DType::kF8E4M3;
  const auto scales =
      model::kv_scales(*pair.target_checkpoint, dtype, model::KvCacheDtype::kFp8).value();
  EXPECT_NE(scales.k[0], 1.0F);
  speculation::SequenceRunner runner(
      *pair.target, nullptr,
      {.max_tokens = 200, .k_scales = scales.k, .v_scales = scales.v, .kv_dtype = dtype});
  for (uint64_t id = 0; id < kCount; ++id) {
    const EngineRequest r = varied_request(id);
    speculation::RunRequest request;
    request.prompt = r.prompt_ids;
    request.sampling = r.sampling;
    request.max_new_tokens = r.max_tokens;
    if (!r.sampling.ignore_eos) request.eos_ids = eos_token_ids(*pair.target);
    request.seed = *r.sampling.seed;
    EXPECT_EQ(runner.run({}, request).tokens, got.texts.at(id)) << id;
  }
  options.kv_cache_dtype = model::KvCacheDtype::kBFloat16;
  EXPECT_NE(run(options).logprobs, got.logprobs);
}

TEST(EngineModel, SyntheticAcceptanceAcceptsWhatItWasTold) {
  RuntimeOptions options = small("unified/target", "unified/assistant");
  options.num_draft_tokens = 4;
  options.synthetic = speculation::SyntheticAcceptance::from_length(3.0, 4).value();
  auto runtime = Runtime::open(options);
  ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
  EngineRequest r = varied_request(1);
  r.max_tokens = 90;
  ASSERT_TRUE((*runtime)->engine().add_request(r).has_value());
  while ((*runtime)->engine().has_work()) (*runtime)->engine().step();
  const auto acceptance = (*runtime)->engine().stats().acceptance;
  EXPECT_NEAR(acceptance.mean_acceptance_length(), 3.0, 0.1);
}

TEST(RuntimeRefusal, NamesWhatIsWrong) {
  const auto message = [](const std::function<void(RuntimeOptions&)>& spoil) {
    RuntimeOptions options = small("unified/target", "unified/assistant");
    options.num_draft_tokens = 4;
    spoil(options);
    const auto runtime = Runtime::open(options);
    return runtime ? std::string("accepted") : runtime.error().message;
  };
  using Options = RuntimeOptions;
  EXPECT_EQ(message([](Options&) {}), "accepted");
  EXPECT_NE(message([](Options& o) { o.num_draft_tokens = 9; }).find("expected 0 to 8, got 9"),
            std::string::npos);
  EXPECT_NE(message([](Options& o) { o.pair.assistant.reset(); }).find("without an assistant"),
            std::string::npos);
  EXPECT_NE(message([](Options& o) { o.max_model_len = 4097; }).find("at most 4096"),
            std::string::npos);
  EXPECT_NE(message([](Options& o) { o.kv_bytes = 1000; }).find("KV cache: expected at least"),
            std::string::npos);
  EXPECT_NE(message([](Options& o) { o.kv_bytes = -1; }).find("KV cache"), std::string::npos);
  EXPECT_NE(message([](Options& o) { o.max_num_batched_tokens = 3; }).find("max_num_batched"),
            std::string::npos);
  EXPECT_NE(message([](Options& o) {
              o.kv_cache_dtype = model::KvCacheDtype::kFp8;
            }).find("layers.0.self_attn: expected k_scale and v_scale"),
            std::string::npos);
  EXPECT_NE(message([](Options& o) { o.max_num_seqs = 0; }).find("max_num_seqs"),
            std::string::npos);
  EXPECT_NE(message([](Options& o) { o.block_size = 0; }).find("block_size"), std::string::npos);
}

}  // namespace
}  // namespace tandem::engine
