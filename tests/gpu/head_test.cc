// The head's reductions. full_logits() is held against the reference within a few FP32 steps;
// argmax is then held exactly against the host's code on the device's logits.
#include "ops/cuda/head.h"

#include <functional>
#include <optional>

#include "ops/argmax.h"
#include "sampling/candidates.h"
#include "tests/gpu/row_support.h"

namespace tandem {
namespace {

using ops::cuda::DeviceBuffer;
using ops::cuda::HeadLogits;
using tests::HostSums;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kScale = 0.8125F;

// One head on the device and what the kernels make of it.
class Head {
 public:
  Head(int num_rows, int vocab, float cap, std::vector<int32_t> suppressed = {}, int active = -1)
      : sums((num_rows + 7) / 8 * 8, vocab, 6, std::max(vocab / 128 * 2 / 3, 1)),
        suppressed_ids(std::move(suppressed)),
        suppressed_device_(tests::to_device(suppressed_ids)) {
    logits_.num_rows = active < 0 ? num_rows : active;
    logits_.vocab_size = vocab;
    logits_.scale = kScale;
    logits_.cap = cap;
    logits_.suppressed = suppressed_device_.as<int32_t>();
    logits_.num_suppressed = static_cast<int>(suppressed_ids.size());
  }

  // Each token's own scale; NaN up to the end of the last set.
  void use_own_scales() {
    scales.assign(static_cast<size_t>((vocab() + 127) / 128 * 128), kNan);
    for (int id = 0; id < vocab(); ++id)
      scales[static_cast<size_t>(id)] = 0.25F + static_cast<float>(id * 7 % 64) / 32.0F;
    scales_device_ = tests::to_device(scales);
    logits_.scales = scales_device_.as<float>();
  }
  float scale_of(int id) const { return scales.empty() ? kScale : scales[static_cast<size_t>(id)]; }
  int rows() const { return logits_.num_rows; }
  int vocab() const { return logits_.vocab_size; }
  const HeadLogits& upload() {
    logits_.sums = sums.upload();
    return logits_;
  }

  std::vector<float> full(const std::vector<int32_t>& which = {}) {
    const auto num_out = which.empty() ? static_cast<size_t>(rows()) : which.size();
    const auto rows_device = tests::to_device(which);
    const size_t count = num_out * static_cast<size_t>(vocab());
    const auto out = tests::poisoned(count * 4 + 64);
    ops::cuda::full_logits({}, upload(), which.empty() ? nullptr : rows_device.as<int32_t>(),
                           static_cast<int>(num_out), out.as<float>());
    tests::synchronize();
    auto values = tests::to_host<float>(out, count + 16);
    for (size_t i = count; i < count + 16; ++i)
      EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), ~0U) << "written beyond the end";
    values.resize(count);
    return values;
  }

  std::vector<int32_t> argmax() {
    const size_t bytes = ops::cuda::argmax_scratch_bytes(rows());
    const DeviceBuffer scratch(bytes);
    TANDEM_CUDA_CHECK(cudaMemset(scratch.data(), 0, bytes));
    const auto tokens = tests::poisoned(static_cast<size_t>(rows()) * 4);
    upload();
    for (int repeat = 0; repeat < 2; ++repeat) {  // the scratch is as good as new
      TANDEM_CUDA_CHECK(cudaMemset(tokens.data(), 0x7f, tokens.size_bytes()));
      ops::cuda::argmax_rows({}, logits_, scratch.data(), tokens.as<int32_t>());
    }
    tests::synchronize();
    EXPECT_EQ(tests::to_host<uint8_t>(scratch, bytes), std::vector<uint8_t>(bytes));
    return tests::to_host<int32_t>(tokens, static_cast<size_t>(rows()));
  }

  // Everything against the host's code.
  void expect_all() {
    std::vector<float> logits = full();
    std::vector<int32_t> expected(static_cast<size_t>(rows()));
    ops::argmax({ops::Backend::kReference, nullptr},
                core::TensorView(logits.data(), core::DType::kF32, {rows(), vocab()}),
                suppressed_ids, expected);
    EXPECT_EQ(argmax(), expected);
  }

  HostSums sums;
  std::vector<int32_t> suppressed_ids;
  std::vector<float> scales;

 private:
  DeviceBuffer suppressed_device_;
  DeviceBuffer scales_device_;
  HeadLogits logits_;
};

// tanh and one division and product of FP32: each a few steps of the value or of the cap's slope.
TEST(FullLogits, AreThoseOfTheReference) {
  for (const int vocab : {130, 300, 4096}) {
    for (const float cap : {0.0F, 30.0F}) {
      Head head(16, vocab, cap);
      if (vocab == 300) head.use_own_scales();
      head.sums.fill_normal(3, 25.0F, 16);
      const std::vector<int32_t> which = {15, 0, 7, 8, 7};
      const auto got = head.full(which);
      int failures = 0;
      for (size_t i = 0; i < which.size(); ++i)
        for (int id = 0; id < vocab; ++id) {
          const double x = double{head.sums.at(which[i], id) * head.scale_of(id)};
          const double expected = cap > 0.0F ? double{cap} * std::tanh(x / double{cap}) : x;
          const double value =
              double{got[i * static_cast<size_t>(vocab) + static_cast<size_t>(id)]};
          if (std::abs(value - expected) <= std::abs(expected) * 0x1p-21) continue;
          if (++failures <= 5)
            ADD_FAILURE() << "row " << which[i] << " id " << id << ": expected " << expected
                          << ", got " << value;
        }
      EXPECT_EQ(failures, 0);
      EXPECT_EQ(head.full().size(), static_cast<size_t>(16 * vocab));
    }
  }
}

TEST(Head, RandomRows) {
  for (const int vocab : {3, 40, 128, 300, 1500, 4097, 20000})
    for (const float cap : {0.0F, 30.0F}) {
      SCOPED_TRACE(vocab);
      Head head(11, vocab, cap, {vocab - 1, 0, vocab / 2, vocab / 2, -1, vocab, vocab + 7});
      head.sums.fill_normal(static_cast<uint32_t>(vocab), 9.0F, 11);
      head.expect_all();
      head.use_own_scales();
      head.expect_all();
    }
}

TEST(Head, AWholeVocabulary) {
  Head head(5, 262144, 30.0F, {258, 262143});
  head.sums.fill_normal(5, 4.0F, 5);
  head.expect_all();
}

// Vocabularies in which one thing is special; each with and without the cap.
struct Special {
  const char* name;
  std::function<float(int id)> logit;  // before the scale
  std::vector<int32_t> suppressed = {};
  std::optional<int32_t> greedy = {};         // the token, where it is plain to see
  std::optional<int32_t> greedy_capped = {};  // with the cap, where it is another one
};

constexpr int kVocab = 9000;
constexpr int kSaturated = 400;  // times the scale: 325, far above 9 * 30

std::vector<int32_t> range(int32_t begin, int32_t end) {
  std::vector<int32_t> ids;
  for (int32_t id = begin; id < end; ++id) ids.push_back(id);
  return ids;
}

const Special kSpecials[] = {
    {.name = "all equal", .logit = [](int) { return 2.0F; }, .greedy = 0},
    {.name = "all equal, the first 70 suppressed",
     .logit = [](int) { return -2.0F; },
     .suppressed = range(0, 70),
     .greedy = 70},
    {.name = "growing",
     .logit = [](int id) { return static_cast<float>(id) * 1e-3F; },
     .greedy = kVocab - 1},
    {.name = "falling, negative",
     .logit = [](int id) { return -static_cast<float>(id) - 1.0F; },
     .greedy = 0},
    // tanh is 1 from about 9 caps on: the lowest id up there wins, not the largest logit.
    {.name = "saturated",
     .logit = [](int id) { return id < kSaturated ? 1.0F : static_cast<float>(id); },
     .greedy = kVocab - 1,
     .greedy_capped = kSaturated},
    {.name = "zeros of both signs",
     .logit = [](int id) { return id < 4000     ? -1.0F
                                  : id % 2 == 0 ? -0.0F
                                                : 0.0F; },
     .greedy = 4000},
    {.name = "minus infinity but one",
     .logit = [](int id) { return id == 8191 ? -1e30F : -kInfinity; },
     .greedy = 8191,
     .greedy_capped = 0},
    {.name = "minus infinity",
     .logit = [](int) { return -kInfinity; },
     .greedy = -1,
     .greedy_capped = 0},
    {.name = "plus infinity",
     .logit = [](int id) { return id == 5000 ? kInfinity : 1.0F; },
     .greedy = -1,
     .greedy_capped = 5000},
    {.name = "NaN", .logit = [](int id) { return id == kVocab - 1 ? kNan : 1.0F; }, .greedy = -1},
    {.name = "NaN at a suppressed id",
     .logit = [](int id) { return id == 77 ? kNan : 1.0F; },
     .suppressed = {77},
     .greedy = -1},
    // Under the cap many neighbours are equal; without it fewer are.
    {.name = "close together",
     .logit = [](int id) { return id < 1000 ? 0.0F : 120.0F + static_cast<float>(id) * 0x1p-17F; }},
    // The last of the 64 is the largest of its set.
    {.name = "a peak in every set",
     .logit = [](int id) { return id % 128 == 5 ? 10.0F + static_cast<float>(id) * 1e-3F : 0.0F; },
     .greedy = 8965},
    {.name = "the largest is suppressed",
     .logit = [](int id) { return id == 100    ? 50.0F
                                  : id == 4200 ? 49.0F
                                               : 0.0F; },
     .suppressed = {100},
     .greedy = 4200},
    {.name = "everything is suppressed",
     .logit = [](int id) { return static_cast<float>(id % 7); },
     .suppressed = range(0, kVocab),
     .greedy = -1},
};

TEST(Head, SpecialRows) {
  for (const Special& special : kSpecials) {
    for (const float cap : {0.0F, 30.0F}) {
      SCOPED_TRACE(testing::Message() << special.name << ", cap " << cap);
      Head head(3, kVocab, cap, special.suppressed);
      for (int id = 0; id < kVocab; ++id)
        for (int row = 0; row < 3; ++row)
          head.sums.set(row, id, row == 1 ? special.logit(id) : static_cast<float>(id % 50));
      head.expect_all();
      auto expected = special.greedy;
      if (cap > 0.0F && special.greedy_capped) expected = special.greedy_capped;
      if (!expected) continue;
      EXPECT_EQ(head.argmax()[1], *expected);
    }
  }
}

// Rows beyond num_rows are NaN in HostSums: they are not read, and neighbours change nothing.
TEST(Head, ARowIsTheSameInEveryCompany) {
  constexpr int kSize = 5000;
  Head many(64, kSize, 30.0F, {17});
  many.sums.fill_normal(4, 9.0F, 64);
  const auto tokens = many.argmax();
  Head alone(8, kSize, 30.0F, {17}, 1);
  for (const int row : {0, 7, 8, 63}) {
    alone.sums.copy_row(many.sums, row, 0);
    EXPECT_EQ(alone.argmax()[0], tokens[static_cast<size_t>(row)]);
  }
}

// The draft goes where next_draft_token() would have put it.
TEST(Head, HandsDraftsOver) {
  Head head(8, 2000, 0.0F);
  head.sums.fill_normal(4, 9.0F, 8);
  head.sums.set(2, 1999, kNan);
  const std::vector<int32_t> first_rows = {0, 5, 10, 15, 20};
  const std::vector<int32_t> wanted = {4, 0, 4, 1, 2};
  const auto first_device = tests::to_device(first_rows);
  const auto wanted_device = tests::to_device(wanted);
  const auto scratch = tests::to_device(std::vector<uint8_t>(ops::cuda::argmax_scratch_bytes(8)));
  std::vector<std::vector<int32_t>> results;
  for (const bool fused : {true, false}) {
    const auto verify = tests::to_device(std::vector<int32_t>(25, 1));
    const auto inputs = tests::to_device(std::vector<int32_t>(8, 1));
    const auto counts = tests::to_device(std::vector<int32_t>(5, 7));
    const auto tokens = tests::poisoned(8 * 4);
    for (int step = 0; step < 3; ++step) {
      const ops::cuda::DraftToken draft = {step,
                                           5,
                                           first_device.as<int32_t>(),
                                           wanted_device.as<int32_t>(),
                                           counts.as<int32_t>(),
                                           verify.as<int32_t>(),
                                           inputs.as<int32_t>()};
      ops::cuda::argmax_rows({}, head.upload(), scratch.data(), tokens.as<int32_t>(),
                             fused ? &draft : nullptr);
      if (!fused) ops::cuda::next_draft_token({}, draft, tokens.as<int32_t>());
      tests::synchronize();
    }
    auto all = tests::to_host<int32_t>(verify, 25);
    for (const int32_t x : tests::to_host<int32_t>(inputs, 8)) all.push_back(x);
    for (const int32_t x : tests::to_host<int32_t>(counts, 5)) all.push_back(x);
    results.push_back(all);
  }
  EXPECT_EQ(results[0], results[1]);
  const std::vector<int32_t> counts(results[0].end() - 5, results[0].end());
  EXPECT_EQ(counts, (std::vector<int32_t>{3, 0, 0, 1, 2}));
}

}  // namespace
}  // namespace tandem
