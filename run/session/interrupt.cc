#include "run/session/interrupt.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace plumb::run {
namespace {

constexpr int kExitCode = 7;  // run/commands/cli.h
constexpr size_t kMaxText = 160;
constexpr size_t kMaxAdvice = 1024;  // names two paths

std::atomic<int> signals{0};
// When the newest that counted came, of SIGINT and of SIGTERM; ns since the machine began.
std::atomic<int64_t> came[2] = {-kSameSignal.count(), -kSameSignal.count()};
std::atomic<bool> stop_requested{false}, stop_at_once{false}, answer_stopped{false};
std::atomic<int> busy_now{static_cast<int>(Busy::kNothingToKeep)};
// The text of what the verb is busy with: written into the one that no handler reads, then made the
// current one.
char texts[2][kMaxText + 1] = {};
std::atomic<int> current_text{0};
char advices[2][kMaxAdvice + 1] = {};  // in the same way
std::atomic<int> current_advice{0};
std::atomic<int> run_folder{-1};  // open, of a run

static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free &&
                  std::atomic<int64_t>::is_always_lock_free,
              "read by signal handlers");

// One line on standard error by write alone, which a handler may call.
template <class... Parts>
void Say(const Parts&... parts) {
  char line[2 * kMaxText + kMaxAdvice + 200];
  size_t used = 0;
  const auto add = [&](const char* text) {
    const size_t n = std::min(strlen(text), sizeof line - 1 - used);
    memcpy(line + used, text, n);
    used += n;
  };
  if (isatty(STDERR_FILENO)) add("\n");  // behind ^C and a line that is drawn again and again
  add("plumb: ");
  (add(parts), ...);
  line[used++] = '\n';
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line, used);
}

const char* Text() { return texts[current_text.load()]; }

[[noreturn]] void EndNow() {
  if (const int folder = run_folder.load(); folder >= 0) {
    const int mark = openat(folder, kStoppedMark, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (mark >= 0) close(mark);
  }
  _exit(kExitCode);
}

// `otherwise`: the words of what is no run.
[[noreturn]] void SayAndEnd(const char* otherwise) {
  const char* advice = advices[current_advice.load()];
  if (*advice) Say("stopped at once; ", advice);
  else Say(otherwise);
  EndNow();
}

void FirstSignal(Busy busy) {
  stop_requested.store(true);
  switch (busy) {
    case Busy::kNothingToKeep: alarm(static_cast<unsigned>(kGrace.count())); break;
    case Busy::kInOrder: break;
    case Busy::kSupervising:
      Say("stopping its processes in order; Ctrl-C again ends them at once");
      break;
    case Busy::kWholeWeights:
      Say("stopping: waits no longer for ", Text(), ", saves a checkpoint of the last whole step");
      break;
    case Busy::kUpdating:
      Say("stopping: waits for ", Text(), ", then saves a checkpoint; Ctrl-C again ends at once");
      break;
    case Busy::kSaving: Say("stopping: saves a checkpoint"); break;
    case Busy::kAsking:
    case Busy::kAnswering: Say("stopped"); EndNow();
  }
}

void SecondSignal(Busy busy) {
  switch (busy) {
    case Busy::kNothingToKeep:
    case Busy::kAsking:
    case Busy::kAnswering:
    case Busy::kInOrder: SayAndEnd("stopped");
    case Busy::kSupervising: stop_at_once.store(true); break;
    case Busy::kUpdating:
      if (const char* advice = advices[current_advice.load()]; *advice)
        Say("stopped at once, before ", Text(), "; ", advice);
      else
        Say("stopped at once, before ", Text(),
            ": --resume goes on from the newest checkpoint, without one from the start");
      EndNow();
    case Busy::kWholeWeights:
    case Busy::kSaving: Say("a checkpoint is being saved; Ctrl-C again ends without it"); break;
  }
}

// Ctrl-C of somebody who talks to a model; false: it is something else.
bool EndedAnAnswer(int number, Busy busy) {
  if (number != SIGINT || (busy != Busy::kAsking && busy != Busy::kAnswering)) return false;
  if (busy == Busy::kAsking) {
    Say(Text());
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kChatPrompt, strlen(kChatPrompt));
  } else if (answer_stopped.exchange(true)) {
    Say("stopped");
    EndNow();
  }
  return true;
}

// Whether it is the one that came just before, sent twice. Handlers may run in two threads at once:
// one of them counts.
bool CameBefore(int number) {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t at = int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
  std::atomic<int64_t>& newest = came[number == SIGTERM ? 1 : 0];
  int64_t before = newest.load();
  return at - before < kSameSignal.count() || !newest.compare_exchange_strong(before, at);
}

void OnSignal(int number) {
  const int error = errno;
  if (CameBefore(number)) {
    errno = error;
    return;
  }
  const Busy busy = static_cast<Busy>(busy_now.load());
  if (EndedAnAnswer(number, busy)) {
    errno = error;
    return;
  }
  switch (signals.fetch_add(1)) {
    case 0: FirstSignal(busy); break;
    case 1: SecondSignal(busy); break;
    default: SayAndEnd("stopped at once");
  }
  errno = error;
}

// The grace of a verb that keeps nothing is over. One that meanwhile began to train looks at
// StopRequested by itself.
void OnAlarm(int) {
  if (static_cast<Busy>(busy_now.load()) != Busy::kNothingToKeep) return;
  const char* text = Text();
  Say("stopped", *text ? ": " : "", text);
  EndNow();
}

}  // namespace

void HandleInterrupts() {
  // of an earlier command in this process
  if (const int folder = run_folder.exchange(-1); folder >= 0) close(folder);
  AdviseWhenStopped("");
  struct sigaction action {};
  action.sa_handler = OnSignal;
  // a read that is waited for goes on: it does not end as if the file had
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = OnAlarm;
  sigaction(SIGALRM, &action, nullptr);
}

void NowBusy(Busy busy, const std::string& with) {
  const int other = 1 - current_text.load();
  const size_t n = std::min(with.size(), kMaxText);
  memcpy(texts[other], with.data(), n);
  texts[other][n] = '\0';
  current_text.store(other);
  if (busy == Busy::kAnswering) {
    answer_stopped.store(false);
    for (std::atomic<int64_t>& newest : came) newest.store(-kSameSignal.count());  // of the prompt
  }
  busy_now.store(static_cast<int>(busy));
  // Who asked twice while a checkpoint was saved waits for that, and for nothing behind it.
  if (busy == Busy::kInOrder && signals.load() >= 2) SayAndEnd("stopped");
}

void MarkWhenStopped(const std::string& folder) {
  const int opened = open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  const int before = run_folder.exchange(opened);
  if (before >= 0) close(before);
}

void AdviseWhenStopped(const std::string& advice) {
  const int other = 1 - current_advice.load();
  const size_t n = std::min(advice.size(), kMaxAdvice);
  memcpy(advices[other], advice.data(), n);
  advices[other][n] = '\0';
  current_advice.store(other);
}

const std::atomic<bool>& StopRequested() { return stop_requested; }
const std::atomic<bool>& StopAtOnce() { return stop_at_once; }
const std::atomic<bool>& AnswerStopped() { return answer_stopped; }

}  // namespace plumb::run
