// How far a verb is that works through a known number of things, and how long it will still take:
// one redrawn line on a terminal, a plain line every ten seconds elsewhere.
//
// Thread safety: one thread. Ownership: borrows the stream. Errors: none; write errors are ignored.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

namespace plumb::run {

class CountProgress {
 public:
  // `what`: of `total` things, for people ("prompts"). Nothing is shown before the first Show.
  CountProgress(int64_t total, std::string what, bool terminal, std::FILE* out);
  ~CountProgress();  // takes the redrawn line away

  // `done` of them; `more` stands behind the time left ("1234 tokens/s"). `share`: of the work,
  // where things that are not done have taken some of it, for the time left; else that of the
  // things.
  void Show(int64_t done, const std::string& more = "", std::optional<double> share = {});
  // The line: "120/400 prompts, 1:05 left, 1234 tokens/s".
  std::string Text(int64_t done, double seconds, const std::string& more,
                   std::optional<double> share = {}) const;

 private:
  const int64_t total_;
  const std::string what_;
  const bool terminal_;
  std::FILE* const out_;
  const std::chrono::steady_clock::time_point begin_;
  std::chrono::steady_clock::time_point last_;
  bool drawn_ = false;
};

}  // namespace plumb::run
