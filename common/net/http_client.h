// One kept-alive HTTP connection that ends every call at its deadline and reads no more than it is
// told to.
//
// Purpose: what rewards over HTTP, judges and environments over HTTP have in common. POST with a
// JSON body; redirects are not followed, bodies not unpacked. A server that is away, closes the
// connection or says 429, 502, 503 or 504 is asked again until the deadline: asking for a score has
// no side effects. With `once` only what cannot have been seen, for nobody listened or the server
// was busy, is sent again. Thread safety: one thread calls; a thread of its own ends calls that
// outlive their deadline. Ownership: connection and thread; the destructor ends both. Errors: the
// constructor throws Error(kInvalidArgument) for what is no URL and kUnsupported for builds without
// cpp-httplib; calls report failures through HttpReply. Reasons name the URL without user and
// query, and never the key. Known limits: looking a name up may outlast the deadline (give an
// address); headers are bounded a line (8 KiB) and by the deadline, not in their number.
#pragma once

#include <memory>
#include <string>

#include "common/record/failure.h"
#include "common/record/ports.h"

namespace plumb {

struct HttpOptions {
  size_t max_reply_bytes = size_t{4} << 20;
  std::string bearer;  // sent as Authorization: Bearer; empty: none
  bool once = false;   // a request has effects: see above
};

struct HttpReply {
  Failure failure = Failure::kNone;
  std::string reason;  // when failed
  std::string body;    // when not
};

// "http://host:port/path" in its pieces. Throws as said above.
struct Url {
  std::string origin;  // scheme://host:port
  std::string path;    // with the query; "/" when there was none
  std::string shown;   // for messages and digests: without user and query
};
Url ParseUrl(const std::string& text);

// The key in the environment variable `name`; empty name: empty key. Throws kInvalidArgument when
// it is not set.
std::string KeyFromEnvironment(const std::string& name);

class HttpClient {
 public:
  HttpClient(const Url& url, HttpOptions options);
  ~HttpClient();
  HttpReply Post(const std::string& body, Deadline deadline);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb
