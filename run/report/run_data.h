// What a run's folder holds, as whoever shows a run needs it.
//
// Purpose: metrics.jsonl as columns, a selection of samples.jsonl, summary.json, run.json and
// config.toml. Files are read line by line, so that their size is no limit; a file that is missing
// or a line that is torn is left out and said in `notes`. Thread safety: pure function of the
// folder. Ownership: values. Errors: kNotFound when the folder is no run; kIo for a file that
// cannot be read.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "run/report/recipe_values.h"

namespace plumb::run {

// One metric: its value in each step that has one; NaN for one that was not finite.
struct MetricColumn {
  std::vector<int64_t> step;
  std::vector<double> value;
};

// Answers to one prompt of one step.
struct SampleGroup {
  int64_t step = 0;
  std::vector<nlohmann::ordered_json> answers;  // at most RunData::kAnswers
  int64_t answers_in_all = 0;
};

struct RunData {
  static constexpr size_t kGroups = 100;  // at most; a browser stays quick with that many
  static constexpr size_t kAnswers = 8;   // of a group: the best, the worst and others

  std::map<std::string, MetricColumn, std::less<>> columns;
  int64_t lines = 0;                 // steps that metrics.jsonl has
  int64_t last_step = -1;            // of them
  double first_wall_s = 0;           // seconds since 1970
  std::vector<SampleGroup> samples;  // spread over the run, oldest first, the last one among them
  int64_t sample_groups = 0;         // in all
  nlohmann::ordered_json summary, identity;  // null without one
  std::optional<std::string> config;
  RecipeValues recipe;  // of config
  std::vector<std::string> notes;
};

RunData LoadRun(const std::string& folder);

// The value at `path` of nested objects; nullptr when one is missing or null.
const nlohmann::ordered_json* FindIn(const nlohmann::ordered_json& object,
                                     std::initializer_list<const char*> path);
double NumberIn(const nlohmann::ordered_json* value, double otherwise);
std::string TextIn(const nlohmann::ordered_json* value);

}  // namespace plumb::run
