// Expected failures: a function that can fail for a reason a user should read returns Result<T>.
#pragma once

#include <fmt/format.h>

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace tandem::base {

enum class ErrorCode {
  kInvalidArgument,    // the user's input (flag, file, request) is wrong; HTTP 4xx, exit 2
  kNotFound,           // a file or name that does not exist
  kUnsupported,        // valid, but not something Tandem runs
  kResourceExhausted,  // memory, disk or queue is full
  kCancelled,          // Ctrl-C, disconnect
  kInternal,           // should not happen; reported, never hidden
};

// What a user reads. `message` has the form `where: expected X, got Y; what to do`.
struct Error {
  ErrorCode code = ErrorCode::kInvalidArgument;
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

inline tl::unexpected<Error> make_error(ErrorCode code, std::string message) {
  return tl::unexpected<Error>(Error{code, std::move(message)});
}

// invalid("config.json: {}: expected an integer, got {}", key, value)
template <typename... Args>
tl::unexpected<Error> invalid(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...));
}

template <typename... Args>
tl::unexpected<Error> unsupported(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kUnsupported, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace tandem::base

// TANDEM_RETURN_IF_ERROR(status_expression): returns the error to the caller.
#define TANDEM_RETURN_IF_ERROR(expression)                                          \
  do {                                                                              \
    auto try_status_ = (expression);                                                \
    if (!try_status_) [[unlikely]]                                                  \
      return tl::unexpected<::tandem::base::Error>(std::move(try_status_.error())); \
  } while (false)

#define TANDEM_CONCAT_INNER(a, b) a##b
#define TANDEM_CONCAT(a, b) TANDEM_CONCAT_INNER(a, b)

// TANDEM_ASSIGN_OR_RETURN(auto x, result_expression)
#define TANDEM_ASSIGN_OR_RETURN(declaration, expression) \
  TANDEM_ASSIGN_OR_RETURN_IMPL(TANDEM_CONCAT(try_result_, __LINE__), declaration, expression)
#define TANDEM_ASSIGN_OR_RETURN_IMPL(temporary, declaration, expression)        \
  auto temporary = (expression);                                                \
  if (!temporary) [[unlikely]]                                                  \
    return tl::unexpected<::tandem::base::Error>(std::move(temporary.error())); \
  declaration = std::move(*temporary)
