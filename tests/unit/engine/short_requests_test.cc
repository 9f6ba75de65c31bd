// Requests that fill the pages of their longest length at once, over forwards of a small random
// pair.
#include <gtest/gtest.h>

#include "engine/runtime.h"

namespace tandem::engine {
namespace {

// Pages were just as many as all of them fill, and half waited for the others.
TEST(ShortRequests, RunAsManyAtOnceAsAskedFor) {
  RuntimeOptions options;
  options.pair.target = std::filesystem::path(TANDEM_TEST_DATA) / "golden" / "unified" / "target";
  options.num_threads = 1;
  options.max_num_seqs = 8;
  options.max_model_len = 5;
  const auto runtime = Runtime::open(options);
  ASSERT_TRUE(runtime.has_value()) << runtime.error().message;
  Engine& engine = (*runtime)->engine();
  for (uint64_t id = 0; id < 8; ++id) {
    EngineRequest request;
    request.id = id;
    request.prompt_ids = {7, static_cast<int32_t>(8 + id)};
    request.sampling.ignore_eos = true;
    request.max_tokens = 3;
    ASSERT_TRUE(engine.add_request(request).has_value());
  }
  EXPECT_EQ(engine.step().size(), 8U);
  EXPECT_EQ(engine.stats().num_waiting, 0);
  while (engine.has_work()) engine.step();
}

}  // namespace
}  // namespace tandem::engine
