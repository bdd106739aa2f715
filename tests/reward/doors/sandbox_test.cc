// Each wall around reward code (common/sandbox/sandbox.h): the attack it stops, with it and without
// it; and what happens on a machine that lacks one.
#include "common/sandbox/sandbox.h"

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/sandbox/child_process.h"
#include "tests/reward/testing.h"

namespace plumb::reward {
namespace {

// 1: the attack got through; 0.5: it was refused.
double Attack(const char* name, const HostOptions& options, const std::string& truth = "",
              int64_t memory_mb = 512) {
  Notices quiet;
  configs::RewardConfig config;
  config.parts = {TestPart("plugin", PluginPath(name))};
  config.parts[0].memory_mb = memory_mb;
  GroupScorer scorer(config, options);
  TrajectoryGroup group = TestGroup({"bad"}, truth);
  EXPECT_EQ(scorer.ScoreGroup(group), Outcome::kScored)
      << name << ": " << group.trajectories[0].unscored_reason;
  return group.trajectories[0].reward;
}

HostOptions Without(bool SandboxOptions::*layer) {
  HostOptions options = TestHost();
  options.sandbox.*layer = false;
  return options;
}

class Walls : public ::testing::Test {
 protected:
  void SetUp() override {
    // The skip has to be asked for by name: a machine without namespaces must not pass silently.
    if (ProbeNamespaces()) {
      if (std::getenv("PLUMB_SKIP_NAMESPACE_TESTS") != nullptr)
        GTEST_SKIP() << "NOT TESTED, as asked for: " << *ProbeNamespaces();
      FAIL() << *ProbeNamespaces() << "; PLUMB_SKIP_NAMESPACE_TESTS=1 leaves these tests out";
    }
  }
};

TEST_F(Walls, PidNamespaceProtectsOtherProcesses) {
  const auto victim = [] {
    const pid_t pid = ::fork();
    if (pid == 0) {
      for (;;) ::pause();
    }
    return pid;
  };
  const auto alive = [](pid_t pid) { return ::waitpid(pid, nullptr, WNOHANG) == 0; };
  const pid_t first = victim();
  EXPECT_EQ(Attack("kill", TestHost(), std::to_string(first)), 0.5);
  EXPECT_TRUE(alive(first));
  EXPECT_EQ(Attack("kill", TestHost(), std::to_string(::getpid())), 0.5) << "the service itself";
  EXPECT_EQ(Attack("kill", Without(&SandboxOptions::namespaces), std::to_string(first)), 1);
  for (int i = 0; i < 200 && alive(first); ++i) usleep(5000);
  EXPECT_FALSE(alive(first));
}

TEST_F(Walls, MountNamespaceHidesWhatLiesInTmp) {
  const std::string file =
      std::filesystem::temp_directory_path() / ("plumb_secret_" + std::to_string(getpid()));
  { std::ofstream(file) << "secret"; }
  EXPECT_EQ(Attack("read", TestHost(), file), 0.5);
  EXPECT_EQ(Attack("read", Without(&SandboxOptions::namespaces), file), 1);
  std::filesystem::remove(file);
}

TEST_F(Walls, IpcNamespaceHidesSharedMemory) {
  const key_t key = static_cast<key_t>(0x504c0000 + (getpid() & 0xffff));
  const int segment = ::shmget(key, 4096, IPC_CREAT | 0600);
  ASSERT_GE(segment, 0);
  EXPECT_EQ(Attack("shm", TestHost(), std::to_string(key)), 0.5);
  EXPECT_EQ(Attack("shm", Without(&SandboxOptions::namespaces), std::to_string(key)), 1);
  ::shmctl(segment, IPC_RMID, nullptr);
}

TEST_F(Walls, NoPrivilegeIsLeftToGain) {
  EXPECT_EQ(Attack("privileges", TestHost()), 0.5);
  HostOptions off = TestHost();
  off.sandbox.namespaces = off.sandbox.seccomp = false;
  EXPECT_EQ(Attack("privileges", off), 1);
}

TEST_F(Walls, SeccompRefusesWhatReachesOtherProcessesAndTheKernel) {
  for (const char* name : {"fork", "exec", "connect", "trace", "peek", "unshare", "mount"}) {
    EXPECT_EQ(Attack(name, TestHost()), 0.5) << name;
    // Without any wall at all: inside the namespaces some of these are refused twice.
    HostOptions off = TestHost();
    off.sandbox.namespaces = off.sandbox.seccomp = false;
    EXPECT_EQ(Attack(name, off), 1) << name;
  }
  // And by the filter alone.
  for (const char* name : {"fork", "exec", "connect", "trace", "peek", "unshare", "mount"}) {
    EXPECT_EQ(Attack(name, Without(&SandboxOptions::namespaces)), 0.5) << name;
  }
}

TEST_F(Walls, LimitsBoundMemoryFilesAndDescriptors) {
  for (const char* name : {"allocate", "bigfile", "descriptors"}) {
    if (!kMemoryLimited && std::string(name) == "allocate") continue;
    EXPECT_EQ(Attack(name, TestHost(), "", 64), 0.5) << name;
    EXPECT_EQ(Attack(name, Without(&SandboxOptions::limits), "", 64), 1) << name;
  }
}

// Two hundred processes: the kernel stops a user's, the watch (common/sandbox/process_watch.h)
// those of root, whom the kernel lets pass.
std::string TwoHundredProcesses(const HostOptions& options, const char* script) {
  Notices quiet;
  configs::RewardConfig config;
  config.parts = {TestPart("program", "sh", {"-c", script})};
  config.retries = 0;
  GroupScorer scorer(config, options);
  TrajectoryGroup group = TestGroup({"a"});
  scorer.ScoreGroup(group);
  // it answered first and went on behind our back
  if (std::string(script).starts_with("read l; echo")) {
    EXPECT_TRUE(group.trajectories[0].scored) << group.trajectories[0].unscored_reason;
    std::this_thread::sleep_for(std::chrono::seconds(2));
    scorer.ScoreGroup(group);
  }
  return group.trajectories[0].scored ? "scored" : group.trajectories[0].unscored_reason;
}
constexpr const char* kAtOnce =
    "read l; i=0; while [ $i -lt 200 ]; do sleep 30 & i=$((i+1)); done; sleep 2; echo "
    "'{\"id\":1,\"score\":1}'; cat > /dev/null";
constexpr const char* kBehindTheAnswer =
    "read l; echo '{\"id\":1,\"score\":1}'; i=0; while [ $i -lt 200 ]; do sleep 30 & i=$((i+1)); "
    "done; read l; "
    "echo '{\"id\":2,\"score\":1}'; cat > /dev/null";

TEST_F(Walls, ProcessesAreBoundedForRootToo) {
  const std::string stopped = ::geteuid() == 0 ? "processes: had started more than 64" : "fork";
  for (const char* script : {kAtOnce, kBehindTheAnswer}) {
    const std::string end = TwoHundredProcesses(TestHost(), script);
    EXPECT_NE(end.find(stopped), std::string::npos) << end;
    EXPECT_EQ(TwoHundredProcesses(Without(&SandboxOptions::limits), script), "scored") << script;
  }
}

TEST_F(Walls, ProcessesAreBoundedByTheKernelForOthers) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root: the test above is this one";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const std::string host = TestHost().host_command[0];
  const auto as_nobody = [&] {
    if (::setgid(65534) != 0 || ::setuid(65534) != 0) std::_Exit(9);
    if (::access(host.c_str(), X_OK) != 0) std::_Exit(8);
    const std::string end = TwoHundredProcesses(TestHost(), kAtOnce);
    std::fprintf(stderr, "%s\n", end.c_str());
    std::_Exit(end.find("fork") != std::string::npos ? 7 : 6);
  };
  std::error_code error;
  for (std::filesystem::path folder = host; folder != folder.root_path();
       folder = folder.parent_path()) {
    if ((std::filesystem::status(folder, error).permissions() &
         std::filesystem::perms::others_exec) == std::filesystem::perms::none) {
      GTEST_SKIP() << "NOT TESTED: other users may not look into " << folder;
    }
  }
  EXPECT_EXIT(as_nobody(), ::testing::ExitedWithCode(7), "fork");
}

// A bomb of a hundred processes that leave their process group: the namespace's end takes all of
// them.
TEST_F(Walls, ForkedProcessesEndWithTheirNamespace) {
  const std::string mark = "29" + std::to_string(getpid());
  const std::string wanted = "sleep" + std::string(1, '\0') + mark + std::string(1, '\0');
  const auto each = [&](const auto& act) {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      std::string line;
      try {
        std::ifstream file(entry.path() / "cmdline");
        line.assign(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      } catch (const std::ios_base::failure&) {
        continue;  // the process ended between being listed and being read
      }
      if (line != wanted) continue;
      ++count;
      act(std::stoi(entry.path().filename().string()));
    }
    return count;
  };
  const auto alive = [&] { return each([](pid_t) {}); };
  for (const bool namespaces : {true, false}) {
    SandboxOptions options;
    options.namespaces = namespaces;
    std::vector<std::string> command = NamespaceCommand(options);
    for (const char* word : {"sh", "-c"}) command.push_back(word);
    command.push_back("i=0; while [ $i -lt 100 ]; do setsid sleep " + mark +
                      " & i=$((i+1)); done; echo ok; wait");
    ChildProcess child({.command = command});
    child.Start();
    std::string line;
    ASSERT_EQ(child.ReadLine(100, &line, After(std::chrono::seconds(20))), Failure::kNone);
    for (int i = 0; i < 1000 && alive() < 100; ++i) usleep(10000);
    EXPECT_EQ(alive(), 100);
    child.Kill();
    for (int i = 0; i < 300 && alive() > 0 && namespaces; ++i) usleep(10000);
    EXPECT_EQ(alive(), namespaces ? 0 : 100);
    each([](pid_t pid) { ::kill(pid, SIGKILL); });
    for (int i = 0; i < 300 && alive() > 0; ++i) usleep(10000);
  }
}

// ---- a machine that lacks a layer ----

TEST(MissingLayer, NoBubblewrapRefusesUnlessAllowed) {
  // a fresh process: what is there is looked up once in each
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto try_without = [](bool allow) {
    ::setenv("PATH", "/nonexistent", 1);
    SandboxOptions options;
    options.allow_unsandboxed = allow;
    try {
      std::fprintf(stderr, "command has %zu words\n", NamespaceCommand(options).size());
      std::exit(0);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      std::exit(error.code() == ErrorCode::kUnsupported ? 7 : 8);
    }
  };
  EXPECT_EXIT(try_without(false), ::testing::ExitedWithCode(7),
              "bubblewrap is not installed.*allow_unsandboxed");
  EXPECT_EXIT(try_without(true), ::testing::ExitedWithCode(0), "command has 0 words");
}

// Runs the host in a process whose kernel has no seccomp filters (a filter of ours says so).
int HostWithoutSeccomp(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), plumb::testing::BinaryPath("reward/plumb_reward_host"));
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid == 0) {
    sock_filter filter[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
                            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program = {4, filter};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
      _exit(99);
    ::execv(argv[0], argv.data());
    _exit(98);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(MissingLayer, NoSeccompRefusesUnlessAllowed) {
  EXPECT_EQ(HostWithoutSeccomp({"--exec", "/bin/true", "--"}), 3);
  EXPECT_EQ(HostWithoutSeccomp({"--unsandboxed", "1", "--exec", "/bin/true", "--"}), 0);
}

}  // namespace
}  // namespace plumb::reward
