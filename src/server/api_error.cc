#include "server/api_error.h"

#include <nlohmann/json.hpp>

#include "server/json_text.h"

namespace tandem::server {
namespace {

std::string_view type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 500:
      return "internal_error";
    case 503:
      return "service_unavailable_error";
    default:
      return "invalid_request_error";
  }
}

bool is_field_name(std::string_view text) {
  if (text.empty() || text.size() > 80) return false;
  for (const char c : text) {
    const bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
                      c == '[' || c == ']';
    if (!good) return false;
  }
  return true;
}

}  // namespace

tl::unexpected<ApiError> api_error(int status, std::string message,
                                   std::optional<std::string> param,
                                   std::optional<std::string> code) {
  return tl::unexpected<ApiError>(
      ApiError{status, std::move(message), std::move(param), std::move(code)});
}

ApiError from_error(const base::Error& error) {
  ApiError result;
  result.message = error.message;
  switch (error.code) {
    case base::ErrorCode::kResourceExhausted:
      result.status = 429;
      break;
    case base::ErrorCode::kCancelled:
      result.status = 503;
      break;
    case base::ErrorCode::kInternal:
      result.status = 500;
      break;
    default:
      result.status = 400;
  }
  const std::string field = error.message.substr(0, error.message.find(": "));
  if (is_field_name(field)) result.param = field;
  return result;
}

std::string error_json(const ApiError& error) {
  nlohmann::ordered_json body;
  body["message"] = error.message;
  body["type"] = type_of(error.status);
  body["param"] = error.param ? nlohmann::ordered_json(*error.param) : nlohmann::ordered_json();
  body["code"] =
      error.code ? nlohmann::ordered_json(*error.code) : nlohmann::ordered_json(error.status);
  return json_text({{"error", body}});
}

Reply error_reply(const ApiError& error) {
  Reply reply;
  reply.head.status = error.status;
  if (error.status == 429 || error.status == 503) reply.head.headers = {{"Retry-After", "1"}};
  if (error.status == 401) reply.head.headers = {{"WWW-Authenticate", "Bearer"}};
  reply.body = error_json(error);
  reply.field = error.param.value_or("");
  return reply;
}

}  // namespace tandem::server
