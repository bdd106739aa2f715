// The OpenAI-compatible endpoint that agents ask the policy at.
//
// Purpose: each episode has a base URL, URL/episodes/N/v1, and a key of its own. Below it are
// chat/completions, completions and models as OpenAI's clients call them, and reward;
// docs/agents.md has the calls. POST URL/episodes, with the key of the endpoint, fetches an episode
// for an agent from elsewhere. Without a key nothing is answered. Thread safety: one thread makes
// it and ends it; the rest runs on threads of its own. Ownership: borrows door and tokenizer.
// Errors: kConflict for a port in use, kUnsupported without cpp-httplib.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/text/tokenizer/tokenizer.h"
#include "run/agents/agent_door.h"

namespace plumb::run {

struct AgentServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;          // 0: one that is free
  std::string key;       // of POST /episodes; "": it is not answered
  int64_t threads = 64;  // calls at once
  std::string model = "policy";
  size_t max_body = size_t{8} << 20;
};

class AgentServer {
 public:
  AgentServer(AgentDoor& door, const Tokenizer& tokenizer, AgentServerOptions options);
  ~AgentServer();  // closes the door
  AgentServer(const AgentServer&) = delete;

  int port() const;
  std::string url() const;  // "http://127.0.0.1:41234"
  const std::string& key() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace plumb::run
