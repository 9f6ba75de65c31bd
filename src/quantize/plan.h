// What becomes of every module of one model: its precision and its scales.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "core/thread_pool.h"
#include "io/checkpoint.h"
#include "quantize/observation.h"
#include "quantize/progress.h"
#include "quantize/scales.h"
#include "quantize/weight_pass.h"

namespace tandem::quantize {

struct ScaleOptions {
  ScaleMethod method = ScaleMethod::kMax;
  double percentile = 99.99;
  Quotient quotient = Quotient::kFloat32;
  bool weight_only = false;  // the config says that input scales are not used
  bool kv_fp8 = false;       // targets: also k_scale and v_scale
};

struct ModuleScales {
  float weight_amax = 0;
  float weight_scale = 1;
  float input_amax = 0;
  float input_scale = 1;
};

struct KvLayerScales {
  float k_amax = 0;
  float v_amax = 0;
  float k_scale = 1;
  float v_scale = 1;
};

struct ModelPlan {
  ScaleOptions options;
  std::map<std::string, ModuleScales> quantized;  // canonical module; the others stay BF16
  std::set<std::string> excluded;                 // those kept in BF16 on request
  std::vector<KvLayerScales> kv;                  // per layer, or empty
};

// Refuses a checkpoint that is quantized already.
base::Status require_bf16(const io::Checkpoint& checkpoint);

// Before calibration with kMse: tells the observer how much each input channel matters, the sum of
// squares of the weights that read it.
base::Status weigh_channels(const io::Checkpoint& checkpoint, core::ThreadPool& pool,
                            const Progress& progress, CalibrationObserver& observer);

// Scales of all modules but `excluded`. Refused by name: an input that calibration never exercised,
// weights with NaN or infinity.
base::Result<ModelPlan> plan_scales(const io::Checkpoint& checkpoint,
                                    const CalibrationObserver& observer,
                                    const std::set<std::string>& excluded,
                                    const ScaleOptions& options, core::ThreadPool& pool,
                                    const Progress& progress);

}  // namespace tandem::quantize
