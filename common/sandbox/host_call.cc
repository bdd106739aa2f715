#include "common/sandbox/host_call.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "common/base/numbers/number_text.h"
#include "common/sandbox/socket_relay.h"

namespace plumb {
namespace {

Problem Guard(const SandboxOptions& sandbox, SeccompProfile profile, bool network) {
  ApplyLimits(sandbox, /*on_top=*/profile == SeccompProfile::kSharedObject);
  if (sandbox.seccomp && !InstallSeccomp(profile, network) && !sandbox.allow_unsandboxed) {
    return "this kernel has no seccomp filters; set reward.allow_unsandboxed = true to go on "
           "without";
  }
  return std::nullopt;
}

}  // namespace

Problem ParseHostCall(int argc, char** argv, HostCall* out) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--") {
      for (++i; i < argc; ++i) out->rest.push_back(argv[i]);
      break;
    }
    if (i + 1 >= argc) return name + " needs a value";
    const std::string value = argv[++i];
    if (name == "--so" || name == "--exec") {
      (name == "--so" ? out->object : out->program) = value;
      continue;
    }
    if (name == "--relay-socket") {
      out->sandbox.relay_socket = value;
      continue;
    }
    const int64_t number = ParseNumber<int64_t>(value).value_or(-1);
    if (number < 0) return name + ": '" + value + "' is no number";
    SandboxOptions& s = out->sandbox;
    if (name == "--memory-mb") s.memory_mb = number;
    else if (name == "--cpu-seconds") s.cpu_seconds = number;
    else if (name == "--file-mb") s.file_mb = number;
    else if (name == "--open-files") s.open_files = number;
    else if (name == "--processes") s.processes = number;
    else if (name == "--limits") s.limits = number != 0;
    else if (name == "--seccomp") s.seccomp = number != 0;
    else if (name == "--network") s.network = number != 0;
    else if (name == "--relay-port") s.relay_port = number;
    else if (name == "--unsandboxed") s.allow_unsandboxed = number != 0;
    else return "unknown option " + name;
  }
  if (out->object.empty() == out->program.empty()) return "give one of --so PATH and --exec PATH";
  return std::nullopt;
}

bool WriteAll(int fd, const std::string& bytes) {
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t n = write(fd, bytes.data() + at, bytes.size() - at);
    if (n < 0 && errno != EINTR) return false;
    if (n > 0) at += static_cast<size_t>(n);
  }
  return true;
}

bool ReadAll(int fd, size_t size, std::string* out) {
  out->resize(size);
  for (size_t at = 0; at < size;) {
    const ssize_t n = read(fd, out->data() + at, size - at);
    if (n == 0 || (n < 0 && errno != EINTR)) return false;
    if (n > 0) at += static_cast<size_t>(n);
  }
  return true;
}

HostPipes TakeHostPipes() {
  const HostPipes pipes{.in = fcntl(0, F_DUPFD_CLOEXEC, 100),
                        .out = fcntl(1, F_DUPFD_CLOEXEC, 100)};
  const int null = open("/dev/null", O_RDONLY);
  if (pipes.in < 0 || pipes.out < 0 || null < 0) return {};
  dup2(null, 0);
  dup2(2, 1);
  close(null);
  return pipes;
}

Problem GuardObject(const SandboxOptions& sandbox) {
  return Guard(sandbox, SeccompProfile::kSharedObject, sandbox.network);
}

int ExecuteProgram(HostCall& arguments) {
  std::vector<char*> argv = {arguments.program.data()};
  argv.insert(argv.end(), arguments.rest.begin(), arguments.rest.end());
  argv.push_back(nullptr);
  // In front of the limits, of which the relay needs none.
  const bool relays = arguments.sandbox.relay_port > 0;
  if (relays) {
    if (const Problem problem = StartLoopbackRelay(static_cast<int>(arguments.sandbox.relay_port),
                                                   arguments.sandbox.relay_socket)) {
      std::fprintf(stderr, "%s\n", problem->c_str());
      return 3;
    }
  }
  const bool network = arguments.sandbox.network || relays;
  if (const Problem problem = Guard(arguments.sandbox, SeccompProfile::kProgram, network)) {
    std::fprintf(stderr, "%s\n", problem->c_str());
    return 3;
  }
  execvp(argv[0], argv.data());
  std::fprintf(stderr, "cannot execute %s: %s\n", argv[0], std::strerror(errno));
  return 127;
}

int RunHost(int argc, char** argv, const char* name, int (*serve)(const HostCall&)) {
  HostCall call;
  if (const Problem problem = ParseHostCall(argc, argv, &call)) {
    std::fprintf(stderr, "%s: %s\n", name, problem->c_str());
    return 2;
  }
  if (!call.program.empty()) return ExecuteProgram(call);
  const int code = serve(call);
  // No destructors and exit handlers: the object's own could hang a process that is done.
  std::fflush(nullptr);
  _exit(code);
}

}  // namespace plumb
