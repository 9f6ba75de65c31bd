// What calibration keeps of the activations it saw.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/observer.h"

namespace tandem::quantize {

// One input, shared by all projections that read it.
struct InputObservation {
  int64_t num_rows = 0;
  float amax = 0;
  std::vector<uint64_t> magnitudes;  // [kNumMagnitudes] how often each |x| came (BF16 magnitudes)
  std::vector<double> square_sums;   // [in] sum of x^2 over the rows
  // [kNumMagnitudes] |x| counted with the weight of its channel; empty without channel weights.
  std::vector<double> weighted_magnitudes;
  std::vector<double> channel_weights;  // [in] or empty
  int64_t bad_channel = -1;             // of the first NaN or infinity

  // Mean square of each channel: [in].
  std::vector<double> mean_squares() const;
};

// K and V of one target layer, as they are written to the KV store.
struct KvObservation {
  int64_t num_rows = 0;
  float k_amax = 0;
  float v_amax = 0;
  bool finite = true;
};

class CalibrationObserver : public model::Observer {
 public:
  // `name` begins messages: "target", "assistant".
  CalibrationObserver(std::string name, bool with_kv) : name_(std::move(name)), with_kv_(with_kv) {}

  // Before the first row: channels of the input that `module` reads are weighted in
  // weighted_magnitudes (mse). weights [in].
  void set_channel_weights(const std::string& module, std::vector<double> weights);

  void on_linear_input(std::string_view module, const core::TensorView& x) override;
  void on_kv(int64_t layer, const core::TensorView& k, const core::TensorView& v) override;

  // The observation that stands for `module`'s input; null when no row reached it.
  const InputObservation* find(std::string_view module) const;
  const KvObservation* find_kv(int64_t layer) const;

  // NaN or infinity anywhere is refused by name.
  base::Status check_finite() const;

 private:
  std::string name_;
  bool with_kv_;
  bool any_bad_ = false;
  std::map<std::string, InputObservation, std::less<>> inputs_;  // by shared_input()
  std::map<int64_t, KvObservation> kv_;
};

}  // namespace tandem::quantize
