// The head that guesses: more than half of what a draft step reads.
#pragma once

#include "core/buffer.h"
#include "model/options.h"
#include "ops/linear.h"

namespace tandem::model {

// What a head takes whose stored form is [vocab, hidden] BF16.
int64_t draft_head_bytes(const core::TensorView& stored, DraftHeadFormat format);

// Drafts are only guesses that the target checks, so their head may be rounded: in FP8, with a
// scale for each token, a draft step reads little more than half the bytes. No answer changes.
class DraftHead {
 public:
  DraftHead() = default;
  // stored [vocab, hidden] BF16; kept by reference unless it is converted.
  DraftHead(const core::TensorView& stored, DraftHeadFormat format);

  const ops::LinearWeight& weight() const { return weight_; }
  int64_t size_bytes() const;

 private:
  ops::LinearWeight weight_;
  core::Buffer codes_;   // [vocab, hidden] E4M3
  core::Buffer scales_;  // [vocab] F32
};

}  // namespace tandem::model
