#include "common/base/error.h"

#include <cstdio>
#include <cstdlib>

namespace plumb {

std::string_view ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kNotFound: return "not_found";
    case ErrorCode::kCorruption: return "corruption";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kNoSpace: return "no_space";
    case ErrorCode::kDeadline: return "deadline";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kConflict: return "conflict";
    case ErrorCode::kUnsupported: return "unsupported";
    case ErrorCode::kNonFinite: return "non_finite";
  }
  return "unknown";
}

Error::Error(ErrorCode code, std::string message, std::string where)
    : std::runtime_error(where.empty() ? message : where + ": " + message),
      code_(code),
      message_(std::move(message)),
      where_(std::move(where)) {}

namespace internal {

void CheckFailed(const char* condition, const std::string& detail, std::source_location at) {
  std::fprintf(stderr, "%s:%u: check failed: %s%s%s\n", at.file_name(), at.line(), condition,
               detail.empty() ? "" : ": ", detail.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace internal
}  // namespace plumb
