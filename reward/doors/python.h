// A reward function in a Python file, as people wrote it for TRL, verl or OpenRLHF, run unchanged.
//
// Purpose: kind = "python". path is the file; a runner of ours (reward/doors/python_runner.py,
// inside the binary) loads it in an interpreter of its own and speaks the JSON lines of
// reward/doors/subprocess.h, with the same walls and deadlines. Options (args): function=NAME
// (needed only if the file has several), style=auto|trl|verl|openrlhf,
// completions=auto|text|messages (what a function of TRL's gets: auto lists of one message where
// the prompt is one of messages), python=INTERPRETER, kwargs={JSON object} (arguments that are the
// same in every call). Python is needed only for this kind. Importing torch takes more than the
// default memory_mb. Thread safety, errors: as RewardFunction; a file that cannot be imported or
// has no such function is an Error of construction, with Python's words.
#pragma once

#include <memory>
#include <string>

#include "configs/config.h"
#include "reward/doors/plugin.h"
#include "reward/part/reward.h"

namespace plumb::reward {

extern const char* const kPythonRunner;  // the runner's source

// What `args` say.
struct PythonOptions {
  std::string function, style = "auto", completions = "auto", interpreter = "python3",
                        constants = "{}";
};
// kInvalidArgument for what args does not take; reads no file and starts nothing.
PythonOptions ReadPythonOptions(const configs::RewardPartConfig& part);

std::unique_ptr<RewardFunction> MakePython(const configs::RewardPartConfig& part,
                                           bool allow_unsandboxed, HostOptions options = {});

}  // namespace plumb::reward
