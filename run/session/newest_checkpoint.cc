#include "run/session/newest_checkpoint.h"

#include <algorithm>
#include <cstdio>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/program_call.h"
#include "learner/update/checkpoint_manifest.h"
#include "run/session/run_folder.h"

namespace plumb::run {

namespace {

constexpr size_t kMaxManifestBytes = 16 << 20;

// Calls `take(step, manifest)` for each that was written to its end.
template <class F>
void Each(const std::string& checkpoints, const F& take) {
  if (!RealFileSystem().Exists(checkpoints)) return;
  for (const std::string& name : RealFileSystem().List(checkpoints)) {
    long long number = 0;
    if (std::sscanf(name.c_str(), "step-%lld", &number) != 1) continue;
    const std::string manifest = checkpoints + "/" + name + "/manifest.json";
    if (RealFileSystem().Exists(manifest)) take(int64_t{number}, manifest);
  }
}

// What `is` says of a checkpoint's state; false where it cannot be read.
template <class F>
bool StateHolds(const std::string& manifest, const F& is) {
  try {
    const auto read =
        learner::ReadManifest(RealFileSystem().ReadFile(manifest, kMaxManifestBytes), manifest);
    return read.state && is(*read.state);
  } catch (const Error&) {
    return false;
  }
}

bool LacksOptimizer(const std::string& manifest) {
  return StateHolds(manifest, [](const auto& state) { return !state.optimizer; });
}

}  // namespace

std::optional<int64_t> NewestCheckpoint(const std::string& checkpoints) {
  std::optional<int64_t> step;
  Each(checkpoints, [&](int64_t number, const std::string&) {
    step = std::max<int64_t>(step.value_or(0), number);
  });
  return step;
}

std::optional<int64_t> ResumeStep(const std::string& checkpoints) {
  std::optional<int64_t> step;
  Each(checkpoints, [&](int64_t number, const std::string& manifest) {
    if (number >= step.value_or(0) && !LacksOptimizer(manifest)) step = number;
  });
  return step;
}

bool NewestLacksMoments(const std::string& checkpoints) {
  int64_t newest = -1;
  bool lacks = false;
  Each(checkpoints, [&](int64_t number, const std::string& manifest) {
    if (number < newest) return;
    newest = number;
    lacks = StateHolds(manifest, [](const auto& state) { return state.LacksMoments(); });
  });
  return lacks;
}

std::string HowToGoOn(const std::string& run) {
  const std::optional<int64_t> step = ResumeStep(RunFolder{run}.checkpoints());
  return (step ? "the newest checkpoint is step " + std::to_string(*step)
               : std::string("there is no checkpoint of a step yet")) +
         ": go on with " + ProgramCall() + " train --resume --out " + run;
}

}  // namespace plumb::run
