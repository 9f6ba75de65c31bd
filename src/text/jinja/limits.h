// What a template may cost. Templates can come from strangers, so every loop, copy and call is
// paid.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace tandem::text::jinja {

// Nesting of brackets and blocks in the source, of macro calls, and of lists in values.
inline constexpr int kMaxDepth = 256;
// Expressions and statements under evaluation at one time, through all macro calls: bounds the
// stack.
inline constexpr int kMaxEvalDepth = 2000;
inline constexpr int64_t kMaxRange = 1'000'000;
inline constexpr size_t kMaxTextBytes = size_t{4} << 20;
inline constexpr size_t kMaxSourceBytes = size_t{1} << 20;
// One unit is one evaluated node, one list element or kBytesPerFuel bytes of text.
inline constexpr int64_t kDefaultFuel = 2'000'000;
inline constexpr size_t kBytesPerFuel = 64;

// Thrown inside the engine only; Template::parse and Template::render turn it into an Error.
class TemplateError : public std::runtime_error {
 public:
  explicit TemplateError(const std::string& message, bool unsupported = false)
      : std::runtime_error(message), unsupported_(unsupported) {}
  bool unsupported() const { return unsupported_; }

 private:
  bool unsupported_;
};

class Meter {
 public:
  explicit Meter(int64_t fuel) : fuel_(fuel) {}

  void spend(int64_t units) {
    fuel_ -= units;
    if (fuel_ < 0) throw TemplateError("the template takes too many steps; simplify it");
  }
  void spend_items(size_t count) { spend(static_cast<int64_t>(count)); }
  void spend_text(size_t bytes) {
    if (bytes > kMaxTextBytes) throw TemplateError("a text grows past 4 MiB");
    spend(static_cast<int64_t>(bytes / kBytesPerFuel) + 1);
  }
  int64_t left() const { return fuel_; }

 private:
  int64_t fuel_;
};

// Counts nested evaluations; one per eval, exec or recursive walk over a value.
class DepthGuard {
 public:
  DepthGuard(int& depth, int limit) : depth_(depth) {
    if (++depth_ > limit) {
      --depth_;
      throw TemplateError("the template nests too deeply");
    }
  }
  ~DepthGuard() { --depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

 private:
  int& depth_;
};

}  // namespace tandem::text::jinja
