// The process that loads a reward shared object.
//
// Purpose: the hidden verb `plumb reward-host --so PATH [--memory-mb N] [--seccomp 0|1] [--network 0|1] [-- ARGS...]`.
// It moves its protocol to private descriptors, points stdout at stderr (an object that prints cannot forge a reply),
// limits itself, loads the object and answers frames until its input closes.
// Thread safety: main thread only. Errors: reported as a frame; the exit code is for people.
#pragma once

namespace plumb::reward {

// argv[0] is "reward-host". Returns the exit code.
int RewardHostMain(int argc, char** argv);

}  // namespace plumb::reward
