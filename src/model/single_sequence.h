// A KV store for one sequence, for tools that run a model outside the engine (trace, evaluation).
#pragma once

#include <cstdint>
#include <vector>

#include "model/kv_store.h"
#include "ops/attention.h"

namespace tandem::model {

class SingleSequence {
 public:
  // Room for max_tokens positions and num_draft_tokens rejected rows beyond the window.
  SingleSequence(const io::TextConfig& target, int64_t max_tokens, int64_t num_draft_tokens,
                 core::DType dtype, std::vector<float> k_scales = {},
                 std::vector<float> v_scales = {});

  KvStore& kv() { return kv_; }
  // Tables of sequence 0.
  ops::KvPlaces ring() const;
  ops::KvPlaces pages() const;

 private:
  KvStoreConfig config_;
  std::vector<int32_t> blocks_;  // 0, 1, 2, ...: serves both tables
  KvStore kv_;
};

}  // namespace tandem::model
