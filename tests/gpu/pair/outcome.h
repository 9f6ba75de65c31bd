// Requests through an engine until all have ended, and what came of them: for the tests of pairs on
// the GPU.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "engine/runtime.h"

namespace tandem::tests {

struct Outcome {
  std::map<uint64_t, std::vector<int32_t>> texts;
  std::map<uint64_t, std::vector<float>> logprobs;
  std::map<uint64_t, std::vector<float>> prompt_logprobs;
  speculation::AcceptanceStats acceptance;
  int64_t num_preemptions = 0;

  void take(const engine::TokenEvent& event) {
    for (const sampling::TokenChoice& choice : event.tokens) {
      texts[event.id].push_back(choice.token);
      logprobs[event.id].push_back(choice.logprob);
    }
    for (const sampling::TokenScore& score : event.prompt_scores)
      prompt_logprobs[event.id].push_back(score.logprob);
    if (event.finish) {
      EXPECT_EQ(event.finish->error, "") << "request " << event.id;
    }
  }
};

// The demo pair on the GPU, 512 tokens a sequence.
inline engine::RuntimeOptions demo_options() {
  engine::RuntimeOptions options;
  options.pair.target = "demo/target";
  options.pair.assistant = "demo/assistant";
  options.pair.check_values = false;
  options.on_gpu = true;
  options.max_model_len = 512;
  options.kv_bytes = int64_t{1} << 30;
  return options;
}

// Every id has another.
inline std::vector<int32_t> some_prompt(uint64_t id, size_t length) {
  std::vector<int32_t> ids = {2};
  for (size_t i = 1; i < length; ++i)
    ids.push_back(static_cast<int32_t>(300 + (id * 131 + i * i * 17 + i * 29) % 3500));
  return ids;
}

inline Outcome run_requests(engine::RuntimeOptions options,
                            std::vector<engine::EngineRequest> requests) {
  auto opened = engine::Runtime::open(std::move(options));
  if (!opened) {
    ADD_FAILURE() << opened.error().message;
    return {};
  }
  engine::Engine& engine = (*opened)->engine();
  for (engine::EngineRequest& request : requests) {
    const auto added = engine.add_request(std::move(request));
    EXPECT_TRUE(added.has_value()) << added.error().message;
  }
  Outcome outcome;
  while (engine.has_work())
    for (const engine::TokenEvent& event : engine.step()) outcome.take(event);
  outcome.acceptance = engine.stats().acceptance;
  outcome.num_preemptions = engine.stats().num_preemptions;
  return outcome;
}

// Names the first token that differs.
inline void expect_same_text(const Outcome& got, const Outcome& want, const std::string& what) {
  EXPECT_EQ(got.texts.size(), want.texts.size()) << what;
  for (const auto& [id, text] : want.texts) {
    const auto found = got.texts.find(id);
    ASSERT_NE(found, got.texts.end()) << what << ": request " << id << " has no text";
    for (size_t i = 0; i < text.size() && i < found->second.size(); ++i)
      if (text[i] != found->second[i]) {
        ADD_FAILURE() << what << ": request " << id << " token " << i << ": expected " << text[i]
                      << ", got " << found->second[i];
        break;
      }
    EXPECT_EQ(found->second.size(), text.size()) << what << ": request " << id;
  }
}

}  // namespace tandem::tests
