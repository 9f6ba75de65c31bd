// Refusals in OpenAI's form: {"error": {"message", "type", "param", "code"}} and a status.
#pragma once

#include <optional>
#include <string>
#include <tl/expected.hpp>

#include "base/status.h"
#include "server/http_types.h"

namespace tandem::server {

struct ApiError {
  int status = 400;
  std::string message;
  std::optional<std::string> param = {};
  std::optional<std::string> code = {};
};

template <typename T>
using ApiResult = tl::expected<T, ApiError>;

tl::unexpected<ApiError> api_error(int status, std::string message,
                                   std::optional<std::string> param = {},
                                   std::optional<std::string> code = {});

// Messages of other parts read `field: expected X, got Y`: the field becomes the param.
ApiError from_error(const base::Error& error);

// {"error": {...}}
std::string error_json(const ApiError& error);
// With Retry-After where trying again can help.
Reply error_reply(const ApiError& error);

}  // namespace tandem::server
