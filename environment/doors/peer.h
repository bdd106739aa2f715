// Whoever holds environments: a process, a service, or our own tools in this process.
//
// Purpose: what a worker of environment/doors/environment_pool.h talks to. Thread safety: one
// thread, and the same one from the first call to the destructor (common/sandbox/child_process.h).
// Ownership: a peer owns its process or connection. Errors: Start says why it does not serve; Ask
// throws PeerLost when all conversations in there are gone, and answers PeerReply::error for one
// that is.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/base/error.h"
#include "common/base/problem.h"
#include "common/record/failure.h"
#include "common/record/ports.h"
#include "common/sandbox/sandbox.h"
#include "configs/config.h"
#include "environment/doors/protocol.h"
#include "environment/tools/tool.h"

namespace plumb::environment {

class PeerLost : public Error {
 public:
  PeerLost(Failure failure, const std::string& what)
      : Error(ErrorCode::kUnavailable, what), failure(failure) {}
  const Failure failure;
};

class Peer {
 public:
  virtual ~Peer() = default;
  // Again after it was lost. `tools`: JSON array of schemas, "" for none.
  virtual Problem Start(std::string* tools) = 0;
  virtual PeerReply Call(const PeerRequest& request, Deadline deadline) = 0;
};

// Of kind program, plugin and python: the command line is whole, walls and all.
struct ProcessSetup {
  std::vector<std::string> command;
  SandboxOptions sandbox;
  std::chrono::milliseconds start_grace{60000};
  std::string what;  // in messages: the file
};
std::unique_ptr<Peer> MakeProcessPeer(ProcessSetup setup);
std::unique_ptr<Peer> MakeHttpPeer(const std::string& endpoint, std::chrono::milliseconds timeout);
std::unique_ptr<Peer> MakeToolsPeer(const configs::EnvironmentConfig& config, ToolSetup setup);

}  // namespace plumb::environment
