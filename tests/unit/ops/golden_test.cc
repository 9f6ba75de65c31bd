// transformers' own results for single ops (tests/data/lattice/README.md).
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "ops/activation.h"
#include "ops/embed.h"
#include "ops/linear.h"
#include "ops/rms_norm.h"
#include "ops/rope.h"
#include "tests/unit/ops/tensors.h"

namespace tandem::ops::test {
namespace {

using nlohmann::json;

const std::string kFolder = std::string(TANDEM_TEST_DATA) + "/data/lattice/";

struct Golden {
  explicit Golden(const std::string& op) {
    std::ifstream file(kFolder + "ops.json");
    entry = json::parse(file).at(op);
    tolerance = entry["tolerance_max_abs_diff"].get<float>();
  }

  // A tensor as rows of its last dimension, or of `cols`.
  Tensor tensor(const std::string& name, int64_t cols = 0) const {
    const json& info = entry.at("tensors").at(name);
    int64_t count = 1;
    for (const json& dim : info["shape"]) count *= dim.get<int64_t>();
    if (cols == 0) cols = info["shape"].back().get<int64_t>();
    Tensor result(DType::kF32, {count / cols, cols});
    std::ifstream file(kFolder + info["file"].get<std::string>(), std::ios::binary);
    file.read(static_cast<char*>(result.view().data),
              static_cast<std::streamsize>(static_cast<size_t>(count) * sizeof(float)));
    EXPECT_TRUE(file.good()) << name;
    return result;
  }

  void expect_near(const Tensor& got, const Tensor& expected) const {
    for (int64_t r = 0; r < expected.rows(); ++r)
      for (int64_t i = 0; i < expected.cols(); ++i)
        ASSERT_NEAR(got.at(r, i), expected.at(r, i), tolerance) << "row " << r << ", " << i;
  }

  json entry;
  float tolerance = 0.0F;
};

template <typename Body>
void for_all_backends(const Body& body) {
  body(kReferenceContext);
  for_all_ways(body);
}

TensorView vector_of(const Tensor& t) {
  return TensorView(t.view().data, DType::kF32, Shape{t.cols()});
}

TEST(Golden, RmsNorm) {
  for (const char* const name : {"rms_norm", "rms_norm_wide"}) {
    const Golden golden(name);
    const Tensor x = golden.tensor("input");
    const Tensor weight = golden.tensor("weight");
    for_all_backends([&](const Context& context) {
      const Tensor out(DType::kF32, {x.rows(), x.cols()});
      rms_norm(context, x, vector_of(weight), 1e-6F, out);
      golden.expect_near(out, golden.tensor("output"));
    });
  }
}

TEST(Golden, HeadNormsAndTheScalelessNormOfV) {
  const Golden golden("qk_norm_v_unscaled");
  for (const std::string which : {"q", "k", "v"}) {
    const Tensor x = golden.tensor(which + "_input");
    const Tensor weight = golden.tensor(which == "v" ? "q_norm_weight" : which + "_norm_weight");
    for_all_backends([&](const Context& context) {
      const Tensor out(DType::kF32, {x.rows(), x.cols()});
      rms_norm(context, x, which == "v" ? TensorView() : vector_of(weight), 1e-6F, out);
      golden.expect_near(out, golden.tensor(which + "_output"));
    });
  }
}

TEST(Golden, GatedMlp) {
  const Golden golden("geglu_mlp");
  const Tensor x = golden.tensor("input");
  const Tensor gate_w = golden.tensor("gate_proj_weight");
  const Tensor up_w = golden.tensor("up_proj_weight");
  const Tensor down_w = golden.tensor("down_proj_weight");
  const auto weight = [](const Tensor& t) {
    LinearWeight w;
    w.format = LinearFormat::kF32;
    w.weight = t;
    return w;
  };
  for_all_backends([&](const Context& context) {
    const Tensor gate(DType::kF32, {x.rows(), gate_w.rows()});
    const Tensor up(DType::kF32, {x.rows(), up_w.rows()});
    const Tensor out(DType::kF32, {x.rows(), x.cols()});
    const LinearWeight gate_up[] = {weight(gate_w), weight(up_w)};
    const TensorView gate_up_out[] = {gate, up};
    linear(context, x, gate_up, gate_up_out);
    gelu_mul(context, gate, up, gate);
    const LinearWeight down[] = {weight(down_w)};
    const TensorView down_out[] = {out};
    linear(context, gate, down, down_out);
    golden.expect_near(out, golden.tensor("output"));
  });
}

TEST(Golden, ScaledEmbedding) {
  const Golden golden("scaled_embedding");
  std::vector<int32_t> ids;
  for (const json& row : golden.entry["input_ids"])
    for (const json& id : row) ids.push_back(id.get<int32_t>());
  const Tensor table = golden.tensor("embed_weight");
  for_all_backends([&](const Context& context) {
    const Tensor out(DType::kF32, {static_cast<int64_t>(ids.size()), table.cols()});
    embed(context, ids, table, golden.entry["embed_scale"].get<float>(), out);
    golden.expect_near(out, golden.tensor("output"));
  });
}

TEST(Golden, LogitSoftcap) {
  const Golden golden("logit_softcap");
  for_all_backends([&](const Context& context) {
    const Tensor x = golden.tensor("input");
    softcap(context, golden.entry["cap"].get<float>(), x);
    golden.expect_near(x, golden.tensor("output"));
  });
}

TEST(Golden, DualRope) {
  const Golden golden("dual_rope");
  const auto positions = golden.entry["position_ids"].get<std::vector<int32_t>>();
  const auto n = static_cast<int64_t>(positions.size());
  for (const std::string which : {"local", "global"}) {
    const bool local = which == "local";
    const int64_t head_dim = local ? 16 : 32;
    const std::vector<float> inv_freq =
        rope_inv_freq(head_dim, golden.entry["theta_" + which].get<double>(),
                      local ? 1.0 : golden.entry["partial_rotary_factor"].get<double>());
    const Tensor expected_freq = golden.tensor(which + "_inv_freq");
    for (size_t i = 0; i < inv_freq.size(); ++i)
      EXPECT_NEAR(inv_freq[i], expected_freq.at(0, static_cast<int64_t>(i)), golden.tolerance);
    for_all_backends([&](const Context& context) {
      const Tensor x = golden.tensor(which + "_input", 2 * head_dim);
      const Tensor cos(DType::kF32, {n, head_dim / 2});
      const Tensor sin(DType::kF32, {n, head_dim / 2});
      rope_angles(context, positions, inv_freq, false, cos, sin);
      rope(context, cos, sin, TensorView(x.view().data, DType::kF32, Shape{n, 2, head_dim}));
      golden.expect_near(x, golden.tensor(which + "_output", 2 * head_dim));
    });
  }
}

}  // namespace
}  // namespace tandem::ops::test
