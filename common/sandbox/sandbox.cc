#include "common/sandbox/sandbox.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "common/base/error.h"

extern char** environ;

namespace plumb {
namespace {

// Hidden behind an empty tmpfs: other programs' sockets and scratch files.
constexpr const char* kPrivate[] = {"/tmp", "/run", "/var/tmp"};

std::vector<std::string> BaseCommand(bool system_only = false) {
  std::vector<std::string> command = {"bwrap"};
  if (system_only) {
    for (const char* path : {"/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32",
                             "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"}) {
      command.insert(command.end(), {"--ro-bind-try", path, path});
    }
  } else {
    command.insert(command.end(), {"--ro-bind", "/", "/"});
  }
  command.insert(command.end(), {"--dev", "/dev", "--proc", "/proc"});
  for (const char* path : kPrivate) {
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
      // its files lie in memory
      if (system_only) command.insert(command.end(), {"--size", "67108864"});
      command.insert(command.end(), {"--tmpfs", path});
    }
  }
  command.insert(command.end(), {"--unshare-user", "--unshare-pid", "--unshare-ipc",
                                 "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent",
                                 "--new-session", "--cap-drop", "ALL"});
  return command;
}

Problem Probe() {
  std::vector<std::string> command = BaseCommand();
  command.insert(command.end(), {"--unshare-net", "--", "true"});
  std::vector<char*> argv;
  for (std::string& s : command) argv.push_back(s.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int fd : {0, 1, 2}) posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, "bwrap", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return "bubblewrap is not installed (Debian: apt install bubblewrap)";
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::nullopt;
  return "bubblewrap cannot create namespaces here (a container without user namespaces, or "
         "kernel.unprivileged_userns_clone = 0)";
}

void Limit(__rlimit_resource resource, int64_t value) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0) return;
  rlim_t wanted = static_cast<rlim_t>(value);
  if (limit.rlim_max != RLIM_INFINITY && wanted > limit.rlim_max) wanted = limit.rlim_max;
  limit.rlim_cur = limit.rlim_max = wanted;
  setrlimit(resource, &limit);
}

int64_t MappedBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0;
  statm >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

}  // namespace

const Problem& ProbeNamespaces() {
  static const Problem missing = Probe();
  return missing;
}

std::vector<std::string> NamespaceCommand(const SandboxOptions& options) {
  if (!options.namespaces) return {};
  if (const Problem& missing = ProbeNamespaces()) {
    if (options.allow_unsandboxed) return {};
    throw Error(ErrorCode::kUnsupported, "user reward code cannot be isolated: " + *missing +
                                             ". Install it, or set reward.allow_unsandboxed = true "
                                             "to run the code without namespaces "
                                             "(own process, limits and deadline stay)");
  }
  std::vector<std::string> command = BaseCommand(options.system_only);
  if (!options.network) command.push_back("--unshare-net");
  std::vector<std::string> bound;
  for (const std::string& path : options.visible) {
    std::error_code error;
    const std::string real = std::filesystem::canonical(path, error).string();
    if (error) continue;
    for (const std::string& place :
         {real, std::filesystem::absolute(path).lexically_normal().string()}) {
      // A folder brings what lies in it; a link in there is no place to bind to.
      const auto holds = [&](const std::string& folder) {
        return place == folder || place.starts_with(folder + "/");
      };
      if (std::any_of(bound.begin(), bound.end(), holds)) continue;
      for (const char* hidden : kPrivate) {
        if (options.system_only || place.starts_with(std::string(hidden) + "/")) {
          command.insert(command.end(), {"--ro-bind", real, place});
          bound.push_back(place);
          break;
        }
      }
    }
  }
  if (options.system_only) {
    command.insert(command.end(), {"--chdir", "/", "--"});
    return command;
  }
  std::error_code error;
  const std::string here = std::filesystem::current_path(error).string();
  bool hidden_here = error || here.empty();
  for (const char* hidden : kPrivate) {
    if (here.starts_with(std::string(hidden) + "/")) {
      command.insert(command.end(), {"--ro-bind", here, here});
    } else if (here == hidden) {
      hidden_here = true;
    }
  }
  command.insert(command.end(), {"--chdir", hidden_here ? "/" : here, "--"});
  return command;
}

std::vector<std::string> HostArguments(const SandboxOptions& options, bool in_namespaces) {
  const auto number = [](int64_t v) { return std::to_string(v); };
  std::vector<std::string> arguments;
  if (options.limits) {
    arguments = {"--memory-mb", number(options.memory_mb), "--file-mb", number(options.file_mb),
                 "--open-files", number(options.open_files), "--cpu-seconds",
                 number(options.cpu_seconds),
                 // Outside a user namespace the limit would count every process of this user.
                 "--processes", number(in_namespaces ? options.processes : 0)};
  } else {
    arguments = {"--limits", "0"};
  }
  if (!options.seccomp) arguments.insert(arguments.end(), {"--seccomp", "0"});
  if (options.allow_unsandboxed) arguments.insert(arguments.end(), {"--unsandboxed", "1"});
  if (options.network) arguments.insert(arguments.end(), {"--network", "1"});
  if (options.relay_port > 0 && in_namespaces && !options.network) {
    arguments.insert(arguments.end(), {"--relay-port", number(options.relay_port), "--relay-socket",
                                       options.relay_socket});
  }
  return arguments;
}

std::vector<sock_filter> SeccompFilter(SeccompProfile profile, bool network) {
  const std::unique_ptr<void, void (*)(void*)> filter(seccomp_init(SCMP_ACT_ALLOW),
                                                      seccomp_release);
  if (filter == nullptr) return {};
  bool whole = seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) == 0;
  const auto refuse = [&](int call, int error, std::vector<scmp_arg_cmp> when = {}) {
    whole &= seccomp_rule_add_array(filter.get(), SCMP_ACT_ERRNO(error), call,
                                    static_cast<unsigned>(when.size()), when.data()) == 0;
  };
  for (const int call : {SCMP_SYS(ptrace),
                         SCMP_SYS(mount),
                         SCMP_SYS(umount2),
                         SCMP_SYS(pivot_root),
                         SCMP_SYS(chroot),
                         SCMP_SYS(keyctl),
                         SCMP_SYS(add_key),
                         SCMP_SYS(request_key),
                         SCMP_SYS(bpf),
                         SCMP_SYS(perf_event_open),
                         SCMP_SYS(kexec_load),
                         SCMP_SYS(init_module),
                         SCMP_SYS(finit_module),
                         SCMP_SYS(delete_module),
                         SCMP_SYS(unshare),
                         SCMP_SYS(setns),
                         SCMP_SYS(userfaultfd),
                         SCMP_SYS(io_uring_setup),
                         SCMP_SYS(io_uring_enter),
                         SCMP_SYS(io_uring_register),
                         SCMP_SYS(process_vm_readv),
                         SCMP_SYS(process_vm_writev),
                         SCMP_SYS(open_by_handle_at),
                         SCMP_SYS(reboot),
                         SCMP_SYS(swapon),
                         SCMP_SYS(swapoff),
                         SCMP_SYS(acct),
                         SCMP_SYS(settimeofday),
                         SCMP_SYS(clock_settime),
                         SCMP_SYS(quotactl),
                         SCMP_SYS(personality)}) {
    refuse(call, EPERM);
  }
  // Its flags lie in memory, out of a filter's sight; libc falls back.
  refuse(SCMP_SYS(clone3), ENOSYS);
  // clone: no new namespaces; a shared object may start threads only.
  for (const scmp_datum_t flag : {CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET,
                                  CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP}) {
    refuse(SCMP_SYS(clone), EPERM, {SCMP_A0_64(SCMP_CMP_MASKED_EQ, flag, flag)});
  }
  if (profile == SeccompProfile::kSharedObject) {
    refuse(SCMP_SYS(clone), EPERM, {SCMP_A0_64(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0)});
    for (const int call : {SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(fork), SCMP_SYS(vfork)}) {
      refuse(call, EPERM);
    }
  }
  if (!network) refuse(SCMP_SYS(socket), EPERM, {SCMP_A0_32(SCMP_CMP_NE, AF_UNIX)});
  // The library writes programs to files only.
  const int file = memfd_create("filter", MFD_CLOEXEC);
  if (file < 0) return {};
  struct stat info {};
  whole &= seccomp_export_bpf(filter.get(), file) == 0 && fstat(file, &info) == 0;
  std::vector<sock_filter> program(static_cast<size_t>(info.st_size) / sizeof(sock_filter));
  whole &= pread(file, program.data(), static_cast<size_t>(info.st_size), 0) == info.st_size;
  close(file);
  return whole ? program : std::vector<sock_filter>{};
}

bool InstallSeccomp(SeccompProfile profile, bool network) {
  std::vector<sock_filter> filter = SeccompFilter(profile, network);
  if (filter.empty()) return false;
  const sock_fprog program = {static_cast<unsigned short>(filter.size()), filter.data()};
  // TSYNC: on every thread, should a library have started one before us.
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}

void ApplyLimits(const SandboxOptions& options, bool on_top) {
  Limit(RLIMIT_CORE, 0);
  if (!options.limits) return;
  const int64_t mib = 1 << 20;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  // A sanitizer maps terabytes, and more of them between here and the program that follows.
  const bool limit_memory = false;
#else
  const bool limit_memory = true;
#endif
  if (options.memory_mb > 0 && limit_memory) {
    Limit(RLIMIT_AS, options.memory_mb * mib + (on_top ? MappedBytes() : 0));
  }
  if (options.cpu_seconds > 0) Limit(RLIMIT_CPU, options.cpu_seconds);
  Limit(RLIMIT_FSIZE, options.file_mb * mib);
  Limit(RLIMIT_NOFILE, options.open_files);
  if (options.processes > 0) Limit(RLIMIT_NPROC, options.processes);
}

}  // namespace plumb
