// The golden pair whose sizes GPU kernels take: what the device thinks of every token of a text,
// beside transformers in FP32 (tests/golden). Run from the root of the tree.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "io/safetensors.h"
#include "sampling/score.h"
#include "tests/gpu/pair/outcome.h"

namespace tandem {
namespace {

const std::string kFolder = "tests/golden/aligned/";

struct Text {
  std::vector<int32_t> ids;
  std::vector<double> logprobs;  // of ids[1], ids[2], ..
};

Text read_text(const std::string& name) {
  Text text;
  std::ifstream file(kFolder + name + ".ids.json");
  text.ids = nlohmann::json::parse(file).get<std::vector<int32_t>>();
  const auto truth = io::SafetensorsFile::open(kFolder + name + ".f32.safetensors");
  const io::SafetensorsEntry* const entry = truth ? truth->find("logits") : nullptr;
  if (entry == nullptr) {
    ADD_FAILURE() << name << ": expected a file with logits";
    return text;
  }
  const core::TensorView view = truth->view(*entry);
  std::vector<float> logits(static_cast<size_t>(view.shape.num_elements()));
  std::memcpy(logits.data(), view.data, logits.size() * sizeof(float));
  const size_t vocab = logits.size() / text.ids.size();
  for (size_t i = 0; i + 1 < text.ids.size(); ++i) {
    const auto row = std::span<const float>(logits).subspan(i * vocab, vocab);
    const float largest = *std::max_element(row.begin(), row.end());
    text.logprobs.push_back(static_cast<double>(row[static_cast<size_t>(text.ids[i + 1])]) -
                            sampling::log_sum_exp(row, largest));
  }
  return text;
}

// Root mean square of the differences from the truth, of all tokens but the first.
double error_of(const Text& text, const std::string& suffix, bool on_gpu, int64_t chunk) {
  engine::RuntimeOptions options;
  options.pair.target = kFolder + "target" + suffix;
  options.pair.assistant = kFolder + "assistant" + suffix;
  options.on_gpu = on_gpu;
  options.num_draft_tokens = 2;
  options.max_chunk_tokens = chunk;
  options.max_model_len = 256;
  options.kv_bytes = int64_t{1} << 26;
  engine::EngineRequest request;
  request.prompt_ids = text.ids;
  request.sampling.temperature = 0;
  request.sampling.num_prompt_logprobs = 0;
  request.max_tokens = 1;
  const auto scores = tests::run_requests(std::move(options), {request}).prompt_logprobs[0];
  EXPECT_EQ(scores.size(), text.logprobs.size());
  double squares = 0;
  for (size_t i = 0; i < scores.size(); ++i)
    squares += std::pow(static_cast<double>(scores[i]) - text.logprobs[i], 2);
  return std::sqrt(squares / static_cast<double>(scores.size()));
}

struct Case {
  const char* name;
  const char* suffix;
};

class GoldenPair : public testing::TestWithParam<Case> {};

// These logits have a standard deviation of 10. Activations in BF16 move a log-probability by 0.06
// (transformers in BF16 by 0.066), and where they also flip roundings to E4M3 by 0.1; the CPU is
// held to the same truth by tandem trace. A wrong kernel moves them by whole numbers.
TEST_P(GoldenPair, LogProbabilitiesAreThoseOfTransformers) {
  const Text text = read_text(GetParam().name);
  ASSERT_EQ(text.logprobs.size(), 149U);
  const double cpu = error_of(text, GetParam().suffix, false, 512);
  std::printf("%s: CPU %.4f", GetParam().name, cpu);
  EXPECT_LT(cpu, 0.15);
  for (const int64_t chunk : {512, 40}) {
    const double gpu = error_of(text, GetParam().suffix, true, chunk);
    std::printf(", GPU %.4f", gpu);
    EXPECT_LT(gpu, 1.5 * cpu) << "chunks of " << chunk;
  }
  std::printf("\n");
}

INSTANTIATE_TEST_SUITE_P(Pairs, GoldenPair,
                         testing::Values(Case{"long", ""}, Case{"fp8_long", "-fp8"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace tandem
