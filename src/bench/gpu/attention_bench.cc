// Attention and head_prep at a model's shapes. Copies of a layer's cache are used in turn, 400 MB
// at least, in one CUDA graph.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/gpu/graph_timer.h"
#include "bench/gpu/kernel_bench.h"
#include "ops/cuda/attention.h"
#include "ops/cuda/head_prep.h"
#include "ops/cuda/wide_rows.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;
using ops::cuda::DeviceBuffer;
using ops::cuda::Stream;

constexpr int kBlockSize = 32;
constexpr size_t kDefeatBytes = size_t{400} << 20;

struct LayerShape {
  std::string name;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int window = 0;
  bool k_eq_v = false;
};

struct Load {
  int batch = 1;
  int context = 1024;
  int rows = 1;  // of each sequence
  bool fp8_cache = false;
};

template <typename T>
DeviceBuffer to_device(const std::vector<T>& values) {
  DeviceBuffer buffer(values.size() * sizeof(T));
  TANDEM_CUDA_CHECK(
      cudaMemcpy(buffer.data(), values.data(), buffer.size_bytes(), cudaMemcpyHostToDevice));
  return buffer;
}

// The rows of a batch and its caches, on the device.
struct Setup {
  Setup(const LayerShape& layer_in, const Load& load)
      : layer(layer_in), num_rows((load.batch * load.rows + 7) / 8 * 8), fp8_cache(load.fp8_cache) {
    place_rows(load);
    place_cache(load);
    q = to_device(std::vector<core::BFloat16>(
        static_cast<size_t>(num_rows * layer.num_heads * layer.head_dim), core::to_bf16(0.25F)));
    out = DeviceBuffer(q.size_bytes());
    workspace = DeviceBuffer(ops::cuda::attention_workspace_bytes(num_rows, layer.num_heads,
                                                                  layer.head_dim, max_segments));
    next_item = to_device(std::vector<int>{0});
  }

  ops::cuda::KvLayer cache_of(int i) const {
    uint8_t* const k = cache.as<uint8_t>() + static_cast<size_t>(i % copies) * 2 * layer_bytes;
    return {k, k + layer_bytes, fp8_cache, 0.01F, 0.01F};
  }
  // With `early_plan` all but the newest keys are read before the kernels in front have finished.
  void attend(const Stream& stream, int i, bool early_plan) const {
    ops::cuda::Attention job;
    job.num_heads = layer.num_heads;
    job.num_kv_heads = layer.num_kv_heads;
    job.head_dim = layer.head_dim;
    job.window = layer.window;
    job.q = q.as<uint16_t>();
    job.kv = cache_of(i);
    job.places = places;
    job.workspace = workspace.data();
    job.max_segments = max_segments;
    job.next_item = next_item.as<int>();
    job.out = {out.as<uint16_t>(), num_rows / 8, 0.05F};
    ops::cuda::Rows own_rows = rows;
    own_rows.early_plan = early_plan;
    ops::cuda::attention(stream, own_rows, tiles, job);
  }

  LayerShape layer;
  int num_rows;
  bool fp8_cache;
  int max_segments = 0;
  int copies = 0;
  size_t layer_bytes = 0;  // of the keys of one copy
  double kv_bytes = 0;
  DeviceBuffer table, positions, sequences, first_rows, tile_rows;
  DeviceBuffer cache, q, workspace, next_item, out;
  ops::cuda::Rows rows;
  ops::cuda::QueryTiles tiles;
  ops::cuda::KvTable places;

 private:
  void place_rows(const Load& load) {
    std::vector<int32_t> position(static_cast<size_t>(num_rows), 0);
    std::vector<int32_t> sequence(static_cast<size_t>(num_rows), -1);
    std::vector<int32_t> first;
    for (int s = 0; s < load.batch; ++s) {
      first.push_back(s * load.rows);
      for (int r = 0; r < load.rows; ++r) {
        position[static_cast<size_t>(s * load.rows + r)] = load.context - load.rows + r;
        sequence[static_cast<size_t>(s * load.rows + r)] = s;
      }
    }
    positions = to_device(position);
    sequences = to_device(sequence);
    first_rows = to_device(first);
    tile_rows = to_device(std::vector<int32_t>(static_cast<size_t>(load.batch), load.rows));
    rows = {num_rows, nullptr, positions.as<int32_t>(), positions.as<int32_t>(),
            sequences.as<int32_t>()};
    tiles = {load.batch, first_rows.as<int32_t>(), tile_rows.as<int32_t>()};
  }
  void place_cache(const Load& load) {
    // A window's ring is used whole, as it is in a long sequence.
    const int ring = (layer.window + 64 + kBlockSize - 1) / kBlockSize * kBlockSize;
    const int ring_len = layer.window > 0 ? ring : 0;
    const int blocks = (ring_len > 0 ? ring_len : load.context + kBlockSize - 1) / kBlockSize;
    std::vector<int32_t> values(static_cast<size_t>(load.batch * blocks));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<int32_t>(i * 7 % values.size());
    table = to_device(values);
    places = {table.as<int32_t>(), blocks, kBlockSize, ring_len};
    const int keys =
        layer.window > 0 ? std::min(load.context, layer.window + load.rows - 1) : load.context;
    max_segments = ops::cuda::attention_max_segments(layer.head_dim, keys);
    const int element_bytes = fp8_cache ? 1 : 2;
    kv_bytes = double{2} * element_bytes * load.batch * keys * layer.num_kv_heads * layer.head_dim;
    layer_bytes = values.size() * kBlockSize *
                  static_cast<size_t>(layer.num_kv_heads * layer.head_dim * element_bytes);
    copies = static_cast<int>(kDefeatBytes / (layer_bytes * 2)) + 2;
    cache = DeviceBuffer(layer_bytes * 2 * static_cast<size_t>(copies));
    // BF16 0.0115, E4M3 1.5 times its scale
    TANDEM_CUDA_CHECK(cudaMemset(cache.data(), 0x3c, cache.size_bytes()));
  }
};

void bench_attention(const GpuFacts& facts, const LayerShape& layer, const Load& load,
                     ordered_json& results) {
  const Setup setup(layer, load);
  const double ideal_us = setup.kv_bytes / facts.read_bandwidth * 1e6;
  const int launches = std::max(setup.copies, 16);
  add_kernel(results,
             {{"name", layer.name + " attention"},
              {"rows", load.rows},
              {"batch", load.batch},
              {"keys", load.context},
              {"cache", load.fp8_cache ? "fp8" : "bf16"},
              {"bytes", setup.kv_bytes},
              {"ideal_us", ideal_us}},
             launches, [&](const Stream& stream, int i) { setup.attend(stream, i, false); });
  results.back()["us_early_plan"] = time_graph(
                                        [&](const Stream& stream) {
                                          for (int i = 0; i < launches; ++i)
                                            setup.attend(stream, i, true);
                                        },
                                        true) /
                                    launches;
  results.back()["share_of_read"] = ideal_us / results.back()["us_dependent"].get<double>();
}

void bench_head_prep(const GpuFacts& facts, const GpuModel& model, const LayerShape& layer,
                     const Load& load, ordered_json& results) {
  const Setup setup(layer, load);
  const int rows = load.batch * load.rows;
  const bool writes_kv = model.config.kind == io::ModelKind::kTarget;
  const int kv_parts = !writes_kv ? 0 : layer.k_eq_v ? 1 : 2;
  const int columns = (layer.num_heads + kv_parts * layer.num_kv_heads) * layer.head_dim;
  ops::cuda::HeadPrep job;
  job.product = partials_of(facts, model.config.text.hidden_size, columns, setup.num_rows);
  const DeviceBuffer sums(static_cast<size_t>((columns + ops::cuda::kSetColumns - 1) /
                                              ops::cuda::kSetColumns * job.product.max_pieces *
                                              setup.num_rows) *
                          ops::cuda::kSetColumns * sizeof(float));
  TANDEM_CUDA_CHECK(cudaMemset(sums.data(), 0x3c, sums.size_bytes()));
  const DeviceBuffer norm(static_cast<size_t>(layer.head_dim) * 2);
  TANDEM_CUDA_CHECK(cudaMemset(norm.data(), 0x3f, norm.size_bytes()));
  const auto frequencies =
      to_device(std::vector<float>(static_cast<size_t>(layer.head_dim / 2), 0.01F));
  job.product.data = sums.as<float>();
  job.num_heads = layer.num_heads;
  job.num_kv_heads = writes_kv ? layer.num_kv_heads : 0;
  job.head_dim = layer.head_dim;
  job.k_eq_v = layer.k_eq_v;
  job.eps = 1e-6F;
  job.q_norm = job.k_norm = norm.as<uint16_t>();
  job.inv_freq = frequencies.as<float>();
  job.places = setup.places;
  job.q = setup.q.as<uint16_t>();
  add_kernel(results,
             {{"name", layer.name + " head_prep"},
              {"rows", rows},
              {"bytes", partial_bytes(job.product, columns, rows)}},
             32, [&](const Stream& stream, int i) {
               ops::cuda::HeadPrep one = job;
               one.kv = setup.cache_of(i);
               ops::cuda::head_prep(stream, setup.rows, one);
             });
}

// What prompts have in place of head_prep; keys and values go to the pass's chunk.
void bench_wide_heads(const GpuModel& model, const LayerShape& layer, int rows,
                      ordered_json& results) {
  if (model.config.kind != io::ModelKind::kTarget) return;
  const int heads = layer.num_heads + (layer.k_eq_v ? 1 : 2) * layer.num_kv_heads;
  const int64_t head_bytes = int64_t{rows} * layer.head_dim * 2;
  const DeviceBuffer product = zeros(head_bytes * heads);
  const DeviceBuffer q = zeros(head_bytes * layer.num_heads);
  const DeviceBuffer k = zeros(head_bytes * layer.num_kv_heads);
  const DeviceBuffer v = zeros(head_bytes * layer.num_kv_heads);
  const DeviceBuffer norm = zeros(int64_t{layer.head_dim} * 2);
  const DeviceBuffer frequencies = zeros(int64_t{layer.head_dim} * 2);
  const DeviceBuffer places = zeros(int64_t{rows} * 4);
  ops::cuda::WideHeads job;
  job.product = product.as<uint16_t>();
  job.num_heads = layer.num_heads;
  job.num_kv_heads = layer.num_kv_heads;
  job.head_dim = layer.head_dim;
  job.k_eq_v = layer.k_eq_v;
  job.eps = 1e-6F;
  job.q_norm = job.k_norm = norm.as<uint16_t>();
  job.inv_freq = frequencies.as<float>();
  job.q = q.as<uint16_t>();
  job.chunk = {k.data(), v.data()};
  ops::cuda::Rows own;
  own.num_rows = rows;
  own.positions = own.sequences = places.as<int32_t>();
  add_kernel(results,
             {{"name", layer.name + " wide_heads"},
              {"rows", rows},
              {"bytes", static_cast<double>(head_bytes * heads)}},
             32, [&](const Stream& stream, int) { ops::cuda::wide_heads(stream, own, job); });
}

// The first layer of each type.
std::vector<LayerShape> layer_shapes(const GpuModel& model) {
  const io::TextConfig& text = model.config.text;
  std::vector<LayerShape> shapes;
  for (const auto type : {io::LayerType::kSliding, io::LayerType::kFull}) {
    const auto found = std::ranges::find_if(
        text.layers, [&](const io::LayerConfig& layer) { return layer.type == type; });
    if (found == text.layers.end()) continue;
    const bool sliding = type == io::LayerType::kSliding;
    shapes.push_back({.name = model.prefix + (sliding ? "sliding" : "full"),
                      .num_heads = static_cast<int>(text.num_attention_heads),
                      .num_kv_heads = static_cast<int>(found->num_key_value_heads),
                      .head_dim = static_cast<int>(found->head_dim),
                      .window = sliding ? static_cast<int>(text.sliding_window) : 0,
                      .k_eq_v = found->k_eq_v});
  }
  return shapes;
}

// Batches of rounds and of plain steps, 64 rows at most, over both kinds of cache.
std::vector<Load> loads_of(const LayerShape& layer) {
  std::vector<Load> loads;
  for (const int rows : {1, 5, 8}) {
    if (layer.window > 0)
      loads.push_back({1, layer.window + 16, rows});
    else
      for (const int context : {1024, 8192, 32768, 131072}) loads.push_back({1, context, rows});
  }
  loads.push_back({8, 2048, 1});
  loads.push_back({8, 2048, 5});
  loads.push_back({12, 2048, 5});
  loads.push_back({32, 2048, 1});
  loads.push_back({32, 2048, 4});
  loads.push_back({64, 2048, 1});
  loads.push_back({64, 2048, 2});
  return loads;
}

}  // namespace

void bench_attention_kernels(const GpuFacts& facts, const GpuModel& model, const std::string& only,
                             ordered_json& results) {
  for (const LayerShape& layer : layer_shapes(model)) {
    if (wanted(layer.name + " head_prep", only))
      for (const Load& load :
           {Load{1, 1024, 1}, Load{1, 1024, 5}, Load{1, 1024, 8}, Load{64, 1024, 1},
            Load{32, 1024, 3}, Load{64, 1024, 2}, Load{64, 1024, 3}})
        bench_head_prep(facts, model, layer, load, results);
    if (wanted(layer.name + " wide_heads", only))
      for (const int rows : {512, 2048}) bench_wide_heads(model, layer, rows, results);
    if (!wanted(layer.name + " attention", only)) continue;
    for (Load load : loads_of(layer))
      for (const bool fp8_cache : {false, true}) {
        load.fp8_cache = fp8_cache;
        bench_attention(facts, layer, load, results);
      }
  }
}

}  // namespace tandem::bench
