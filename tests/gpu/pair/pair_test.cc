// The demo pair on the GPU through the engine: against the CPU, and against itself with other
// numbers of drafts, batches and chunk sizes. Run from the root of the tree.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/gpu/pair/outcome.h"

namespace tandem {
namespace {

using engine::EngineRequest;
using tests::expect_same_text;
using tests::Outcome;
using tests::run_requests;

struct Setup {
  bool on_gpu = true;
  int num_draft_tokens = 0;
  int64_t max_num_seqs = 1;
  int64_t max_chunk_tokens = 512;
  bool use_graphs = true;
  size_t max_shapes = 256;
  bool assistant = true;
  bool auto_drafts = false;
  bool whole_rows = false;
  double draw_slack = 1e-10;
  bool screens_heads = true;
  model::DraftHeadFormat draft_head = model::DraftHeadFormat::kCheckpoint;
  std::vector<double> synthetic_rates = {};
};

// Prompts from one token to several windows of 64.
EngineRequest make_request(uint64_t id) {
  EngineRequest request;
  request.id = id;
  request.prompt_ids = tests::some_prompt(id, 1 + id * 37 % 230);
  request.sampling.temperature = 0.0;
  request.sampling.ignore_eos = id % 3 != 0;
  request.max_tokens = 48 + static_cast<int64_t>(id * 7 % 40);
  return request;
}

Outcome run(const Setup& setup, std::vector<EngineRequest> requests) {
  engine::RuntimeOptions options = tests::demo_options();
  if (!setup.assistant) options.pair.assistant.reset();
  options.pair.model.draft_head = setup.draft_head;
  options.on_gpu = setup.on_gpu;
  options.use_graphs = setup.use_graphs;
  options.max_shapes = setup.max_shapes;
  options.whole_rows = setup.whole_rows;
  options.draw_slack = setup.draw_slack;
  options.screens_heads = setup.screens_heads;
  options.num_draft_tokens = setup.num_draft_tokens;
  options.auto_drafts = setup.auto_drafts;
  if (!setup.synthetic_rates.empty())
    options.synthetic = *speculation::SyntheticAcceptance::from_rates(setup.synthetic_rates);
  options.max_num_seqs = setup.max_num_seqs;
  options.max_chunk_tokens = setup.max_chunk_tokens;
  return run_requests(std::move(options), std::move(requests));
}

std::vector<EngineRequest> requests(uint64_t count) {
  std::vector<EngineRequest> made;
  for (uint64_t id = 0; id < count; ++id) made.push_back(make_request(id));
  return made;
}

constexpr uint64_t kCount = 40;

const Outcome& alone() {
  static const Outcome outcome = run({.num_draft_tokens = 0, .assistant = false}, requests(kCount));
  return outcome;
}

// Both round activations to BF16, at the same places; sums differ in their order. Over 12 layers
// that moves a logit of the demo pair by some hundredths: a wrong kernel moves it by whole numbers.
TEST(PairTest, LogProbabilitiesAreThoseOfTheCpu) {
  auto with_logprobs = requests(12);
  for (EngineRequest& request : with_logprobs) {
    request.sampling.num_logprobs = 0;
    request.max_tokens = 12;
  }
  const Outcome cpu = run({.on_gpu = false, .assistant = false}, with_logprobs);
  const Outcome gpu = run({.assistant = false}, with_logprobs);
  int compared = 0;
  double worst = 0;
  for (const auto& [id, text] : cpu.texts) {
    for (size_t i = 0; i < text.size() && i < gpu.texts.at(id).size(); ++i) {
      const double expected = static_cast<double>(cpu.logprobs.at(id)[i]);
      const double got = static_cast<double>(gpu.logprobs.at(id)[i]);
      worst = std::max(worst, std::abs(expected - got));
      EXPECT_NEAR(got, expected, 0.15) << "request " << id << " token " << i;
      ++compared;
      // Two nearly equal tokens may change places; what follows is then another text.
      if (gpu.texts.at(id)[i] != text[i]) break;
    }
  }
  EXPECT_GT(compared, 100);
  std::printf("%d log-probabilities, largest difference %.4f\n", compared, worst);
}

TEST(PairTest, TextDoesNotDependOnDraftsOrCompany) {
  for (const int64_t seqs : {1, 8, 32})
    for (const int drafts : {0, 1, 2, 3, 4, 5, 6, 7, 8}) {
      const Outcome got = run({.num_draft_tokens = drafts, .max_num_seqs = seqs}, requests(kCount));
      expect_same_text(got, alone(),
                       "K " + std::to_string(drafts) + ", batch " + std::to_string(seqs));
      if (drafts == 4)
        std::printf("K 4, batch %d: mean acceptance length %.2f\n", static_cast<int>(seqs),
                    got.acceptance.mean_acceptance_length());
    }
}

// A rounded head guesses a little worse, and nothing else changes: for one sequence, for the few
// rows of a head's own kernel, and for more.
TEST(PairTest, ARoundedDraftHeadKeepsTheText) {
  const auto drafted = [](bool on_gpu, model::DraftHeadFormat head, int64_t seqs) {
    struct Setup setup{.on_gpu = on_gpu, .num_draft_tokens = 4, .max_num_seqs = seqs};
    setup.draft_head = head;
    return run(setup, requests(kCount));
  };
  using Format = model::DraftHeadFormat;
  const auto length = [](const Outcome& outcome) {
    return outcome.acceptance.mean_acceptance_length();
  };
  const Outcome stored = drafted(true, Format::kCheckpoint, 1);
  const Outcome cpu = drafted(false, Format::kFp8, 8);
  for (const int64_t seqs : {1, 8, 32}) {
    const Outcome rounded = drafted(true, Format::kFp8, seqs);
    expect_same_text(rounded, alone(), "batch " + std::to_string(seqs));
    // Of some 600 rounds; a head that guessed at random would give 1.0.
    EXPECT_NEAR(length(rounded), length(stored), 0.05 * length(stored));
    EXPECT_NEAR(length(rounded), length(cpu), 0.05 * length(cpu));
    std::printf("batch %d: mean acceptance length %.3f, as stored %.3f, on the CPU %.3f\n",
                static_cast<int>(seqs), length(rounded), length(stored), length(cpu));
  }
}

// Neither text nor drafts.
TEST(PairTest, ScreensOfHeadsChangeNothing) {
  for (const int64_t seqs : {1, 2, 8})
    for (const int drafts : {0, 1, 3, 7}) {
      struct Setup setup{.num_draft_tokens = drafts, .max_num_seqs = seqs};
      const Outcome screened = run(setup, requests(kCount));
      setup.screens_heads = false;
      const Outcome read = run(setup, requests(kCount));
      const std::string what = "K " + std::to_string(drafts) + ", batch " + std::to_string(seqs);
      expect_same_text(screened, read, what);
      EXPECT_EQ(screened.acceptance.num_accepted_tokens, read.acceptance.num_accepted_tokens)
          << what;
    }
}

TEST(PairTest, TextDoesNotDependOnGraphsOrChunks) {
  for (const bool graphs : {false, true})
    for (const int64_t chunk : {1, 7, 64, 100})
      expect_same_text(run({.num_draft_tokens = 4,
                            .max_num_seqs = 4,
                            .max_chunk_tokens = chunk,
                            .use_graphs = graphs},
                           requests(kCount)),
                       alone(), "chunks of " + std::to_string(chunk));
}

TEST(PairTest, GraphsMakeRoomForOthers) {
  for (const size_t shapes : {2, 5})
    expect_same_text(
        run({.num_draft_tokens = 4, .max_num_seqs = 4, .max_shapes = shapes}, requests(kCount)),
        alone(), "graphs of " + std::to_string(shapes) + " shapes");
}

// With log-probabilities the host chooses; without, the device does.
TEST(PairTest, HostAndDeviceChooseAlike) {
  auto chosen_by_host = requests(kCount);
  for (EngineRequest& request : chosen_by_host) request.sampling.num_logprobs = 0;
  expect_same_text(run({.num_draft_tokens = 3, .max_num_seqs = 8}, chosen_by_host), alone(),
                   "chosen by the host");
}

// The device tells the engine what its steps cost; without that, every round would draft four.
TEST(PairTest, AutoDraftsFollowWhatTheyBring) {
  expect_same_text(
      run({.num_draft_tokens = 8, .max_num_seqs = 8, .auto_drafts = true}, requests(kCount)),
      alone(), "auto");
  const auto drafted_per_round = [](double rate) {
    struct Setup setup{.num_draft_tokens = 4, .max_num_seqs = 1, .auto_drafts = true};
    setup.synthetic_rates.assign(4, rate);
    auto few = requests(12);
    for (EngineRequest& request : few) request.sampling.ignore_eos = true;
    const speculation::AcceptanceStats stats = run(setup, few).acceptance;
    int64_t num_rounds = 0;
    for (const EngineRequest& request : few) num_rounds += request.max_tokens;
    num_rounds -= stats.num_accepted_tokens;
    return static_cast<double>(stats.num_draft_tokens) / static_cast<double>(num_rounds);
  };
  EXPECT_LT(drafted_per_round(0.0), 1.0);
  EXPECT_GT(drafted_per_round(1.0), 2.0);
}

TEST(PairTest, SampledTextDoesNotDependOnDrafts) {
  auto sampled = requests(kCount);
  for (EngineRequest& request : sampled) {
    request.sampling.temperature = 1.0;
    request.sampling.seed = 77 + request.id;
    request.sampling.top_k = request.id % 2 == 0 ? 64 : 0;
    request.sampling.top_p = 0.95;
  }
  const Outcome plain = run({.num_draft_tokens = 0, .assistant = false}, sampled);
  expect_same_text(run({.num_draft_tokens = 4, .max_num_seqs = 8}, sampled), plain, "sampled");
}

// On the device, which leaves to the host what it cannot decide: often, with such a slack.
TEST(PairTest, DrawsOnTheDeviceAsFromTheRow) {
  auto sampled = requests(kCount);
  for (EngineRequest& request : sampled) {
    request.sampling.temperature = request.id % 5 == 0 ? 0.0 : 1.0;
    request.sampling.seed = 99 + request.id;
    request.sampling.top_k = 1 + static_cast<int64_t>(request.id * 7 % 64);
    request.sampling.top_p = request.id % 3 == 0 ? 1.0 : 0.9;
    request.sampling.min_p = request.id % 4 == 1 ? 0.02 : 0.0;
  }
  const Outcome expected =
      run({.num_draft_tokens = 3, .max_num_seqs = 8, .whole_rows = true}, sampled);
  for (const bool graphs : {false, true})
    for (const int drafts : {0, 4})
      expect_same_text(
          run({.num_draft_tokens = drafts, .max_num_seqs = 8, .use_graphs = graphs}, sampled),
          expected, "K " + std::to_string(drafts) + (graphs ? ", graphs" : ", no graphs"));
  for (const int64_t seqs : {1, 8})
    expect_same_text(
        run({.num_draft_tokens = 4, .max_num_seqs = seqs, .draw_slack = 0.05}, sampled), expected,
        "left to the host, batch " + std::to_string(seqs));
  // All of them: what follows a chunk of 100 tokens behind others runs again without it.
  expect_same_text(
      run({.num_draft_tokens = 2, .max_num_seqs = 2, .max_chunk_tokens = 100, .draw_slack = 1e9},
          sampled),
      expected, "all left to the host");
}

// Small enough for compute-sanitizer: one after the other, so that rounds of one shape come again
// and graphs of them are recorded and replayed; then all at once.
void expect_same_small_texts(bool screens_heads) {
  auto few = requests(3);
  for (EngineRequest& request : few) {
    request.prompt_ids.resize(std::min<size_t>(request.prompt_ids.size(), 11));
    request.sampling.ignore_eos = true;
    request.max_tokens = 9;
  }
  const Outcome plain =
      run({.use_graphs = false, .assistant = false, .screens_heads = screens_heads}, few);
  for (const bool graphs : {false, true})
    for (const int64_t seqs : {1, 3})
      expect_same_text(run({.num_draft_tokens = 2,
                            .max_num_seqs = seqs,
                            .use_graphs = graphs,
                            .screens_heads = screens_heads},
                           few),
                       plain, graphs ? "graphs" : "no graphs");
}

TEST(PairSmallTest, GraphsOnAndOff) {
  expect_same_small_texts(true);
}

// For racecheck (tools/device/test.sh).
TEST(PairSmallTest, GraphsOnAndOffWithoutScreens) {
  expect_same_small_texts(false);
}

}  // namespace
}  // namespace tandem
