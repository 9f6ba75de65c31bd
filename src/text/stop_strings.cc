#include "text/stop_strings.h"

#include <algorithm>

namespace tandem::text {

StopStringSet::StopStringSet(std::vector<std::string> strings) : strings_(std::move(strings)) {
  nodes_.emplace_back();
  for (uint32_t i = 0; i < strings_.size(); ++i) insert(i);
  link();
}

uint32_t StopStringSet::child(uint32_t node, uint8_t byte) const {
  for (const auto& [key, next] : nodes_[node].children) {
    if (key == byte) return next;
  }
  return kRoot;
}

void StopStringSet::insert(uint32_t index) {
  if (strings_[index].empty()) return;
  uint32_t node = kRoot;
  for (const char c : strings_[index]) {
    const auto byte = static_cast<uint8_t>(c);
    uint32_t next = child(node, byte);
    if (next == kRoot) {
      next = static_cast<uint32_t>(nodes_.size());
      const uint32_t depth = nodes_[node].depth + 1;
      nodes_.emplace_back();
      nodes_[next].depth = depth;
      nodes_[next].source = index;
      nodes_[node].children.emplace_back(byte, next);
    }
    node = next;
  }
  if (nodes_[node].stop_index < 0) nodes_[node].stop_index = static_cast<int32_t>(index);
}

// Breadth first, so that shorter suffixes are linked before longer ones need them.
void StopStringSet::link() {
  std::vector<uint32_t> order{kRoot};
  for (size_t i = 0; i < order.size(); ++i) {
    const uint32_t parent = order[i];
    for (const auto& [byte, node] : nodes_[parent].children) {
      order.push_back(node);
      if (parent != kRoot) nodes_[node].fallback = step(nodes_[parent].fallback, byte);
      // A longer string that ends here comes first, so only nodes without their own inherit.
      if (nodes_[node].stop_index < 0)
        nodes_[node].stop_index = nodes_[nodes_[node].fallback].stop_index;
    }
  }
}

uint32_t StopStringSet::step(uint32_t node, uint8_t byte) const {
  while (true) {
    const uint32_t next = child(node, byte);
    if (next != kRoot || node == kRoot) return next;
    node = nodes_[node].fallback;
  }
}

std::string_view StopStringSet::held(uint32_t node) const {
  if (node == kRoot) return {};
  return std::string_view(strings_[nodes_[node].source]).substr(0, nodes_[node].depth);
}

StopStringMatcher::StopStringMatcher(std::vector<std::string> stop_strings,
                                     bool include_stop_str_in_output)
    : set_(std::make_shared<const StopStringSet>(std::move(stop_strings))),
      include_stop_(include_stop_str_in_output) {}

StopStringMatcher::Output StopStringMatcher::push(std::string_view delta, bool may_stop) {
  Output output;
  output.stopped = stopped_;
  if (stopped_) return output;
  const std::string_view before = set_->held(node_);
  size_t used = 0;
  int32_t stop = -1;
  while (used < delta.size() && stop < 0) {
    node_ = set_->step(node_, static_cast<uint8_t>(delta[used++]));
    if (may_stop) stop = set_->stop_index(node_);
  }
  size_t kept_back = set_->held(node_).size();
  if (stop >= 0) {
    output.stopped = stopped_ = true;
    output.stop_text = set_->string(stop);
    kept_back = include_stop_ ? 0 : output.stop_text.size();
  }
  // What comes out is the text held before plus the delta, less what is kept back now.
  const size_t emitted = before.size() + used - kept_back;
  output.text = before.substr(0, std::min(emitted, before.size()));
  if (emitted > before.size()) output.text += delta.substr(0, emitted - before.size());
  return output;
}

std::string StopStringMatcher::finish() {
  if (stopped_) return {};
  const std::string held(set_->held(node_));
  node_ = StopStringSet::kRoot;
  return held;
}

}  // namespace tandem::text
