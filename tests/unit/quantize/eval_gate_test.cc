#include "quantize/eval_gate.h"

#include <gtest/gtest.h>

#include "quantize/eval_html.h"
#include "quantize/eval_json.h"
#include "quantize/eval_summary.h"

namespace tandem::quantize {
namespace {

PairScore score_with(int64_t accepted_first, int64_t num_drafts) {
  PairScore score;
  score.all.num_prompts = 10;
  score.all.num_scored = 10;
  score.all.num_exact = 9;
  for (int64_t i = 0; i < num_drafts; ++i) score.all.stats.add_round(4, i < accepted_first ? 2 : 0);
  score.tasks.push_back(score.all);
  score.tasks[0].task = "sum";
  return score;
}

ModuleScore module_named(const std::string& name, bool assistant = true) {
  ModuleScore score;
  score.assistant = assistant;
  score.module = name;
  score.format = io::WeightFormat::kFp8PerTensor;
  score.static_input = true;
  score.weight_scale = 0.01F;
  score.input_scale = 0.1F;
  score.input.amax = 44.8F;
  score.input.counts[130] = 5;
  score.correlation = 0.9995;
  score.weight_error = 0.02;
  score.output_error = 0.03;
  return score;
}

// A candidate that is as good as its reference.
EvalResult good_result() {
  EvalResult result;
  result.names = {"t8", "a8", "t16", "a16", "prompts", "answers"};
  result.num_draft_tokens = 4;
  result.candidate = score_with(90, 100);
  result.reference = score_with(90, 100);
  result.text = TextScore{10, 100, 1.1, TextScore::Comparison{1.1, 0.001, 0.01, 0.1, 0.99}};
  for (const char* name : {"layers.0.mlp.gate_proj", "layers.0.mlp.down_proj"})
    result.modules.push_back(module_named(name));
  return result;
}

// The kinds of the causes, and that the gate fails because of them.
std::vector<std::string> kinds_of(const EvalResult& result) {
  const GateResult gate = judge(result, {});
  EXPECT_FALSE(gate.passed);
  std::vector<std::string> kinds;
  for (const Cause& cause : gate.causes) kinds.push_back(cause.kind);
  return kinds;
}

using Kinds = std::vector<std::string>;

TEST(EvalGate, PassesWhatIsAsGoodAsTheReference) {
  const GateResult gate = judge(good_result(), {});
  EXPECT_TRUE(gate.passed);
  EXPECT_TRUE(gate.causes.empty());
  EXPECT_EQ(gate.checks.size(), 3U);
}

TEST(EvalGate, BoundsAreInclusive) {
  EvalResult result = good_result();
  GateBounds bounds;
  bounds.max_kl = 0.001;
  EXPECT_TRUE(judge(result, bounds).passed);
  result.text->comparison->kl_mean = 0.00101;
  EXPECT_FALSE(judge(result, bounds).passed);
  result = good_result();
  result.candidate = score_with(80, 100);  // length 2.6 against 2.8: 0.93
  EXPECT_FALSE(judge(result, {}).passed);
  bounds = {};
  bounds.min_acceptance_ratio = 0.92;
  EXPECT_TRUE(judge(result, bounds).passed);
}

TEST(EvalGate, ExactAnswersLost) {
  EvalResult result = good_result();
  result.candidate->all.num_exact = 8;  // of 10: one tenth more than the bound allows
  EXPECT_FALSE(judge(result, {}).passed);
  result.candidate->all.num_exact = 10;
  EXPECT_TRUE(judge(result, {}).passed);
}

TEST(EvalGate, AsManyExactAnswersLostAsTheBoundAllows) {
  for (int64_t kept = 1; kept <= 190; ++kept) {
    EvalResult result = good_result();
    result.reference->all.num_scored = result.candidate->all.num_scored = 200;
    result.reference->all.num_exact = kept + 10;
    result.candidate->all.num_exact = kept;
    EXPECT_TRUE(judge(result, {}).passed) << kept << " against " << kept + 10;
    result.candidate->all.num_exact = kept - 1;
    EXPECT_FALSE(judge(result, {}).passed) << kept - 1 << " against " << kept + 10;
  }
}

TEST(EvalGate, AFailureWithoutAKnownCauseSaysSo) {
  EvalResult result = good_result();
  result.text->comparison->kl_mean = 1;
  EXPECT_EQ(kinds_of(result), Kinds{"unknown"});
}

TEST(EvalGate, WeightsTwiceTheReference) {
  EvalResult result = good_result();
  for (ModuleScore& score : result.modules) score.factor = 2.0004;
  const GateResult gate = judge(result, {});
  ASSERT_EQ(gate.causes.size(), 1U);
  EXPECT_EQ(gate.causes[0].message,
            "assistant: the weights of 2 modules (layers.0.mlp.gate_proj, layers.0.mlp.down_proj) "
            "are 2.00 times the reference's: weight_scale is wrong by that factor");
}

TEST(EvalGate, FactorWithinRoundingIsNoDefect) {
  EvalResult result = good_result();
  result.modules[0].factor = 0.99;
  EXPECT_TRUE(judge(result, {}).passed);
}

TEST(EvalGate, ScaleOfOneIsALostScale) {
  EvalResult result = good_result();
  result.modules[1].factor = 100;
  result.modules[1].weight_scale = 1;
  EXPECT_EQ(kinds_of(result), Kinds{"scales_lost"});
  result = good_result();
  result.modules[1].input_scale = 1;  // covers 448, inputs stay below 1
  result.modules[1].input.amax = 0.9F;
  EXPECT_EQ(kinds_of(result), Kinds{"input_scales_lost"});
  result.modules[1].input.amax = 300;  // 1 may be right
  EXPECT_TRUE(judge(result, {}).passed);
}

TEST(EvalGate, InputScalesThatNoCalibrationGives) {
  EvalResult result = good_result();
  result.modules[0].input.amax = 100;
  EXPECT_EQ(kinds_of(result), Kinds{"input_scale"});
  result.modules[0].input.amax = 1;
  EXPECT_EQ(kinds_of(result), Kinds{"input_scale"});
  result.modules[0].static_input = false;  // weight-only: not used
  EXPECT_TRUE(judge(result, {}).passed);
}

TEST(EvalGate, OtherWeightsAndExchangedHalves) {
  EvalResult result = good_result();
  result.modules[0].correlation = 0.01;
  EXPECT_EQ(kinds_of(result), Kinds{"other_weights"});
  result = good_result();
  result.modules.push_back(module_named("pre_projection"));
  result.modules.back().format = io::WeightFormat::kBF16;
  result.modules.back().correlation = 0.01;
  result.modules.back().swapped_correlation = 0.9999;
  EXPECT_EQ(kinds_of(result), Kinds{"swapped_halves"});
}

TEST(EvalGate, KvScalesThatWereNotInherited) {
  EvalResult result = good_result();
  result.kv_fp8 = true;
  result.kv.push_back({3, 1, 1, 6.0F, 4.0F, true});
  const GateResult gate = judge(result, {});
  ASSERT_EQ(gate.causes.size(), 1U);
  EXPECT_NE(gate.causes[0].message.find("KV scales were not inherited"), std::string::npos);
  result.kv[0].calibrated = false;  // ModelOpt's default KV format has constant scales
  EXPECT_TRUE(judge(result, {}).passed);
  result.kv[0] = {3, 0.001F, 0.001F, 6.0F, 4.0F, true};
  EXPECT_EQ(kinds_of(result), Kinds{"kv_scales"});
  result.kv_fp8 = false;  // not used
  EXPECT_TRUE(judge(result, {}).passed);
}

TEST(EvalGate, PositionOffset) {
  EvalResult result = good_result();
  result.offset = OffsetProbe{1, 2.5, 2.6};
  EXPECT_EQ(kinds_of(result), Kinds{"position_offset"});
  result.offset = OffsetProbe{1, 2.6, 2.6};
  EXPECT_TRUE(judge(result, {}).passed);
  result.offset = OffsetProbe{0, 1.1, 1.2};  // explained by something else
  result.modules[0].factor = 3;
  EXPECT_EQ(kinds_of(result), Kinds{"weights_factor"});
}

TEST(EvalGate, WrongPairOnlyWhenNothingElseExplainsIt) {
  EvalResult result = good_result();
  result.candidate = score_with(2, 100);
  EXPECT_EQ(kinds_of(result), Kinds{"wrong_pair"});
  result.modules[0].factor = 3;
  EXPECT_EQ(kinds_of(result), Kinds{"weights_factor"});
}

TEST(EvalGate, ListsNames) {
  EXPECT_EQ(list_names({}), "");
  EXPECT_EQ(list_names({"a", "b"}), "a, b");
  EXPECT_EQ(list_names({"a", "b", "c", "d"}), "a, b and 2 more");
}

TEST(EvalReport, HeadlineSaysWhatWasLost) {
  EvalResult result = good_result();
  EXPECT_EQ(eval_headline(result),
            "No acceptance length was lost; exact answers are unchanged (9 of 10).");
  result.candidate = score_with(80, 100);
  result.candidate->all.num_exact = 7;
  EXPECT_EQ(eval_headline(result),
            "The candidate keeps 92.9 % (± 7.0 %) of the acceptance length; it lost 2 of 9 exact "
            "answers.");
}

TEST(EvalReport, PageAsksForNothingAndEscapesNames) {
  EvalResult result = good_result();
  result.names.target = "<b>&\"x\"</b>";
  result.candidate->tasks[0].task = "<script>";
  const GateResult gate = judge(result, {});
  const std::string html = eval_html(result, &gate);
  for (const char* forbidden : {"<script", "http:", "https:", "<b>", "url(", "@import"})
    EXPECT_EQ(html.find(forbidden), std::string::npos) << forbidden;
  EXPECT_NE(html.find("&lt;script&gt;"), std::string::npos);
  EXPECT_NE(html.find("within the bounds"), std::string::npos);
}

TEST(EvalReport, JsonHoldsTheGate) {
  EvalResult result = good_result();
  result.modules[0].factor = 2;
  const GateResult gate = judge(result, {});
  const std::string json = eval_json(result, &gate);
  EXPECT_NE(json.find("\"kind\": \"weights_factor\""), std::string::npos);
  EXPECT_NE(json.find("\"mean_acceptance_length\": 2.8"), std::string::npos);
  EXPECT_EQ(eval_json(result, nullptr).find("\"gate\""), std::string::npos);
}

}  // namespace
}  // namespace tandem::quantize
