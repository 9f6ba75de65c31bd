#include "bench/gpu/product_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "bench/gpu/graph_timer.h"
#include "bench/ops_bench.h"
#include "gpu/step_plan.h"
#include "ops/cuda/gelu_product.h"
#include "ops/cuda/head_argmax.h"

namespace tandem::bench {
namespace {

using nlohmann::ordered_json;
using ops::cuda::DeviceBuffer;
using ops::cuda::PackedLinear;
using ops::cuda::PackedType;
using ops::cuda::Stream;

constexpr int64_t kDefeatBytes = int64_t{400} << 20;  // several times any L2 cache
constexpr int kMaxRows = ops::cuda::kMaxProductRows;

PackedLinear random_weight(const LinearShape& shape, PackedType type, int num_multiprocessors,
                           uint64_t seed) {
  const auto in = static_cast<int>(shape.in);
  const auto out = static_cast<int>(shape.out());
  // Gate and up run as one kernel with the activation behind them.
  PackedLinear weight = shape.name.ends_with("gate_up")
                            ? ops::cuda::make_gated_linear(type, out / 2, in, num_multiprocessors)
                            : ops::cuda::make_packed_linear(type, out, in, num_multiprocessors);
  ops::cuda::fill_random({}, weight, seed);
  return weight;
}

// Small, finite and not zero, as E4M3 and as BF16.
DeviceBuffer filled(size_t size_bytes) {
  DeviceBuffer buffer(size_bytes);
  TANDEM_CUDA_CHECK(cudaMemset(buffer.data(), 0x2c, size_bytes));
  return buffer;
}

// What products read and write besides weights.
struct Buffers {
  explicit Buffers(std::span<const PackedLinear> weights) {
    size_t operand_bytes = 0;
    size_t partial_bytes = 0;
    size_t exchange_bytes = 1;
    for (const PackedLinear& weight : weights) {
      if (ops::cuda::takes_gelu_product(weight))
        exchange_bytes = std::max(exchange_bytes, ops::cuda::gelu_exchange_bytes(weight, kMaxRows));
      operand_bytes =
          std::max(operand_bytes, size_t{kMaxRows} * 2 * static_cast<size_t>(weight.in_features));
      partial_bytes = std::max(partial_bytes, static_cast<size_t>(weight.partial_bytes(kMaxRows)));
    }
    operand = filled(operand_bytes);
    partials = DeviceBuffer(partial_bytes);
    exchange = DeviceBuffer(exchange_bytes);
    TANDEM_CUDA_CHECK(cudaMemset(exchange.data(), 0, exchange_bytes));
  }
  // More rows than a product takes at once go through it again. Every product follows another.
  void multiply(const Stream& stream, const PackedLinear& weight, int64_t rows) const {
    for (int64_t begin = 0; begin < rows; begin += kMaxRows) {
      const int tiles = num_tiles(std::min<int64_t>(rows - begin, kMaxRows));
      // The partial sums of other products are more than enough for an operand.
      if (ops::cuda::takes_gelu_product(weight))
        ops::cuda::gelu_product(stream, weight, operand.data(), tiles,
                                {0.01F, 0.01F, {partials.data(), tiles, 0.03F}, exchange.data()});
      else
        ops::cuda::product(stream, weight, operand.data(), tiles, partials.as<float>(),
                           ops::cuda::Follows::kProduct);
    }
  }

  DeviceBuffer operand;
  DeviceBuffer partials;
  DeviceBuffer exchange;
};

// What a head needs beside its weights: it is multiplied where its argmax is found, and leaves
// tokens.
struct HeadBuffers {
  explicit HeadBuffers(const PackedLinear& head)
      : exchange(ops::cuda::head_exchange_bytes(head)),
        scratch(ops::cuda::argmax_scratch_bytes(kMaxRows)),
        tokens(sizeof(int32_t) * kMaxRows) {
    for (const DeviceBuffer* buffer : {&exchange, &scratch})
      TANDEM_CUDA_CHECK(cudaMemset(buffer->data(), 0, buffer->size_bytes()));
  }
  static bool takes(const PackedLinear& head, int64_t rows) {
    return rows <= ops::cuda::kMaxHeadRows ||
           (rows <= kMaxRows && ops::cuda::takes_head_argmax(head, num_tiles(rows), {}));
  }
  void choose(const Stream& stream, const PackedLinear& head, const DeviceBuffer& operand,
              int64_t rows) const {
    ops::cuda::HeadArgmax argmax;
    argmax.logits.num_rows = static_cast<int>(rows);
    argmax.logits.vocab_size = head.out_features;
    // filled() and fill_random() give sums near 3e-12: logits should spread as real ones do.
    argmax.logits.scale = 1e12F;
    argmax.logits.cap = 30.0F;
    argmax.scratch = scratch.data();
    argmax.tokens = tokens.as<int32_t>();
    argmax.exchange = exchange.data();
    if (rows <= ops::cuda::kMaxHeadRows)
      ops::cuda::head_product(stream, head, {}, operand.data(), argmax);
    else
      ops::cuda::head_argmax(stream, head, operand.data(), num_tiles(rows), argmax);
  }

  DeviceBuffer exchange;
  DeviceBuffer scratch;
  DeviceBuffer tokens;
};

bool is_head(const LinearShape& shape, const PackedLinear& weight) {
  return shape.name.ends_with("head") && ops::cuda::takes_head_product(weight, {});
}

double library_us(const GpuFacts& facts, const PackedLinear& first, int64_t rows,
                  std::span<const PackedLinear> copies, size_t launches) {
  // The same bytes in the same places; only their meaning differs.
  std::vector<const void*> weights;
  for (const PackedLinear& copy : copies) weights.push_back(copy.data.data());
  LibraryProduct product(*facts.library, first.type, first.in_features, first.out_features,
                         static_cast<int>(rows));
  return product.choose(weights, launches);
}

// Several layers' worth of weights, in the order of a step.
struct Chain {
  Chain(const GpuFacts& facts, const std::vector<const LinearShape*>& layer) {
    int64_t layer_bytes = 0;
    for (const LinearShape* shape : layer) layer_bytes += shape->weight_bytes();
    num_layers = std::max<int64_t>(4, kDefeatBytes / layer_bytes + 1);
    for (int64_t i = 0; i < num_layers; ++i)
      for (const LinearShape* shape : layer)
        weights.push_back(
            random_weight(*shape, *packed_type(*shape), facts.num_multiprocessors, weights.size()));
    for (const PackedLinear& weight : weights) bytes += static_cast<double>(weight.size_bytes());
  }

  int64_t num_layers = 0;
  std::vector<PackedLinear> weights;
  double bytes = 0;
};

// The library's products of the same chain, one plan for each of a layer's shapes; 0: not all of
// them have one.
double library_chain_us(const GpuFacts& facts, const Chain& chain, size_t num_products,
                        int64_t rows) {
  std::vector<std::unique_ptr<LibraryProduct>> products;
  for (size_t i = 0; i < num_products; ++i) {
    std::vector<const void*> weights;
    for (size_t w = i; w < chain.weights.size(); w += num_products)
      weights.push_back(chain.weights[w].data.data());
    const PackedLinear& weight = chain.weights[i];
    products.push_back(std::make_unique<LibraryProduct>(*facts.library, weight.type,
                                                        weight.in_features, weight.out_features,
                                                        static_cast<int>(rows)));
    if (products.back()->choose(weights, weights.size()) <= 0) return 0;
  }
  return time_graph(
             [&](const Stream& stream) {
               for (size_t i = 0; i < chain.weights.size(); ++i)
                 products[i % num_products]->run(stream, chain.weights[i].data.data());
             },
             false) /
         static_cast<double>(chain.num_layers);
}

}  // namespace

DeviceBuffer zeros(int64_t size_bytes) {
  DeviceBuffer buffer(static_cast<size_t>(size_bytes));
  TANDEM_CUDA_CHECK(cudaMemset(buffer.data(), 0, buffer.size_bytes()));
  return buffer;
}

int num_tiles(int64_t rows) {
  return gpu::padded_rows(rows) / 8;
}

base::Result<PackedType> packed_type(const LinearShape& shape) {
  if (shape.format == ops::LinearFormat::kBF16) return PackedType::kBF16;
  if (shape.format == ops::LinearFormat::kFp8Tensor &&
      shape.activation == ops::ActivationQuantization::kStatic)
    return PackedType::kFp8;
  return base::unsupported(
      "bench ops --device cuda: {}: expected BF16 or FP8 with one weight scale and a static input "
      "scale, got {}; use --device cpu",
      shape.name, linear_format_name(shape.format));
}

void add_peer(ordered_json& entry, double peer_us) {
  if (peer_us <= 0) return;
  entry["cublaslt_us"] = peer_us;
  entry["times_cublaslt"] = peer_us / entry["us"].get<double>();
}

ordered_json bench_product(const GpuFacts& facts, const LinearShape& shape, PackedType type,
                           std::span<const int64_t> rows) {
  std::vector<PackedLinear> copies;
  do copies.push_back(random_weight(shape, type, facts.num_multiprocessors, copies.size()));
  while (static_cast<int64_t>(copies.size()) * copies[0].size_bytes() < kDefeatBytes);
  const Buffers buffers(std::span<const PackedLinear>{copies}.first(1));
  std::optional<HeadBuffers> head;
  if (is_head(shape, copies[0])) head.emplace(copies[0]);
  const size_t launches = std::max<size_t>(copies.size(), 8);
  auto results = ordered_json::array();
  double one_row = 0;
  for (const int64_t count : rows) {
    const bool chooses = head && HeadBuffers::takes(copies[0], count);
    const auto launch = [&](const Stream& stream, const PackedLinear& weight) {
      if (chooses)
        head->choose(stream, weight, buffers.operand, count);
      else
        buffers.multiply(stream, weight, count);
    };
    const auto time = [&](bool dependent) {
      return time_graph(
                 [&](const Stream& stream) {
                   for (size_t i = 0; i < launches; ++i) launch(stream, copies[i % copies.size()]);
                 },
                 dependent) /
             static_cast<double>(launches);
    };
    const double us = time(false);
    ordered_json one = op_line(shape, count, us * 1e-6, facts.read_bandwidth);
    one["us_dependent"] = time(true);
    if (ops::cuda::takes_gelu_product(copies[0])) one["with_gelu"] = true;
    if (chooses) one["with_argmax"] = true;
    if (count == 1) one_row = us;
    if (one_row > 0) one["times_one_row"] = us / one_row;
    if (facts.library != nullptr)
      add_peer(one, library_us(facts, copies[0], count, copies, launches));
    results.push_back(std::move(one));
  }
  return results;
}

ordered_json bench_chain(const GpuFacts& facts, const std::string& name,
                         const std::vector<const LinearShape*>& layer,
                         std::span<const int64_t> rows) {
  const Chain chain(facts, layer);
  const Buffers buffers(chain.weights);
  const double layer_bytes = chain.bytes / static_cast<double>(chain.num_layers);
  const double ideal_us = layer_bytes / facts.read_bandwidth * 1e6;
  auto results = ordered_json::array();
  for (const int64_t count : rows) {
    if (count > kMaxRows) continue;
    const auto time = [&](bool dependent) {
      return time_graph(
                 [&](const Stream& stream) {
                   for (const PackedLinear& weight : chain.weights)
                     buffers.multiply(stream, weight, count);
                 },
                 dependent) /
             static_cast<double>(chain.num_layers);
    };
    const double us = time(true);
    ordered_json one = {{"name", name},
                        {"rows", count},
                        {"us", us},
                        {"us_independent", time(false)},
                        {"bytes", layer_bytes},
                        {"ideal_us", ideal_us},
                        {"share_of_read", ideal_us / us}};
    if (facts.library != nullptr)
      add_peer(one, library_chain_us(facts, chain, layer.size(), count));
    results.push_back(std::move(one));
  }
  return results;
}

}  // namespace tandem::bench
