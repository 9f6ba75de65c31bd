// Cuts generated text at stop strings, while it is being generated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tandem::text {

// The set of stop strings of a request as an automaton over bytes: each byte of text costs a
// constant amount of work on average, however many strings there are.
class StopStringSet {
 public:
  explicit StopStringSet(std::vector<std::string> strings);  // empty strings are ignored

  static constexpr uint32_t kRoot = 0;

  uint32_t step(uint32_t node, uint8_t byte) const;
  // The longest suffix of the text so far that begins a stop string.
  std::string_view held(uint32_t node) const;
  // The longest stop string that ends here: its index, or -1.
  int32_t stop_index(uint32_t node) const { return nodes_[node].stop_index; }
  const std::string& string(int32_t index) const { return strings_[static_cast<size_t>(index)]; }

 private:
  struct Node {
    uint32_t fallback = kRoot;  // the longest proper suffix that begins a stop string
    uint32_t depth = 0;
    uint32_t source = 0;  // a string that starts with this node's path
    int32_t stop_index = -1;
    std::vector<std::pair<uint8_t, uint32_t>> children;
  };
  uint32_t child(uint32_t node, uint8_t byte) const;  // kRoot if none
  void insert(uint32_t index);
  void link();

  std::vector<std::string> strings_;
  std::vector<Node> nodes_;
};

// Text in, text out. The end of the text that could begin a stop string is held back until the
// following text decides. Since text and stop strings are whole characters, so is what comes out.
// The stop that ends first wins; of several that end together, the longest.
class StopStringMatcher {
 public:
  StopStringMatcher(std::vector<std::string> stop_strings, bool include_stop_str_in_output);

  struct Output {
    std::string text;       // safe to show
    bool stopped = false;   // a stop string is complete; text that follows is dropped
    std::string stop_text;  // the stop string, if stopped
  };
  // may_stop false: a stop string that becomes complete is text as any other.
  Output push(std::string_view delta, bool may_stop = true);
  // The end of the text without a stop: what was held back.
  std::string finish();

  bool stopped() const { return stopped_; }

 private:
  std::shared_ptr<const StopStringSet> set_;
  bool include_stop_;
  bool stopped_ = false;
  uint32_t node_ = StopStringSet::kRoot;
};

}  // namespace tandem::text
