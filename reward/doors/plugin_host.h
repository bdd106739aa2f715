// The process between the walls: loads a reward shared object, or turns into a program.
//
// Purpose: the hidden verb
//   plumb reward-host [--memory-mb N] [--cpu-seconds N] [--file-mb N] [--open-files N]
//                     [--processes N] [--limits 0|1] [--seccomp 0|1] [--network 0|1]
//                     [--unsandboxed 0|1] (--so PATH | --exec PATH) [-- ARGS...]
// --exec: applies limits and filter to itself, then executes the program.
// --so: moves its protocol (reward/doors/plugin_wire.h on stdin and stdout) to private descriptors
// and points stdout at stderr (an object that prints cannot forge a reply), limits itself, loads
// the object, greets, and answers until stdin closes.
// Thread safety: main thread only. Errors: reported as a frame; the exit code is for people.
#pragma once

namespace plumb::reward {

// argv[0] is "reward-host". Returns the exit code.
int RewardHostMain(int argc, char** argv);

}  // namespace plumb::reward
