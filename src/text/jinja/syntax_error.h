// What is wrong with a template's source, and where. Inside the engine only.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace tandem::text::jinja {

class SyntaxError : public std::runtime_error {
 public:
  SyntaxError(uint32_t line, const std::string& message, bool unsupported = false)
      : std::runtime_error(message), line_(line), unsupported_(unsupported) {}
  uint32_t line() const { return line_; }
  bool unsupported() const { return unsupported_; }  // valid for jinja2, not run here

 private:
  uint32_t line_;
  bool unsupported_;
};

}  // namespace tandem::text::jinja
