// The host's code of the GPU step, whole, over a device that is emulated: random loads under random
// settings give the texts and log-probabilities of plain code, and every place of the KV cache that
// a row sees holds what it should.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "gpu/pair_step.h"
#include "tests/gpu/emulated/device.h"
#include "tests/gpu/emulated/loads.h"
#include "tests/gpu/emulated/settings.h"
#include "tests/gpu/emulated/text.h"
#include "tests/support/temp_folder.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::emulated {
namespace {

// The emulated models look at no checkpoint, but one must be named.
const io::Checkpoint& any_checkpoint() {
  static const test_support::TempFolder folder;
  static const auto opened = [] {
    test_support::make_tiny_target().write(folder.path());
    return io::Checkpoint::open(folder.path());
  }();
  return opened.value();
}

std::unique_ptr<gpu::PairStep> make_step(const Settings& settings) {
  const io::Checkpoint& checkpoint = any_checkpoint();
  gpu::WeightUploader uploader(1);
  std::optional<gpu::Assistant> assistant;
  if (settings.num_drafts > 0)
    assistant = gpu::Assistant::load(uploader, checkpoint, checkpoint, {}, false).value();
  return std::make_unique<gpu::PairStep>(gpu::Target::load(uploader, checkpoint, false).value(),
                                         std::move(assistant), kSuppressed,
                                         settings.step_options());
}

// What a test's loads did together.
struct Seen {
  DeviceCounts device;
  int64_t preemptions = 0, prefix_hits = 0, cancelled = 0;
};

class Emulated : public testing::Test {
 protected:
  using MakeRequests = std::function<std::vector<engine::EngineRequest>()>;

  // Twice the same requests: constraints are a request's own.
  void hold(const Settings& settings, uint64_t seed, const MakeRequests& make) {
    const std::string what = fmt::format("seed {}: {}", seed, settings.describe());
    SCOPED_TRACE(what);
    std::fprintf(stderr, "%s\n", what.c_str());  // before a check ends the process
    const Outcome want = reference_of(make());
    start_device(settings.device, seed);
    const auto step = make_step(settings);
    engine::Engine engine(settings.engine_options(),
                          [&](const speculation::SpecBatch& batch) { return step->run(batch); });
    step->set_meanwhile([&] { engine.prepare(); });
    Dice dice(seed);
    const Outcome got = run_load(engine, make(), settings, dice);
    expect_same(got, want);
    EXPECT_EQ(device().num_faults, 0);
    add(engine.stats(), got);
  }

  Seen seen_;

 private:
  void add(const engine::EngineStats& stats, const Outcome& got) {
    const DeviceCounts& counts = device().counts;
    seen_.device.passes += counts.passes;
    seen_.device.wide_passes += counts.wide_passes;
    seen_.device.graph_launches += counts.graph_launches;
    seen_.device.fact_passes += counts.fact_passes;
    seen_.device.undecided += counts.undecided;
    seen_.device.right_drafts += counts.right_drafts;
    seen_.preemptions += stats.num_preemptions;
    seen_.prefix_hits += stats.num_prefix_hits;
    seen_.cancelled += static_cast<int64_t>(got.cancelled.size());
  }
};

TEST_F(Emulated, AnySettingsGiveThePlainTexts) {
  constexpr uint64_t kSeeds = 48;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Dice dice(seed * 7919 + 1);
    const Settings settings = any_settings(dice);
    const auto style = static_cast<Style>(seed % 4);
    const int64_t count = settings.max_sequences > 100 ? settings.max_sequences + 30 : 50;
    hold(settings, seed, [&] {
      Dice requests(seed);
      return make_requests(requests, count, style);
    });
  }
  EXPECT_GT(seen_.device.wide_passes, 100);
  EXPECT_GT(seen_.device.graph_launches, 100);
  EXPECT_GT(seen_.device.fact_passes, 100);
  EXPECT_GT(seen_.device.undecided, 100);
  EXPECT_GT(seen_.device.right_drafts, 100);
  EXPECT_GT(seen_.preemptions, 10);
  EXPECT_GT(seen_.prefix_hits, 100);
  EXPECT_GT(seen_.cancelled, 10);
}

TEST_F(Emulated, StepsOfThousandsOfRowsGiveThePlainTexts) {
  constexpr uint64_t kSeeds = 8;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Dice dice(seed * 7919 + 2);
    hold(long_settings(dice), seed, [&] {
      Dice requests(seed);
      auto made = make_requests(requests, 6, static_cast<Style>(seed % 4));
      lengthen(made, requests);
      return made;
    });
  }
}

// Rows of logits are then given up before the next passes' are there, or kept.
TEST_F(Emulated, ManyRaisedIdsInSeveralPassesGiveThePlainTexts) {
  constexpr uint64_t kSeeds = 3;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Dice dice(seed * 7919 + 3);
    const Settings settings = many_settings(dice);
    hold(settings, seed, [&] {
      Dice requests(seed);
      return make_requests(requests, settings.max_sequences + 50, Style::kRaised);
    });
  }
  EXPECT_GT(seen_.device.fact_passes, 10);
}

}  // namespace
}  // namespace tandem::emulated
