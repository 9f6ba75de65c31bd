// Requests through an engine so many at a time, with so many drafts: for the tests that hold one
// load against another in the same runtime.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "tests/gpu/pair/outcome.h"

namespace tandem::tests {

struct Load {
  int drafts = 0;
  size_t batch = 1;  // requests at once
  size_t count = 0;  // the first ones of all
};

// A new request begins whenever one ends. Acceptance is of these requests alone.
inline Outcome decode(engine::Engine& engine, const std::vector<engine::EngineRequest>& requests,
                      const Load& load) {
  Outcome outcome;
  const speculation::AcceptanceStats before = engine.stats().acceptance;
  size_t next = 0;
  size_t running = 0;
  while (running > 0 || next < load.count) {
    for (; running < load.batch && next < load.count; ++next, ++running) {
      engine::EngineRequest request = requests[next];
      request.num_draft_tokens = load.drafts;
      const auto added = engine.add_request(std::move(request));
      EXPECT_TRUE(added.has_value()) << added.error().message;
      if (!added) return outcome;
    }
    for (const engine::TokenEvent& event : engine.step()) {
      outcome.take(event);
      if (event.finish) --running;
    }
  }
  outcome.acceptance = engine.stats().acceptance.since(before);
  return outcome;
}

}  // namespace tandem::tests
