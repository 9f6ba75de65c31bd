#include "text/jinja/loop_state.h"

#include "text/jinja/limits.h"

namespace tandem::text::jinja {

std::optional<Value> LoopState::fetch() {
  while (next_ < items_->size()) {
    Value item = items_->at(next_++);
    if (!accept_ || accept_(item)) return item;
  }
  return std::nullopt;
}

const Value* LoopState::peek() {
  if (ahead_.empty()) {
    std::optional<Value> item = fetch();
    if (!item) return nullptr;
    ahead_.push_back(std::move(*item));
  }
  return &ahead_.front();
}

size_t LoopState::length() {
  if (!accept_) return items_->size();
  while (std::optional<Value> item = fetch()) ahead_.push_back(std::move(*item));
  return position_ + ahead_.size();
}

bool LoopState::advance() {
  if (peek() == nullptr) return false;
  previous_ = std::move(current_);
  current_ = std::move(ahead_.front());
  ahead_.pop_front();
  ++position_;
  return true;
}

std::optional<Value> LoopState::attribute(std::string_view name) {
  const auto number = [](size_t n) { return Value::integer(static_cast<int64_t>(n)); };
  if (name == "index0") return number(position_ - 1);
  if (name == "index") return number(position_);
  if (name == "first") return Value(position_ == 1);
  if (name == "last") return Value(peek() == nullptr);
  if (name == "length") return number(length());
  if (name == "revindex") return number(length() - position_ + 1);
  if (name == "revindex0") return number(length() - position_);
  if (name == "previtem") return position_ > 1 ? previous_ : Value();
  if (name == "nextitem") {
    const Value* next = peek();
    return next == nullptr ? Value() : *next;
  }
  if (name == "depth") return Value::integer(1);  // recursive loops are refused
  if (name == "depth0") return Value::integer(0);
  return std::nullopt;
}

Value LoopState::cycle(const std::vector<Value>& values) const {
  if (values.empty()) throw TemplateError("loop.cycle needs at least one value");
  return values[(position_ - 1) % values.size()];
}

bool LoopState::changed(std::vector<Value> values,
                        const std::function<bool(const Value&, const Value&)>& equal) {
  bool same = last_changed_ && last_changed_->size() == values.size();
  for (size_t i = 0; same && i < values.size(); ++i) same = equal((*last_changed_)[i], values[i]);
  last_changed_ = std::move(values);
  return !same;
}

}  // namespace tandem::text::jinja
