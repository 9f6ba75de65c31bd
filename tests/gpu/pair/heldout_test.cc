// The promise at length: 200 held-out prompts x 128 tokens on the GPU, K = 0 to 8, one, 8 and 32
// requests at once, with and without graphs, identical to plain decoding alone. A minute and a
// half, so only with TANDEM_LONG=1. TANDEM_LONG_ALONE is how many prompts also run one by one with
// every K (40): they are most of the time.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "engine/runtime.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tandem {
namespace {

constexpr int64_t kMaxTokens = 128;
constexpr int64_t kMaxBatch = 32;
constexpr size_t kNumPrompts = 200;

using Texts = std::map<uint64_t, std::vector<int32_t>>;

std::vector<std::vector<int32_t>> read_prompts() {
  const auto tokenizer = text::Tokenizer::load_for_model("demo/target");
  const auto chat_template = text::ChatTemplate::load_for_model("demo/target");
  std::ifstream file("demo/prompts/heldout200.jsonl");
  std::vector<std::vector<int32_t>> prompts;
  std::string line;
  while (tokenizer && chat_template && std::getline(file, line)) {
    const auto entry = nlohmann::ordered_json::parse(line);
    const nlohmann::ordered_json nothing = nlohmann::ordered_json::object();
    text::ChatRequest request;
    request.messages = &entry["messages"];
    request.template_kwargs = &nothing;
    const auto segments = chat_template->render(request);
    if (!segments) break;
    prompts.push_back(tokenizer->encode_segments(*segments));
  }
  return prompts;
}

std::unique_ptr<engine::Runtime> open_runtime(bool assistant, bool graphs) {
  engine::RuntimeOptions options;
  options.pair.target = "demo/target";
  if (assistant) options.pair.assistant = "demo/assistant";
  options.pair.check_values = false;
  options.on_gpu = true;
  options.use_graphs = graphs;
  options.num_draft_tokens = assistant ? speculation::kMaxDraftTokens : 0;
  options.max_num_seqs = kMaxBatch;
  options.max_model_len = 1024;
  options.prefix_caching = false;
  options.kv_bytes = int64_t{4} << 30;
  auto opened = engine::Runtime::open(std::move(options));
  if (opened) return *std::move(opened);
  ADD_FAILURE() << opened.error().message;
  return nullptr;
}

struct Load {
  int drafts = 0;
  size_t batch = 1;  // requests at once
  size_t count = kNumPrompts;
};

// The texts of the first `count` prompts; a new request begins whenever one ends.
Texts decode(engine::Engine& engine, const std::vector<std::vector<int32_t>>& prompts,
             const Load& run) {
  Texts texts;
  size_t next = 0;
  size_t running = 0;
  while (running > 0 || next < run.count) {
    for (; running < run.batch && next < run.count; ++next, ++running) {
      engine::EngineRequest request;
      request.id = next;
      request.prompt_ids = prompts[next];
      request.sampling.temperature = 0;
      request.sampling.ignore_eos = true;
      request.max_tokens = kMaxTokens;
      request.num_draft_tokens = run.drafts;
      const auto added = engine.add_request(std::move(request));
      EXPECT_TRUE(added.has_value()) << added.error().message;
      if (!added) return texts;
    }
    const auto events = engine.step();
    for (const engine::TokenEvent& event : events) {
      for (const sampling::TokenChoice& choice : event.tokens)
        texts[event.id].push_back(choice.token);
      if (!event.finish) continue;
      EXPECT_EQ(event.finish->error, "") << "prompt " << event.id;
      --running;
    }
  }
  return texts;
}

class HeldOutTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("TANDEM_LONG") == nullptr) GTEST_SKIP() << "only with TANDEM_LONG=1";
    prompts_ = read_prompts();
    ASSERT_EQ(prompts_.size(), kNumPrompts);
    if (const char* const count = std::getenv("TANDEM_LONG_ALONE"))
      num_alone_ = std::clamp<size_t>(std::strtoul(count, nullptr, 10), 1, kNumPrompts);
    const auto runtime = open_runtime(false, true);
    ASSERT_NE(runtime, nullptr);
    plain_ = decode(runtime->engine(), prompts_, {});
    ASSERT_EQ(plain_.size(), kNumPrompts);
    for (const auto& [id, text] : plain_) ASSERT_EQ(text.size(), size_t{kMaxTokens}) << id;
    report("alone, without an assistant", kNumPrompts);
  }

  // Decodes and holds the texts against plain decoding; prints what was done and how long it took.
  void compare(engine::Runtime& runtime, const Load& run, const char* graphs) {
    const speculation::AcceptanceStats before = runtime.engine().stats().acceptance;
    const Texts got = decode(runtime.engine(), prompts_, run);
    ASSERT_EQ(got.size(), run.count);
    size_t different = 0;
    for (const auto& [id, text] : got) different += text != plain_.at(id) ? 1 : 0;
    EXPECT_EQ(different, 0U) << "texts differ: K " << run.drafts << ", batch " << run.batch << ", "
                             << graphs;
    const speculation::AcceptanceStats after = runtime.engine().stats().acceptance;
    const auto rounds = static_cast<double>(after.num_drafts - before.num_drafts);
    const double length =
        rounds == 0
            ? 1
            : 1 + static_cast<double>(after.num_accepted_tokens - before.num_accepted_tokens) /
                      rounds;
    // Otherwise nothing was shown: drafts must have been accepted.
    if (run.drafts > 0) {
      EXPECT_GT(length, 1.3);
    }
    std::printf("K %d, batch %2zu, %s, length %.2f: ", run.drafts, run.batch, graphs, length);
    report(different == 0 ? "identical" : "DIFFERENT", run.count);
  }

  void report(const char* what, size_t count) {
    const auto now = std::chrono::steady_clock::now();
    std::printf("%zu prompts x %d tokens %s, %.1f s\n", count, static_cast<int>(kMaxTokens), what,
                std::chrono::duration<double>(now - began_).count());
    std::fflush(stdout);
    began_ = now;
  }

  std::vector<std::vector<int32_t>> prompts_;
  Texts plain_;
  size_t num_alone_ = 40;
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

TEST_F(HeldOutTest, TextDoesNotDependOnDraftsCompanyOrGraphs) {
  {
    const auto runtime = open_runtime(true, true);
    ASSERT_NE(runtime, nullptr);
    for (const size_t batch : {size_t{32}, size_t{8}, size_t{1}})
      for (int drafts = 0; drafts <= speculation::kMaxDraftTokens; ++drafts)
        compare(*runtime, {drafts, batch, batch == 1 ? num_alone_ : kNumPrompts}, "graphs");
  }
  const auto eager = open_runtime(true, false);
  ASSERT_NE(eager, nullptr);
  for (const size_t batch : {size_t{32}, size_t{8}, size_t{1}})
    for (const int drafts : {0, 4})
      compare(*eager, {drafts, batch, batch == 1 ? num_alone_ / 2 + 1 : kNumPrompts}, "no graphs");
}

}  // namespace
}  // namespace tandem
