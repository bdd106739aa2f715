// What Ctrl-C and SIGTERM do to a verb, depending on what it is busy with.
//
// Purpose: a person who stops a verb is told what it still waits for, can stop it at once by doing
// it again, and loses nothing that was whole. A verb says what it is busy with; the first signal
// asks it to end (StopRequested), and
//   kNothingToKeep  it ends by itself, at the latest kGrace after the signal, wherever it is; a
//                   second signal ends it at once. The default: what loads, reads, imports, answers
//                   or measures. Files and stores stand a process that dies.
//   kInOrder        it ends by itself in its own time (a server, a role); a second ends it at once.
//   kSupervising    as kInOrder, but a second is for it to pass on (StopAtOnce); a third ends it.
//   kWholeWeights   a run waits while its weights are those of a whole step: the first makes it
//                   give up waiting and save them, the second says so, a third ends it at once.
//   kUpdating       a run's weights may be half-way between two steps: the first says what it waits
//                   for, a second ends it at once, and it goes on from the newest checkpoint in its
//                   folder, with the answers in its store.
//   kAsking         a conversation waits for a line: Ctrl-C says how to leave and redraws the
//                   prompt; SIGTERM ends it.
//   kAnswering      a conversation answers: Ctrl-C ends the answer (AnswerStopped); once more
//                   before that has happened ends the program, as SIGTERM does.
//   kSaving         a run writes a checkpoint or is about to: the second says so, and what comes
//                   behind the checkpoint (kInOrder) is not waited for; a third ends it.
// What is ended at once ends as if killed, with exit code 7. Programs that end others send a signal
// twice (`timeout` to its child and then to the group, a shell or a scheduler to both): one of the
// same kind that comes within kSameSignal is no second.
// Thread safety: NowBusy is called by one thread at a time; the others may be called by all. The
// handlers only read and set atomics, write to standard error and end the process.
#pragma once

#include <atomic>
#include <chrono>
#include <string>

namespace plumb::run {

enum class Busy : int {
  kNothingToKeep,
  kInOrder,
  kSupervising,
  kWholeWeights,
  kUpdating,
  kSaving,
  kAsking,
  kAnswering
};

inline constexpr std::chrono::seconds kGrace{1};
inline constexpr std::chrono::nanoseconds kSameSignal = std::chrono::milliseconds{100};
inline constexpr char kChatPrompt[] = "> ";  // what a terminal shows under kAsking

// From here on SIGINT and SIGTERM do what is said above.
void HandleInterrupts();

// `with`: of a run, what it waits for ("the end of step 7"); of kNothingToKeep, what the line that
// it was stopped adds ("the same command goes on from there"); of kAsking, how to leave. Longer
// texts are cut. kAnswering begins an answer that nobody has stopped.
void NowBusy(Busy busy, const std::string& with = "");

// Set by the first signal, and by the second where it is for the verb to pass on.
const std::atomic<bool>& StopRequested();
const std::atomic<bool>& StopAtOnce();
// The answer that is being given is to end: set by Ctrl-C under kAnswering.
const std::atomic<bool>& AnswerStopped();

// What a run that is ended at once leaves behind: a file in its folder, by which others know that a
// person ended it, and a word on how it goes on. Such a run writes no summary, and is not to be
// taken for one that failed. The handlers only open and close that file; the folder stays open
// until the next is named, or the process ends; without the folder there is no file.
inline constexpr char kStoppedMark[] = "stopped";  // in the folder of a run, empty
// A run in `folder`: what ends it at once leaves kStoppedMark there, also where it was renamed.
void MarkWhenStopped(const std::string& folder);
// What then is said behind "stopped at once; ". Longer texts are cut.
void AdviseWhenStopped(const std::string& advice);

}  // namespace plumb::run
