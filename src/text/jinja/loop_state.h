// The `loop` variable: where a for loop stands, with lazy look-ahead past filtered items.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace tandem::text::jinja {

class LoopState {
 public:
  using Accept = std::function<bool(const Value&)>;
  // `accept` is the condition of `for ... if`; empty when there is none.
  LoopState(SequencePtr items, Accept accept)
      : items_(std::move(items)), accept_(std::move(accept)) {}

  // Moves to the next item; false at the end.
  bool advance();
  const Value& current() const { return current_; }

  // An attribute such as loop.index0; nullopt when there is none of that name.
  std::optional<Value> attribute(std::string_view name);
  Value cycle(const std::vector<Value>& values) const;
  // True when the values differ from those of the last call.
  bool changed(std::vector<Value> values,
               const std::function<bool(const Value&, const Value&)>& equal);

 private:
  std::optional<Value> fetch();
  const Value* peek();
  size_t length();

  SequencePtr items_;
  Accept accept_;
  size_t next_ = 0;          // into items_
  std::deque<Value> ahead_;  // accepted, not yet visited
  size_t position_ = 0;      // items visited, the current one included
  Value current_;
  Value previous_;
  std::optional<std::vector<Value>> last_changed_;
};

}  // namespace tandem::text::jinja
