// kind = "program", "plugin" and "python": JSON lines with a child process.
#include <utility>

#include "common/base/log.h"
#include "common/sandbox/child_process.h"
#include "common/sandbox/host_command.h"
#include "environment/doors/peer.h"

namespace plumb::environment {
namespace {

constexpr size_t kMaxLine = 4 << 20;

class ProcessPeer : public Peer {
 public:
  explicit ProcessPeer(ProcessSetup setup)
      : setup_(std::move(setup)),
        child_({.command = setup_.command,
                .input_cap_bytes = 16 << 20,
                .max_processes = CountedProcesses(setup_.sandbox)}) {}

  Problem Start(std::string* tools) override {
    try {
      child_.Start();
    } catch (const Error& error) {
      return error.what();
    }
    std::string line;
    Failure failure = child_.ReadLine(kMaxLine, &line, After(setup_.start_grace));
    if (failure != Failure::kNone) return "did not get ready: " + Ended(&failure);
    try {
      Greeting greeting = ReadGreeting(line);
      if (greeting.error.empty()) {
        *tools = std::move(greeting.tools);
        return std::nullopt;
      }
      child_.Kill();
      return greeting.error.substr(0, 2000);
    } catch (const Error& error) {
      child_.Kill();
      return error.message() +
             ". An environment greets with {\"ready\":true}, or {\"ready\":true,\"tools\":[..]}, "
             "on its standard output (docs/environments.md)";
    }
  }

  PeerReply Call(const PeerRequest& request, Deadline deadline) override {
    const uint64_t id = ++next_id_;
    Failure failure = child_.unread() > 0 ? Failure::kBadReply
                                          : child_.Write(RequestLine(request, id) + "\n", deadline);
    std::string detail = failure == Failure::kBadReply ? "it wrote without being asked" : "";
    std::string line;
    if (failure == Failure::kNone) failure = child_.ReadLine(kMaxLine, &line, deadline);
    if (failure == Failure::kNone) {
      try {
        PeerReply reply = ReadReply(line, id, request.calls.size());
        Log();
        return reply;
      } catch (const Error& error) {
        failure = Failure::kBadReply;
        detail = error.message();
      }
    }
    const std::string why = Ended(&failure, detail);
    throw PeerLost(failure, why);
  }

 private:
  std::string Ended(Failure* failure, const std::string& detail = "") {
    std::string why;
    switch (*failure) {
      case Failure::kTimeout:
        child_.Kill();
        why = "no answer within its deadline; the process group was killed";
        break;
      case Failure::kCrash: why = "the process " + child_.EndReason(failure); break;
      case Failure::kOutputCap:
        child_.Kill();
        why = "wrote a line of more than " + std::to_string(kMaxLine) + " bytes, or too many";
        break;
      default: child_.Kill(); why = detail;
    }
    if (const std::string said = child_.TakeStderr(); !said.empty())
      why += "; it printed: " + said.substr(said.size() > 400 ? said.size() - 400 : 0);
    return why;
  }

  void Log() {
    if (const std::string said = child_.TakeStderr(); !said.empty())
      log_.Warning("environment " + setup_.what + " printed: " + said.substr(0, 400));
  }

  const ProcessSetup setup_;
  ChildProcess child_;
  uint64_t next_id_ = 0;
  LogEvery log_{std::chrono::seconds(10)};
};

}  // namespace

std::unique_ptr<Peer> MakeProcessPeer(ProcessSetup setup) {
  return std::make_unique<ProcessPeer>(std::move(setup));
}

}  // namespace plumb::environment
