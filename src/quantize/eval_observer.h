// What an evaluation keeps of the activations it sees: ranges, and a few rows to try layers on.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/buffer.h"
#include "model/observer.h"
#include "quantize/eval_result.h"

namespace tandem::quantize {

// Counts one value; NaN and infinity are passed over (answers with them fail elsewhere).
void count_magnitude(float value, MagnitudeCounts& counts);

class EvalObserver : public model::Observer {
 public:
  static constexpr int64_t kRows = 32;  // kept per input

  struct Input {
    MagnitudeCounts magnitudes;
    int64_t num_rows = 0;  // seen
    core::Buffer rows;     // [kRows, in], spread evenly over what was seen
    int64_t num_kept = 0;
    core::TensorView kept() const { return rows.rows(num_kept); }
  };
  struct Kv {
    float k_amax = 0, v_amax = 0;
  };

  void on_linear_input(std::string_view module, const core::TensorView& x) override;
  void on_kv(int64_t layer, const core::TensorView& k, const core::TensorView& v) override;

  // The input of a module, which others may share; null when no row reached it.
  const Input* find(std::string_view module) const;
  const std::map<int64_t, Kv>& kv() const { return kv_; }

 private:
  void keep(const core::TensorView& x, int64_t row, Input& input);

  std::map<std::string, Input, std::less<>> inputs_;  // by shared_input()
  std::map<int64_t, Kv> kv_;
  uint64_t state_ = 0x9e3779b97f4a7c15U;  // of the choice of rows: the same in every run
};

}  // namespace tandem::quantize
