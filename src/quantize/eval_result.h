// What an evaluation measures: plain values, made by eval_run, read by the gate, JSON and report.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/quantization_config.h"
#include "speculation/acceptance.h"

namespace tandem::quantize {

// Greedy answers of one pair to the prompts of one task ("sum", "story"), or to all of them.
struct TaskScore {
  std::string task;
  int64_t num_prompts = 0;
  int64_t num_tokens = 0;  // of the answers
  int64_t num_scored = 0;  // prompts with a known answer
  int64_t num_exact = 0;   // of those, answered to the letter
  speculation::AcceptanceStats stats;

  void add(const TaskScore& other);
  double exact_rate() const;  // 0 when nothing was scored
};

struct PairScore {
  TaskScore all;
  std::vector<TaskScore> tasks;  // by name
};

// Teacher-forced: every token of the texts judged by its prefix.
struct TextScore {
  int64_t num_texts = 0;
  int64_t num_tokens = 0;
  double perplexity = 0;
  // Against the reference; nothing without one. KL(reference || candidate) in nats per token.
  struct Comparison {
    double perplexity = 0;  // the reference's
    double kl_mean = 0;
    double kl_p99 = 0;
    double kl_max = 0;
    double same_choice = 0;  // share of tokens where both find the same token likeliest
  };
  std::optional<Comparison> comparison;
};

// How often inputs had the exponent e: counts[e + 127] of |x| in [2^e, 2^(e+1)); zeros apart.
struct MagnitudeCounts {
  std::array<int64_t, 256> counts{};
  int64_t num_zeros = 0;
  float amax = 0;
};

// One projection of the candidate beside the same projection of the reference.
struct ModuleScore {
  bool assistant = false;
  std::string module;  // canonical
  io::WeightFormat format = io::WeightFormat::kBF16;
  io::WeightFormat reference_format = io::WeightFormat::kBF16;
  bool static_input = false;  // the input is quantized with input_scale
  float weight_scale = 1;
  float input_scale = 0;
  // Dequantized weights w against the reference's r: w = factor * r + rest.
  double factor = 1;
  double correlation = 1;
  double swapped_correlation = 0;      // pre_projection: with its two input halves exchanged
  double weight_error = 0;             // |w - r| / |r|
  std::optional<double> output_error;  // |y_w - y_r| / |y_r| on the reference's inputs
  MagnitudeCounts input;               // as the reference's runs saw it; amax 0: never

  // amax / (448 * input_scale): 1 fills the range, more is clipped. 0 without a static scale.
  double scale_use() const;
};

// K and V of a target layer, in the reference's runs, and the candidate's scales for them.
struct KvScore {
  int64_t layer = 0;
  float k_scale = 1, v_scale = 1;
  float k_amax = 0, v_amax = 0;
  bool calibrated = false;  // the checkpoint has scales of its own
};

// The same prompts at both positions of draft queries.
struct OffsetProbe {
  int offset = 0;
  double length = 0;
  double other_length = 0;  // at 1 - offset
};

struct EvalNames {
  std::string target, assistant;                      // folders; assistant may be empty
  std::string reference_target, reference_assistant;  // empty without a reference
  std::string prompts, text;                          // what was asked, what was scored
};

struct EvalResult {
  std::string version;
  EvalNames names;
  int num_draft_tokens = 0;
  int draft_position_offset = 0;
  bool kv_fp8 = false;  // the candidate ran with an FP8 KV cache
  std::optional<PairScore> candidate;
  std::optional<PairScore> reference;
  std::optional<TextScore> text;
  std::vector<ModuleScore> modules;
  std::vector<KvScore> kv;
  std::optional<OffsetProbe> offset;
};

}  // namespace tandem::quantize
