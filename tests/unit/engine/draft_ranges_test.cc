// K that depends on how many requests run.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/unit/engine/fake_model.h"

namespace tandem::engine {
namespace {

using test::DraftStyle;
using test::FakeModel;
using test::FakeModelOptions;

TEST(DraftRanges, KIsThatOfTheNumberOfRunningRequests) {
  const FakeModelOptions fake{.style = DraftStyle::kRight};
  EngineOptions options = test::tiny_options({.max_num_batched_tokens = 64}, fake);
  options.drafts_from = {{2, 2}, {3, 0}};
  FakeModel model(options, fake);
  Engine engine(options, [&](const speculation::SpecBatch& batch) { return model.run(batch); });
  for (uint64_t id = 1; id <= 3; ++id) {
    EngineRequest request;
    request.id = id;
    request.prompt_ids = {3, 4, 5, static_cast<int32_t>(5 + id)};
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.max_tokens = id == 1 ? 60 : 20;
    if (id == 3) request.num_draft_tokens = 1;
    ASSERT_TRUE(engine.add_request(request).has_value());
  }
  // By number of running requests: what each round of a request drafted, its last one aside.
  std::map<uint64_t, std::map<int64_t, std::set<int>>> drafted;
  while (engine.has_work()) {
    const int64_t running = engine.stats().num_running;
    for (const TokenEvent& event : engine.step())
      if (!event.finish) drafted[event.id][running].insert(event.num_drafted);
  }
  EXPECT_EQ(drafted[1][3], std::set<int>{0});
  EXPECT_EQ(drafted[2][3], std::set<int>{0});
  EXPECT_EQ(drafted[3][3], std::set<int>{1});  // the request's own K stays
  EXPECT_EQ(drafted[1][2], std::set<int>{2});
  EXPECT_EQ(drafted[1][1], std::set<int>{4});
}

}  // namespace
}  // namespace tandem::engine
