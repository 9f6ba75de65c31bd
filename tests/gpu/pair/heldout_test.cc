// The promise at length: 200 held-out prompts x 128 tokens on the GPU, K = 0 to 8, one, 8 and 32
// requests at once, with and without graphs, identical to plain decoding alone. A minute and a
// half, so only with TANDEM_LONG=1. TANDEM_LONG_ALONE is how many prompts also run one by one with
// every K (40): they are most of the time.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/gpu/pair/load.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace tandem {
namespace {

constexpr int64_t kMaxTokens = 128;
constexpr int64_t kMaxBatch = 32;
constexpr size_t kNumPrompts = 200;

using engine::EngineRequest;
using tests::Load;
using tests::Outcome;

std::vector<EngineRequest> read_requests() {
  const auto tokenizer = text::Tokenizer::load_for_model("demo/target");
  const auto chat_template = text::ChatTemplate::load_for_model("demo/target");
  std::ifstream file("demo/prompts/heldout200.jsonl");
  std::vector<EngineRequest> requests;
  std::string line;
  while (tokenizer && chat_template && std::getline(file, line)) {
    const auto entry = nlohmann::ordered_json::parse(line);
    const nlohmann::ordered_json nothing = nlohmann::ordered_json::object();
    text::ChatRequest chat;
    chat.messages = &entry["messages"];
    chat.template_kwargs = &nothing;
    const auto segments = chat_template->render(chat);
    if (!segments) break;
    EngineRequest request;
    request.id = requests.size();
    request.prompt_ids = tokenizer->encode_segments(*segments);
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.max_tokens = kMaxTokens;
    requests.push_back(std::move(request));
  }
  return requests;
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

class HeldOutTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("TANDEM_LONG") == nullptr) GTEST_SKIP() << "only with TANDEM_LONG=1";
    requests_ = read_requests();
    ASSERT_EQ(requests_.size(), kNumPrompts);
    if (const char* const count = std::getenv("TANDEM_LONG_ALONE"))
      num_alone_ = std::clamp<size_t>(std::strtoul(count, nullptr, 10), 1, kNumPrompts);
    const auto runtime = open_runtime(false, true);
    ASSERT_NE(runtime, nullptr);
    plain_ = tests::decode(runtime->engine(), requests_, {.count = kNumPrompts});
    ASSERT_EQ(plain_.texts.size(), kNumPrompts);
    for (const auto& [id, text] : plain_.texts) ASSERT_EQ(text.size(), size_t{kMaxTokens}) << id;
    report("alone, without an assistant", kNumPrompts);
  }

  // Decodes and holds the texts against plain decoding; prints what was done and how long it took.
  void compare(engine::Runtime& runtime, const Load& run, const char* graphs) {
    const Outcome got = tests::decode(runtime.engine(), requests_, run);
    ASSERT_EQ(got.texts.size(), run.count);
    size_t different = 0;
    for (const auto& [id, text] : got.texts) different += text != plain_.texts.at(id) ? 1 : 0;
    EXPECT_EQ(different, 0U) << "texts differ: K " << run.drafts << ", batch " << run.batch << ", "
                             << graphs;
    const double length = got.acceptance.mean_acceptance_length();
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

  std::vector<EngineRequest> requests_;
  Outcome plain_;
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
