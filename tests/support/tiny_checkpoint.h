// Valid tiny checkpoints with random weights, made to be changed: a target and its assistant, in
// BF16 or any quantized format Tandem reads. No tokenizer.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace tandem::test_support {

enum class TinyFormat {
  kBF16,
  kFp8,                // ModelOpt FP8: scalar weight_scale and input_scale
  kFp8Block,           // ModelOpt FP8_PB_WO: 128 x 128 blocks, weight-only
  kFp8PerChannel,      // ModelOpt FP8_PER_CHANNEL_PER_TOKEN
  kCompressedTensor,   // compressed-tensors, per tensor, static activations
  kCompressedChannel,  // compressed-tensors, per channel (BF16 scales), dynamic activations
};

struct TinyOptions {
  int64_t hidden = 64;
  int64_t intermediate = 96;
  int64_t vocab = 97;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t global_kv_heads = 1;
  int64_t head_dim = 16;
  int64_t global_head_dim = 32;
  int64_t window = 8;
  int64_t max_positions = 4096;
  double softcap = 30.0;
  std::string layers = "ssf";  // s: sliding, f: full
  bool k_eq_v = true;
  int64_t assistant_hidden = 32;
  int64_t assistant_intermediate = 48;
  std::string assistant_layers = "sssf";
  bool classic = false;           // model types gemma4 / gemma4_assistant
  bool text_only = false;         // the target's text tower saved alone
  bool per_layer_config = false;  // transformers' newer spelling of the full layers' sizes
  bool media_tensors = false;
  bool kv_scales = false;  // with a quantized target
  std::string prefix = "model.language_model.";
  TinyFormat target_format = TinyFormat::kBF16;
  TinyFormat assistant_format = TinyFormat::kBF16;
  uint64_t seed = 1;
};

struct TinyTensor {
  std::string name;
  core::DType dtype = core::DType::kBF16;
  std::vector<int64_t> shape;
  std::string bytes;
};

// What the folder will hold; change anything, then write().
class TinyCheckpoint {
 public:
  nlohmann::json config;
  nlohmann::json generation_config;              // null: no file
  nlohmann::json hf_quant_config;                // null: no file
  std::vector<TinyTensor> tensors;               // in file order
  std::map<std::string, std::string> raw_files;  // written last, over what is there

  bool has(std::string_view name) const;
  TinyTensor& tensor(std::string_view name);  // CHECKs that it is there
  void remove(std::string_view name);
  void rename(std::string_view name, std::string new_name);
  void add(std::string name, core::DType dtype, std::vector<int64_t> shape, std::string bytes);
  void add_scalar(std::string name, float value);       // F32 []
  void set_scalar(std::string_view name, float value);  // an F32 scalar that is there
  void set_bf16(std::string_view name, size_t index, uint16_t bits);

  // One model.safetensors, or `num_shards` shards and an index.
  void write(const std::filesystem::path& dir, int num_shards = 1) const;
};

TinyCheckpoint make_tiny_target(const TinyOptions& options = {});
TinyCheckpoint make_tiny_assistant(const TinyOptions& options = {});

// DIR/target and DIR/assistant.
struct TinyPair {
  std::filesystem::path target;
  std::filesystem::path assistant;
};
TinyPair write_tiny_pair(const std::filesystem::path& dir, const TinyOptions& options = {});

// The bytes of a safetensors file; independent of the writer in src/io. The header is taken as is.
std::string safetensors_bytes(std::string_view header, std::string_view payload);
std::string safetensors_bytes(const std::vector<TinyTensor>& tensors);

}  // namespace tandem::test_support
