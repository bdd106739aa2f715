// The walls around code that users bring.
//
// Layers, outermost first, each switchable only so that a test can show what it stops:
//   namespaces  user, pid, net, ipc, uts, cgroup, mount through bubblewrap: the file system
//               read-only, private /tmp, /run and /var/tmp, no network, killing the namespace's
//               init kills every descendant
//   limits      RLIMIT_AS, CPU, FSIZE, NOFILE, NPROC, CORE = 0
//   seccomp     a system-call filter (deny list, EPERM): mount, ptrace, bpf, keyrings, modules, new
//               namespaces, io_uring, sockets other than AF_UNIX; for shared objects also fork and
//               exec
//   session     new session and process group, no_new_privs, parent-death signal
// A host that lacks bubblewrap or user namespaces refuses to start unless allow_unsandboxed
// (RELIABILITY.md 2). The kernel does not apply RLIMIT_NPROC to processes of the real root user:
// those of a *program* run by root are counted by common/sandbox/process_watch.h instead; a shared
// object cannot fork (seccomp).
// Thread safety: pure functions; ProbeNamespaces() caches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/problem.h"

struct sock_filter;

namespace plumb {

struct SandboxOptions {
  bool namespaces = true;
  bool limits = true;
  bool seccomp = true;
  bool network = false;  // leave the network namespace shared and sockets allowed
  // In a network namespace of its own: this port of its loopback leads to the socket file, and
  // nothing else anywhere (common/sandbox/socket_relay.h). Programs only; 0: there is none.
  int64_t relay_port = 0;
  std::string relay_socket = {};
  bool allow_unsandboxed = false;  // go on without the namespaces where the machine has none
  int64_t memory_mb = 2048;
  // 0: none (hosts live long; the wall deadline is the bound of a call)
  int64_t cpu_seconds = 0;
  int64_t file_mb = 64;  // largest file it may write
  int64_t open_files = 256;
  int64_t processes = 64;
  // of the file system only /usr, /bin, /lib*, the linker's cache and what is `visible`
  bool system_only = false;
  // files and folders that must be readable even under /tmp or /run
  std::vector<std::string> visible;
};

// Whether bubblewrap works here: what is missing and how to get it. Probed once a process.
const Problem& ProbeNamespaces();

// The command line in front of what should run ({} when namespaces are off, or absent and that is
// allowed). Throws Error(kUnsupported) as said above.
std::vector<std::string> NamespaceCommand(const SandboxOptions& options);
// The options of `reward-host` that make it apply limits and filter from the inside, just before it
// loads or executes anything: RLIMIT_NPROC set outside would count every process of the user.
std::vector<std::string> HostArguments(const SandboxOptions& options, bool in_namespaces);

enum class SeccompProfile : uint8_t { kProgram = 0, kSharedObject = 1 };
// The filter as classic BPF, from libseccomp. Empty on processors it has no table for, or when a
// rule could not be written (counts as a missing layer). Calls of another table (32 bits, x32)
// kill.
std::vector<sock_filter> SeccompFilter(SeccompProfile profile, bool network);
// no_new_privs and the filter on every thread of the process. False: the kernel refused.
bool InstallSeccomp(SeccompProfile profile, bool network);

// On the calling process. RLIMIT_AS is what is mapped already + memory_mb when `on_top`, else
// memory_mb.
void ApplyLimits(const SandboxOptions& options, bool on_top);

}  // namespace plumb
