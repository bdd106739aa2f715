// Decode steps on a GPU as recorded work: one record a number of rows.
//
// Purpose: a step without prompts does the same launches every time; only what the arrays hold
// changes. Rows are filled up to one of few numbers (Rows), so that a batch that shrinks row by row
// meets a record that is there.
// The first step of a kind runs as it is: it takes the memory that is missing and lets libraries
// choose; the second one is recorded and replayed, and from then on it is a replay. A kind is the
// number of rows, how they are drawn, whether groups read keys together, and where the memory lies:
// weights of another buffer and a larger arena are other kinds.
// Thread safety: none; the engine's thread. Ownership: owns the records.
// Errors: none of its own. Where a step cannot be recorded, that is said once, and all steps run as
// they are from then on.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <optional>
#include <vector>

#include "kernels/device/recorded_work.h"
#include "kernels/sampling.h"

namespace plumb::actor {

struct StepKind {
  int32_t rows = 0;
  int32_t steps = 1;  // one behind the other
  kernels::SamplingOptions sampling;
  std::vector<const void*> memory;  // everything that may lie elsewhere next time
  bool rows_share = false;          // some read their prompt's keys together
  bool operator==(const StepKind&) const = default;
};

class StepGraphs {
 public:
  explicit StepGraphs(const Stream& stream) : stream_(stream) {}

  // Rows that a step of `rows` rows is filled up to; at most `most`.
  static int32_t Rows(int32_t rows, int32_t most);

  // Does the step: by `enqueue`, or by a replay of it. `kind_now` says where memory lies; asked
  // again behind a step that was run as it is.
  void Run(const std::function<StepKind()>& kind_now, const std::function<void()>& enqueue);

  uint64_t replays() const { return replays_; }

 private:
  struct Entry {
    StepKind kind;
    std::optional<kernels::RecordedWork> work;  // not there: was run once
  };

  static constexpr size_t kMost = 64;  // records; the one not used for longest goes

  const Stream stream_;
  std::list<Entry> entries_;  // the last one used in front
  bool refused_ = false;
  uint64_t replays_ = 0;
};

}  // namespace plumb::actor
