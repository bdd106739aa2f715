// The board's HTTP server: the page, its API and its events, read-only.
//
// Purpose: answers GET and HEAD, nothing else (405). Every reply forbids the page to load from, or
// be framed by, any other place. A request has to name the server by an address, by localhost or by
// a name it was given (else 421): a page elsewhere that has its own name point here gets nothing.
// On loopback only loopback's names count. Thread safety: Start and Stop: one thread; the rest runs
// on threads of its own. Ownership: the threads and the socket; borrows the catalog. Errors:
// kConflict for a port in use, kInvalidArgument for an address that is not one of this machine,
// kUnsupported without cpp-httplib.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "run/board/run_catalog.h"

namespace plumb::run {

struct BoardOptions {
  std::string host = "127.0.0.1";
  int port = 0;                    // 0: one that is free
  std::vector<std::string> names;  // by which it may be asked besides
  int max_readers = 32;  // of events at once; one more gets 503, and its page asks by itself
};

class BoardServer {
 public:
  BoardServer(RunCatalog& runs, BoardOptions options);
  ~BoardServer();  // stops
  BoardServer(const BoardServer&) = delete;

  int port() const;
  std::string url() const;  // "http://127.0.0.1:8642/"

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether a Host header names this server. `names`: allowed besides addresses.
bool HostAllowed(const std::string& header, bool loopback, const std::vector<std::string>& names);
// 127.0.0.0/8, ::1, localhost.
bool IsLoopback(const std::string& host);

}  // namespace plumb::run
