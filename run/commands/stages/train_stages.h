// plumb train of a recipe with run.stages: the stages one after the other, as one run.
//
// Purpose: the run's folder holds a folder a stage, with all that a run has (run/session/stages/),
// and its own config.toml (the options that the recipe gives), run.json, summary.json (what each
// stage came to), report.html (the same as a page) and model/, that of the last stage that answers.
// A stage that ends with another exit code than 0, below its eval.bar with 7, ends the command with
// it. --resume passes over stages that are finished, goes on with the one that was broken off where
// it stood, and begins those behind it.
// Thread safety: one thread. Ownership: holds the run folder's lock while it runs. Errors:
// kConflict for a folder in use, that is no run's, or of other stages; those of the stages.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "configs/config.h"
#include "run/session/stages/stage_plan.h"

namespace plumb::run {

struct StagesRequest {
  std::string recipe;  // its file
  configs::Loaded loaded;
  std::string out;  // run folder; empty: runs/<recipe name>
  bool resume = false, overwrite = false, quiet = false;
};

// Trains one recipe in a folder, as `plumb train` does; returns its exit code.
using TrainStage = std::function<int(const Stage& stage, bool resume)>;

int TrainStages(const StagesRequest& request, const TrainStage& train);

// The folder is that of a run of stages.
bool HasStages(const std::string& run_folder);
// Its page, from what the stages' summaries say.
void WriteStagesReport(const std::string& run_folder, const std::string& output_html);

// A line a stage: number, name, algorithm, steps, recipe.
std::string ListOfStages(const std::vector<Stage>& stages);

}  // namespace plumb::run
