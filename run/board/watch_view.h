// What `plumb watch` shows: the lines of a window, as a function of what is known and its size.
//
// Purpose: everything about the look, nothing about terminals or files. No line is wider than the
// window and there are never more than it has rows; texts of models cannot steer the terminal.
// Thread safety: pure functions. Units: columns and rows of characters; seconds.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "run/board/run_view.h"

namespace plumb::run {

// Of a run that failed without a word.
inline const std::string kNoSummary = "its process left without a summary";

struct WatchCurve {
  std::string key;
  std::vector<float> values;  // NaN: none there; oldest first
};

struct WatchState {
  std::string name, algorithm, model, reason;
  RunState state = RunState::kRunning;
  int64_t step = -1, steps = 0;
  double seconds = 0;         // of training so far
  double seconds_a_step = 0;  // lately; 0: not known
  double idle_s = 0;          // since the last step was written
  std::map<std::string, double, std::less<>> newest;
  std::vector<WatchCurve> curves;  // in the order that they are shown in
  struct Sample {
    int64_t step = -1;
    std::string prompt, completion, reward;  // "reward 0.500" or "no score"
  } sample;
};

// Takes in what the run has now; `points`: most values of a curve.
WatchState LookAt(RunView& run, size_t points);

struct WatchLook {
  bool colour = true;  // ANSI colours; without them the lines are plain text
};

// The lines of a window of `width` x `height`, at most `height` of them. Where the window is too
// small for all, what comes later goes: samples first, then drops, ring, curves.
std::vector<std::string> DrawWatch(const WatchState& state, int width, int height,
                                   const WatchLook& look = {});

// One line for a step: "step 12/400  reward 0.512  ...". `values`: of that step.
std::string WatchLine(int64_t step, int64_t steps,
                      const std::map<std::string, double, std::less<>>& values);

// A curve as `rows` lines of `columns` braille characters, two values wide and four high each.
// Values are spread over the whole width; none, as blanks.
std::vector<std::string> Braille(const std::vector<float>& values, int columns, int rows);

// Columns of a line that may have ANSI colours in it.
int ShownColumns(std::string_view line);

}  // namespace plumb::run
