#include "reward/sandbox.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/error.h"

extern char** environ;

namespace plumb::reward {
namespace {

// Hidden behind an empty tmpfs: other programs' sockets and scratch files.
constexpr const char* kPrivate[] = {"/tmp", "/run", "/var/tmp"};

std::vector<std::string> BaseCommand(bool system_only = false) {
  std::vector<std::string> command = {"bwrap"};
  if (system_only) {
    for (const char* path : {"/usr", "/bin", "/sbin", "/lib", "/lib64", "/lib32", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d"}) {
      command.insert(command.end(), {"--ro-bind-try", path, path});
    }
  } else {
    command.insert(command.end(), {"--ro-bind", "/", "/"});
  }
  command.insert(command.end(), {"--dev", "/dev", "--proc", "/proc"});
  for (const char* path : kPrivate) {
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
      if (system_only) command.insert(command.end(), {"--size", "67108864"});  // its files lie in memory
      command.insert(command.end(), {"--tmpfs", path});
    }
  }
  command.insert(command.end(), {"--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts",
                                 "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL"});
  return command;
}

std::string Probe() {
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
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return "";
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

const std::string& ProbeNamespaces() {
  static const std::string missing = Probe();
  return missing;
}

std::vector<std::string> NamespaceCommand(const SandboxOptions& options) {
  if (!options.namespaces) return {};
  if (!ProbeNamespaces().empty()) {
    if (options.allow_unsandboxed) return {};
    throw Error(ErrorCode::kUnsupported,
                "user reward code cannot be isolated: " + ProbeNamespaces() +
                    ". Install it, or set reward.allow_unsandboxed = true to run the code without namespaces "
                    "(own process, limits and deadline stay)");
  }
  std::vector<std::string> command = BaseCommand(options.system_only);
  if (!options.network) command.push_back("--unshare-net");
  std::vector<std::string> bound;
  for (const std::string& path : options.visible) {
    std::error_code error;
    const std::string real = std::filesystem::canonical(path, error).string();
    if (error) continue;
    for (const std::string& place : {real, std::filesystem::absolute(path).lexically_normal().string()}) {
      // A folder brings what lies in it; a link in there is no place to bind to.
      const auto holds = [&](const std::string& folder) { return place == folder || place.starts_with(folder + "/"); };
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
                 "--open-files", number(options.open_files), "--cpu-seconds", number(options.cpu_seconds),
                 // Outside a user namespace the limit would count every process of this user.
                 "--processes", number(in_namespaces ? options.processes : 0)};
  } else {
    arguments = {"--limits", "0"};
  }
  if (!options.seccomp) arguments.insert(arguments.end(), {"--seccomp", "0"});
  if (options.allow_unsandboxed) arguments.insert(arguments.end(), {"--unsandboxed", "1"});
  if (options.network) arguments.insert(arguments.end(), {"--network", "1"});
  return arguments;
}

std::vector<sock_filter> SeccompFilter(SeccompProfile profile, bool network) {
#if defined(__x86_64__)
  constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
  constexpr uint32_t kArch = AUDIT_ARCH_AARCH64;
#else
  (void)profile;
  (void)network;
  return {};
#endif
#if defined(__x86_64__) || defined(__aarch64__)
  constexpr uint32_t kRefuse = SECCOMP_RET_ERRNO | EPERM;
  std::vector<sock_filter> f;
  const auto load = [&](size_t offset) {
    f.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
  };
  const auto give = [&](uint32_t verdict) { f.push_back(BPF_STMT(BPF_RET | BPF_K, verdict)); };
  load(offsetof(seccomp_data, arch));
  f.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArch, 1, 0));
  give(SECCOMP_RET_KILL_PROCESS);
  load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  f.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1));  // the x32 table has other numbers
  give(kRefuse);
#endif
  const auto refuse = [&](long number, uint32_t verdict) {
    f.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    give(verdict);
  };
  for (long number : {SYS_ptrace, SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_keyctl, SYS_add_key,
                      SYS_request_key, SYS_bpf, SYS_perf_event_open, SYS_kexec_load, SYS_init_module,
                      SYS_finit_module, SYS_delete_module, SYS_unshare, SYS_setns, SYS_userfaultfd, SYS_io_uring_setup,
                      SYS_io_uring_enter, SYS_io_uring_register, SYS_process_vm_readv, SYS_process_vm_writev,
                      SYS_open_by_handle_at, SYS_reboot, SYS_swapon, SYS_swapoff, SYS_acct, SYS_settimeofday,
                      SYS_clock_settime, SYS_quotactl, SYS_personality}) {
    refuse(number, kRefuse);
  }
  refuse(SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);  // its flags lie in memory, out of a filter's sight; libc falls back
  if (profile == SeccompProfile::kSharedObject) {
    for (long number : {SYS_execve, SYS_execveat}) refuse(number, kRefuse);
#if defined(__x86_64__)
    for (long number : {SYS_fork, SYS_vfork}) refuse(number, kRefuse);
#endif
  }
  // clone: no new namespaces; a shared object may start threads only.
  constexpr uint32_t kNamespaces = CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC |
                                   CLONE_NEWUTS | CLONE_NEWCGROUP;
  const bool threads_only = profile == SeccompProfile::kSharedObject;
  f.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, static_cast<uint8_t>(threads_only ? 6 : 4)));
  load(offsetof(seccomp_data, args[0]));
  f.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, kNamespaces, 0, 1));
  give(kRefuse);
  if (threads_only) {
    f.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0));
    give(kRefuse);
  }
  give(SECCOMP_RET_ALLOW);
  if (!network) {
    f.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 3));
    load(offsetof(seccomp_data, args[0]));
    f.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 1, 0));
    give(kRefuse);
  }
  give(SECCOMP_RET_ALLOW);
  return f;
#endif
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
  const bool limit_memory = !on_top;  // a sanitizer's shadow grows by gigabytes as it is touched
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

}  // namespace plumb::reward
