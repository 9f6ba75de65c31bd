#include "bench/linear_shapes.h"

#include <algorithm>
#include <numeric>

namespace tandem::bench {
namespace {

using ops::ActivationQuantization;
using ops::LinearFormat;

class ShapeList {
 public:
  ShapeList(const io::QuantizationConfig& quantization, const std::string& prefix)
      : quantization_(quantization), prefix_(prefix) {}

  // `module`: a canonical module of the group, which says whether it is quantized.
  void add(const std::string& name, const std::string& module, int64_t in,
           std::vector<int64_t> outs) {
    LinearShape shape;
    shape.name = prefix_ + name;
    shape.in = in;
    shape.outs = std::move(outs);
    shape.num_in_model = 1;
    set_format(module, shape);
    const auto same = std::ranges::find_if(shapes_, [&](const LinearShape& other) {
      return other.name == shape.name && other.in == shape.in && other.outs == shape.outs &&
             other.format == shape.format;
    });
    if (same != shapes_.end())
      ++same->num_in_model;
    else
      shapes_.push_back(std::move(shape));
  }

  std::vector<LinearShape> take() { return std::move(shapes_); }

 private:
  void set_format(const std::string& module, LinearShape& shape) const {
    const bool plain = module == "lm_head" || module == "pre_projection" ||
                       module == "post_projection" || !quantization_.info.quantized ||
                       quantization_.excludes(module);
    if (plain) return;
    switch (quantization_.layout.format) {
      case io::WeightFormat::kBF16:
        return;
      case io::WeightFormat::kFp8PerTensor:
        shape.format = LinearFormat::kFp8Tensor;
        if (!quantization_.info.weight_only) shape.activation = ActivationQuantization::kStatic;
        return;
      case io::WeightFormat::kFp8PerChannelPerToken:
        shape.format = LinearFormat::kFp8Channel;
        shape.activation = ActivationQuantization::kPerToken;
        return;
      case io::WeightFormat::kFp8Block:
        shape.format = LinearFormat::kFp8Block;
        return;
    }
  }

  const io::QuantizationConfig& quantization_;
  const std::string& prefix_;
  std::vector<LinearShape> shapes_;
};

void add_layer(const io::ModelConfig& config, size_t index, ShapeList& list) {
  const io::TextConfig& text = config.text;
  const io::LayerConfig& layer = text.layers[index];
  const std::string kind = layer.type == io::LayerType::kSliding ? "sliding " : "full ";
  const std::string module = fmt::format("layers.{}.", index);
  const int64_t q = text.num_attention_heads * layer.head_dim;
  const int64_t kv = layer.num_key_value_heads * layer.head_dim;
  if (config.kind == io::ModelKind::kAssistant)
    list.add(kind + "q", module + "self_attn.q_proj", text.hidden_size, {q});
  else if (layer.k_eq_v)
    list.add(kind + "qk", module + "self_attn.q_proj", text.hidden_size, {q, kv});
  else
    list.add(kind + "qkv", module + "self_attn.q_proj", text.hidden_size, {q, kv, kv});
  list.add(kind + "o", module + "self_attn.o_proj", q, {text.hidden_size});
  list.add("gate_up", module + "mlp.gate_proj", text.hidden_size,
           {text.intermediate_size, text.intermediate_size});
  list.add("down", module + "mlp.down_proj", text.intermediate_size, {text.hidden_size});
}

}  // namespace

int64_t LinearShape::out() const {
  return std::accumulate(outs.begin(), outs.end(), int64_t{0});
}

int64_t LinearShape::weight_bytes() const {
  return in * out() * (format == LinearFormat::kBF16 ? 2 : 1);
}

std::vector<LinearShape> linear_shapes(const io::ModelConfig& config,
                                       const io::QuantizationConfig& quantization,
                                       const std::string& prefix) {
  ShapeList list(quantization, prefix);
  const io::TextConfig& text = config.text;
  const bool assistant = config.kind == io::ModelKind::kAssistant;
  if (assistant)
    list.add("pre", "pre_projection", 2 * config.backbone_hidden_size, {text.hidden_size});
  for (size_t i = 0; i < text.layers.size(); ++i) add_layer(config, i, list);
  if (assistant)
    list.add("post", "post_projection", text.hidden_size, {config.backbone_hidden_size});
  list.add("head", "lm_head", text.hidden_size, {text.vocab_size});
  return list.take();
}

}  // namespace tandem::bench
