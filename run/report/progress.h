// What a person sees while a run goes on: one redrawn line on a terminal, plain lines elsewhere.
//
// Thread safety: one thread. Ownership: borrows the stream. Nothing here ends a run: write errors
// are ignored.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>

#include "run/report/time_left.h"

namespace plumb::run {

// "1:05", "2h03m".
std::string Duration(double seconds);

class Progress {
 public:
  // `terminal`: redraw one line with a bar; else a plain line every kPlainSeconds and at the end.
  Progress(const RunPlan& plan, bool terminal, std::FILE* out);
  ~Progress();  // leaves the terminal on a fresh line

  void Phase(const std::string& name);
  // Step `step` is done (0-based); uses reward/mean, objective/kl, response_length/mean and
  // clipped, perf/tokens_per_s, time/step.
  void Step(int64_t step, const std::map<std::string, double>& metrics);
  // So many updates of a warm start of `of` at most are done. Said as often as steps are.
  void WarmStart(int64_t done, int64_t of, double loss);
  // So many bytes are written now. On a terminal the next line takes its place; elsewhere it is
  // left out where that is soon done.
  void Saving(const std::string& text, int64_t bytes);
  // A sign of life of what takes long. On a terminal it stands below the line of the last step, and
  // the next line takes its place; elsewhere it is said until a step's line is out, behind which
  // everybody knows that the run goes on.
  void Waiting(const std::string& text);
  void Line(const std::string& text);
  // To be told what checkpoints and evaluations took; the steps it hears of here.
  TimeLeft& time_left() { return time_left_; }

  static constexpr double kPlainSeconds = 10;
  static constexpr int64_t kSoonSaved = 50'000'000;  // bytes

 private:
  bool DueOnPlain(bool at_once);
  std::string Describe(int64_t step, const std::map<std::string, double>& metrics) const;
  void Erase();

  void Draw(const std::string& text);

  const int64_t steps_;
  const bool terminal_;
  std::FILE* const out_;
  TimeLeft time_left_;
  bool started_ = false;
  bool stepped_ = false;  // a step's line was the last, and no phase
  bool drawn_ = false;
  bool step_drawn_ = false;  // and what is drawn is a step's line
  std::chrono::steady_clock::time_point last_;
};

}  // namespace plumb::run
