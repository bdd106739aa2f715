#include "run/session/newest_checkpoint.h"

#include <algorithm>
#include <cstdio>

#include "common/base/file.h"
#include "common/base/program_call.h"
#include "run/session/run_folder.h"

namespace plumb::run {

std::optional<int64_t> NewestCheckpoint(const std::string& checkpoints) {
  std::optional<int64_t> step;
  if (!RealFileSystem().Exists(checkpoints)) return step;
  for (const std::string& name : RealFileSystem().List(checkpoints)) {
    long long number = 0;
    if (std::sscanf(name.c_str(), "step-%lld", &number) != 1) continue;
    if (RealFileSystem().Exists(checkpoints + "/" + name + "/manifest.json"))
      step = std::max<int64_t>(step.value_or(0), number);
  }
  return step;
}

std::string HowToGoOn(const std::string& run) {
  const std::optional<int64_t> step = NewestCheckpoint(RunFolder{run}.checkpoints());
  return (step ? "the newest checkpoint is step " + std::to_string(*step)
               : std::string("there is no checkpoint of a step yet")) +
         ": go on with " + ProgramCall() + " train --resume --out " + run;
}

}  // namespace plumb::run
