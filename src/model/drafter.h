// What speculation asks of whatever proposes tokens; the assistant is one, tests script others.
#pragma once

#include <cstdint>
#include <span>

#include "model/forward_batch.h"
#include "model/kv_store.h"
#include "model/observer.h"

namespace tandem::model {

class Drafter {
 public:
  virtual ~Drafter() = default;

  // One draft step for every row of the batch: reads the newest token and `state` [n, backbone],
  // writes the next state over it and logits [n, vocab] F32, without softcap.
  virtual void step(const ops::Context& context, const DraftBatch& batch, const KvStore& kv,
                    const core::TensorView& state, const core::TensorView& logits,
                    Observer* observer) = 0;

  // Ids that are never drafted (the assistant's generation_config).
  virtual std::span<const int32_t> suppress_tokens() const = 0;
};

}  // namespace tandem::model
