// What every report of `tandem bench` says besides its figures.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "model/pair.h"

namespace tandem::bench {

struct ReportHead {
  std::string benchmark;  // "latency", "step", ...
  std::string version;
  std::string device;                                // as Device::description()
  std::string label = {};                            // --label
  std::map<std::string, std::string> metadata = {};  // --metadata KEY=VALUE
};

// {"benchmark", "date", "version", "label", "device", "machine", ...metadata}
nlohmann::ordered_json report_head(const ReportHead& head);

// What was run: shapes, formats, bytes of weights; "dummy" weights are named as such.
nlohmann::ordered_json model_json(const io::Checkpoint& checkpoint, bool dummy);

// "synthetic acceptance" and "dummy weights", for headings: empty when everything is real.
std::string remark(bool synthetic, bool dummy);

}  // namespace tandem::bench
