// What may come next in an answer: the one thing that text (which knows grammars) and speculation
// (which knows tokens) share.
#pragma once

#include <cstdint>
#include <span>

namespace tandem::base {

// A place in a grammar. It moves over tokens as they are emitted; drafts move it forward for a
// while and are taken back. One answer's own; not for two threads at once.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // What may come next: bit id % 32 of word id / 32. Empty: every token. Valid until the next call.
  virtual std::span<const uint32_t> allowed() = 0;
  // Moves over a token; false, and nothing moves, when it is not allowed.
  virtual bool accept(int32_t token) = 0;
  // Takes back the last `count` accepted tokens.
  virtual void rollback(int count) = 0;
  // An end token has been accepted: nothing may follow.
  virtual bool finished() const = 0;
};

}  // namespace tandem::base
