// The plots of an evaluation's report. Each is a <figure> with its heading, its picture and the
// same figures as a table, or empty when the result has nothing to draw.
#pragma once

#include <string>
#include <vector>

#include "quantize/eval_result.h"

namespace tandem::quantize {

std::string position_chart(const EvalResult& result);
std::string task_chart(const EvalResult& result);
// Rows are kinds of projections, columns are layers.
std::string layer_error_chart(const EvalResult& result, bool assistant);
// Where the inputs of FP8 projections lie in the range their scales give them.
std::string range_chart(const EvalResult& result, bool assistant);
// How many inputs have which largest value.
std::string amax_chart(const EvalResult& result);

// Parts that the two files of charts share.
struct Table {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows;
};
std::string figure(const std::string& heading, const std::string& picture,
                   const std::string& caption, const Table& table);
// "layers.3.mlp.up_proj" -> 3; -1 outside the layers.
int64_t layer_of(const std::string& module);
// "layers.3.mlp.up_proj" -> "up_proj".
std::string kind_of(const std::string& module);

}  // namespace tandem::quantize
