#include "run/serve/request_body.h"

#ifdef PLUMB_HTTPLIB
#include <httplib.h>

#include "common/base/size_text.h"
#include "run/serve/api_error.h"

namespace plumb::run {

std::string ReadRequestBody(const httplib::ContentReader& read, httplib::Response& reply,
                            size_t most, const std::string& advice) {
  std::string body;
  size_t bytes = 0;
  const bool whole = read([&](const char* data, size_t n) {
    bytes += n;
    if (bytes <= most) body.append(data, n);
    return bytes <= most * kMostRefused;
  });
  if (bytes <= most && whole && reply.status != 413) return body;
  reply.set_header("Connection", "close");
  if (bytes <= most && reply.status != 413)
    throw ApiError{400, "the body did not arrive as a whole", "", "bad_body"};
  throw ApiError{413, "the body has more than " + LimitText(static_cast<int64_t>(most)) + advice,
                 "", "body_too_large"};
}

}  // namespace plumb::run
#endif
