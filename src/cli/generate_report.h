// What is said of a finished answer: one JSON object, or one line of a person's reading.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/answer.h"
#include "engine/request.h"
#include "speculation/acceptance.h"

namespace tandem::cli {

struct AnswerReport {
  std::shared_ptr<const nlohmann::ordered_json> id;  // null: the index
  size_t index = 0;
  const std::string* prompt = nullptr;  // null: token ids were given
  const Answer* answer = nullptr;
  const engine::Finish* finish = nullptr;
  int num_draft_tokens = 0;  // K
  bool synthetic = false;
};

// One line of JSON.
std::string answer_json(const AnswerReport& report);

// "stop", "length", "cancelled" or "error".
std::string finish_reason_name(engine::FinishReason reason);

// `31 tokens in 0.21 s (148 tokens/s); 48 drafted, 22 accepted (46 %), mean acceptance length
// 2.83, per position 0.75 0.50 0.33 0.25`
std::string describe_run(int64_t num_tokens, double seconds,
                         const speculation::AcceptanceStats& acceptance, int num_draft_tokens,
                         bool synthetic);

}  // namespace tandem::cli
