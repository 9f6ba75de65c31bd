// Checks for bugs of ours. A failed check prints the expression with both operands and aborts.
// Never reachable by user input: what a user can cause returns a Status (base/status.h).
#pragma once

#include <fmt/format.h>

#include <string>

namespace tandem::base {

// Prints `file:line: check failed: expression (detail)` to stderr and aborts.
[[noreturn]] void check_failed(const char* file, int line, const char* expression,
                               const std::string& detail);

}  // namespace tandem::base

#define TANDEM_CHECK(condition)                                         \
  do {                                                                  \
    if (!(condition)) [[unlikely]]                                      \
      ::tandem::base::check_failed(__FILE__, __LINE__, #condition, ""); \
  } while (false)

// TANDEM_CHECK with a message: TANDEM_CHECK_MSG(n > 0, "layer {}", i).
#define TANDEM_CHECK_MSG(condition, ...)                                                      \
  do {                                                                                        \
    if (!(condition)) [[unlikely]]                                                            \
      ::tandem::base::check_failed(__FILE__, __LINE__, #condition, fmt::format(__VA_ARGS__)); \
  } while (false)

#define TANDEM_CHECK_OP(a, op, b)                                                     \
  do {                                                                                \
    const auto& check_a_ = (a);                                                       \
    const auto& check_b_ = (b);                                                       \
    if (!(check_a_ op check_b_)) [[unlikely]]                                         \
      ::tandem::base::check_failed(__FILE__, __LINE__, #a " " #op " " #b,             \
                                   fmt::format("{} against {}", check_a_, check_b_)); \
  } while (false)

#define TANDEM_CHECK_EQ(a, b) TANDEM_CHECK_OP(a, ==, b)
#define TANDEM_CHECK_NE(a, b) TANDEM_CHECK_OP(a, !=, b)
#define TANDEM_CHECK_LT(a, b) TANDEM_CHECK_OP(a, <, b)
#define TANDEM_CHECK_LE(a, b) TANDEM_CHECK_OP(a, <=, b)
#define TANDEM_CHECK_GT(a, b) TANDEM_CHECK_OP(a, >, b)
#define TANDEM_CHECK_GE(a, b) TANDEM_CHECK_OP(a, >=, b)
