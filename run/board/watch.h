// `plumb watch`: one run in a terminal, redrawn as it goes on, or a plain line a step.
//
// Purpose: the loop around WatchView: looks at the run, fits the window (it may change), gives the
// terminal back as it was, however it ends. q, Ctrl-C and a closed terminal end it.
// Thread safety: one call at a time in a process. Errors: kIo when a plain line cannot be written;
// what the run has not written is not shown.
#pragma once

#include <atomic>
#include <cstdio>
#include <string>

namespace plumb::run {

struct WatchOptions {
  double hertz = 2;                         // looks a second
  const std::atomic<bool>* stop = nullptr;  // ends it when set
};

// On standard output and input.
void WatchOnTerminal(const std::string& folder, const WatchOptions& options);

// One line a step that is there or comes, until the run is over (or `stop`).
void WatchAsLines(const std::string& folder, const WatchOptions& options, std::FILE* out);

}  // namespace plumb::run
