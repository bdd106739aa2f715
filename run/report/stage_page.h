// The page of a run of stages: a row a stage, with a link to the stage's own page.
//
// Thread safety: pure function. Errors: none. The page has no outside resource.
#pragma once

#include <string>
#include <vector>

namespace plumb::run {

struct StageRow {
  std::string name;       // "1-sft", also its folder
  std::string algorithm;  // "sft"
  std::string steps;      // "300 of 300"
  std::string seconds;
  std::string before, after;  // what eval.bar is held against, with its name; empty: not measured
  std::string bar;            // empty: none
  std::string state;          // "done", "below its bar", "not begun", ...
};

std::string StagePage(const std::string& title, const std::vector<StageRow>& rows);

// The same for a terminal, a line a stage.
std::string StageTable(const std::vector<StageRow>& rows);

}  // namespace plumb::run
