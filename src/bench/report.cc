#include "bench/report.h"

#include <nlohmann/json.hpp>

#include "bench/machine.h"

namespace tandem::bench {

using nlohmann::ordered_json;

ordered_json report_head(const ReportHead& head) {
  ordered_json json = {{"benchmark", head.benchmark},
                       {"date", utc_now()},
                       {"version", head.version},
                       {"device", head.device},
                       {"machine", machine_json()}};
  if (!head.label.empty()) json["label"] = head.label;
  for (const auto& [key, value] : head.metadata) json[key] = value;
  return json;
}

ordered_json model_json(const io::Checkpoint& checkpoint, bool dummy) {
  const io::TextConfig& text = checkpoint.config().text;
  const io::QuantizationInfo& quantization = checkpoint.quantization();
  int64_t bytes = 0;
  for (const auto& tensor : checkpoint.stored_tensors())
    if (!tensor.canonical_name.empty())
      bytes += tensor.view.shape.num_elements() *
               static_cast<int64_t>(core::dtype_bytes(tensor.view.dtype));
  return {{"name", io::folder_name(checkpoint.dir())},
          {"model_type", checkpoint.config().model_type},
          {"weights", dummy ? "dummy" : "checkpoint"},
          {"quantization", quantization.quantized ? quantization.algorithm : "BF16"},
          {"weight_bytes", bytes},
          {"hidden_size", text.hidden_size},
          {"intermediate_size", text.intermediate_size},
          {"num_hidden_layers", text.num_layers()},
          {"num_attention_heads", text.num_attention_heads},
          {"vocab_size", text.vocab_size},
          {"sliding_window", text.sliding_window}};
}

std::string remark(bool synthetic, bool dummy) {
  if (synthetic && dummy) return "synthetic acceptance, dummy weights";
  if (synthetic) return "synthetic acceptance";
  return dummy ? "dummy weights" : "";
}

}  // namespace tandem::bench
