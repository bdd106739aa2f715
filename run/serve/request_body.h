// The body of a request, as long as it may be.
//
// Purpose: what is too long is refused in words that arrive: most of it is read and dropped, for a
// client that is cut off while it writes sees a broken connection. Bodies are read by pieces, for
// the library's own bound does not hold for one in chunks. Thread safety: pure function.
// Errors: ApiError. Only in builds with cpp-httplib.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace httplib {
class ContentReader;
struct Response;
}  // namespace httplib

namespace plumb::run {

// A body of up to so many times its bound is read whole, to refuse it; a longer one is cut off.
inline constexpr size_t kMostRefused = 16;

// At most `most` bytes; 413 where there are more, with `advice` behind the bound, 400 where not all
// of them arrive: then the connection is closed.
std::string ReadRequestBody(const httplib::ContentReader& read, httplib::Response& reply,
                            size_t most, const std::string& advice = "");

}  // namespace plumb::run
