// The HTTP server of `plumb serve`: OpenAI's API over a batch engine.
//
// Purpose: /v1/completions, /v1/chat/completions, /v1/models, /tokenize, /health, /metrics. A
// client that leaves frees its slots. A page in a browser elsewhere gets nothing: a request has to
// name the server by an address or a name of its own (else 421), and a body has to be
// application/json (else 415), which no page may send without asking first; nothing here allows it.
// Thread safety: one thread makes it and ends it; the rest runs on threads of its own. Ownership:
// borrows models and engine, which outlive it. Errors: kConflict for a port in use, kUnsupported
// without cpp-httplib.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "run/serve/batch_engine.h"
#include "run/serve/served_models.h"

namespace plumb::run {

struct ApiOptions {
  std::string host = "127.0.0.1";
  int port = 0;                    // 0: one that is free
  std::vector<std::string> names;  // by which it may be asked besides its addresses
  std::string key;                 // "": everybody may ask
  size_t max_body = size_t{8} << 20;
};

class ApiServer {
 public:
  ApiServer(const ServedModels& models, BatchEngine& engine, ApiOptions options);
  ~ApiServer();  // ends at once what has not ended
  ApiServer(const ApiServer&) = delete;

  // Takes on nothing new (503) and waits for what is being answered; what has not ended by then is
  // cut off. True: everything ended by itself.
  bool Drain(std::chrono::milliseconds grace);

  int port() const;
  std::string url() const;  // "http://127.0.0.1:8000/v1"

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb::run
