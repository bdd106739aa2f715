#include "run/serve/api_error.h"

#include <nlohmann/json.hpp>

namespace plumb::run {
namespace {

const char* TypeOf(int status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

}  // namespace

std::string ErrorJson(const ApiError& error) {
  using Json = nlohmann::ordered_json;
  const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
  return Json{{"error",
               {{"message", error.message},
                {"type", TypeOf(error.status)},
                {"param", or_null(error.param)},
                {"code", or_null(error.code)}}}}
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

ApiError AsApiError(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorruption:
    case ErrorCode::kUnsupported:
    case ErrorCode::kNotFound: return {.status = 400, .message = error.what()};
    default: return {.status = 500, .message = error.what()};
  }
}

}  // namespace plumb::run
