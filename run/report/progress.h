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

namespace plumb::run {

// "1:05", "2h03m".
std::string Duration(double seconds);

class Progress {
 public:
  // `terminal`: redraw one line with a bar; else a plain line every kPlainSeconds and at the end.
  Progress(int64_t first_step, int64_t steps, bool terminal, std::FILE* out);
  ~Progress();  // leaves the terminal on a fresh line

  void Phase(const std::string& name);
  // Step `step` is done (0-based); uses reward/mean, objective/kl, response_length/mean,
  // perf/tokens_per_s.
  void Step(int64_t step, const std::map<std::string, double>& metrics);
  void Line(const std::string& text);

  static constexpr double kPlainSeconds = 10;

 private:
  std::string Describe(int64_t step, const std::map<std::string, double>& metrics) const;
  void Erase();

  const int64_t steps_;
  const bool terminal_;
  std::FILE* const out_;
  int64_t first_step_;
  bool started_ = false;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point begin_, last_;
};

}  // namespace plumb::run
