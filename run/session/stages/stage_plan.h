// The stages of a recipe with run.stages: which recipes run one after the other, under which
// options, and where.
//
// Purpose: a course of training (demonstrations, a reward model, pairs, rewards) as one run. Stage
// k of the run in RUN is a run of its own in RUN/k-NAME, NAME being what its recipe's name has that
// the others' have not. It starts from the model of the last stage before it that is a language
// model, whatever its recipe's model.path says; the first starts from what its recipe says. Every
// option that the recipe itself gives (and --set) holds for all stages, but for those that make a
// new model, which are the first stage's. A file or folder "stage:NAME" in a stage's recipe is the
// model of that earlier stage. A stage that has one as its teacher starts from what its own recipe
// says: a new model, or model.path, "stage:NAME" included.
// Thread safety: pure functions of the recipes and the file system. Errors: those of the recipes,
// with the stage and its recipe in front; kInvalidArgument for stages within stages and names of
// stages that there are not.
#pragma once

#include <string>
#include <vector>

#include "configs/config.h"

namespace plumb::run {

struct Stage {
  std::string name;                    // "sft"
  std::string recipe;                  // its file
  std::string folder;                  // RUN/1-sft
  std::vector<std::string> overrides;  // as --set takes them
  // As it will be: model.path and what else is a stage's model may not be there yet.
  configs::Config config;
  std::string model() const { return folder + "/model"; }
  bool answers() const;  // a language model, which the next stage goes on from
};

// All recipes are read and checked, but for files that stages make. `resume`: of a run that goes
// on, files are also looked for where it was started.
std::vector<Stage> PlanStages(const configs::Loaded& recipe, const std::string& run_folder,
                              bool resume = false);

// "stage 2 of 4 (rm, configs/r1_tiny_rm.toml)", `which` from 0.
std::string StageName(const std::vector<Stage>& stages, size_t which);

// The options that a recipe gives, as a recipe: what a run of stages keeps of it.
std::string GivenOptions(const configs::Loaded& recipe);

// A stage's configuration with the model that the first stage begins with, for who plans before
// anything is trained.
configs::Config WithFirstModel(const std::vector<Stage>& stages, size_t which);

}  // namespace plumb::run
