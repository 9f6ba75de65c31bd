// A tiny pair of random weights through an engine: of two drafts the first is always accepted, the
// second never.
#pragma once

#include <filesystem>

#include "engine/runtime.h"
#include "tests/support/tiny_checkpoint.h"

namespace tandem::bench {

// `folder`: where the pair is written.
inline engine::RuntimeOptions tiny_options(const std::filesystem::path& folder) {
  const auto tiny = test_support::write_tiny_pair(folder, {.layers = "ssf"});
  engine::RuntimeOptions options;
  options.pair.target = tiny.target;
  options.pair.assistant = tiny.assistant;
  options.pair.load.dummy = true;
  options.num_draft_tokens = 2;
  options.synthetic = *speculation::SyntheticAcceptance::from_rates({1.0, 0.0});
  options.prefix_caching = false;
  return options;
}

}  // namespace tandem::bench
