// `plumb environment-host --so PATH`: the process that holds an environment's shared object.
//
// Purpose: applies limits and filter, loads the object (environment/doors/environment_abi.h) and
// speaks the lines of environment/doors/protocol.h for it on descriptors 0 and 1. Thread safety: a
// process of its own. Errors: what is wrong with the object is the greeting's "error"; exit code 2
// for a command line that is none.
#pragma once

namespace plumb::environment {

int EnvironmentHostMain(int argc, char** argv);

}  // namespace plumb::environment
