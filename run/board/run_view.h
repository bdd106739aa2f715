// One run as the board and `plumb watch` see it: its numbers, answers and facts, followed.
//
// Purpose: reads what the run's process has written since the last look; nothing is written and no
// lock is kept. What is only listed is glanced at (the end of its metrics); numbers and answers are
// taken in when somebody asks for them, and forgotten by Unload.
// Thread safety: all methods (one lock). Ownership: the tables. Errors: none; what cannot be read
// is not there.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "common/base/mutex.h"
#include "run/board/line_tail.h"
#include "run/board/metric_table.h"
#include "run/board/run_facts.h"
#include "run/board/sample_table.h"

namespace plumb::run {

class RunView {
 public:
  // Files are looked at again once so much time has passed.
  static constexpr std::chrono::milliseconds kFresh{200};

  RunView(std::string name, std::string folder, std::chrono::milliseconds fresh = kFresh);

  const std::string& name() const { return name_; }
  const std::string& folder() const { return folder_; }

  struct Glance {
    RunState state = RunState::kFailed;
    std::string algorithm, model, reason;
    int64_t step = -1, steps = 0;  // the last step (0-based), and how many there are to be
    double wall_s = 0;             // when it was written
    std::map<std::string, MetricTable::Value, std::less<>> newest;
    // Held-out, at the end of a run that is over: with eval.every = 0 only its summary has it.
    std::optional<double> accuracy_after;
  };
  Glance Look();

  // What a visitor sees is up to date and stays so during the call. It must not call back.
  void WithMetrics(const std::function<void(const MetricTable&, const RunFacts&)>& visit);
  void WithSamples(const std::function<void(const SampleTable&)>& visit);
  void WithFacts(const std::function<void(const RunFacts&)>& visit);

  // Memory of the tables, and letting go of them.
  size_t bytes() const;
  void Unload();

 private:
  using Clock = std::chrono::steady_clock;
  void RefreshMetrics() PLUMB_REQUIRES(mu_);
  void GlanceAtEnd() PLUMB_REQUIRES(mu_);

  const std::string name_, folder_;
  const std::chrono::milliseconds fresh_;
  mutable Mutex mu_;
  RunFacts facts_ PLUMB_GUARDED_BY(mu_);
  std::unique_ptr<MetricTable> metrics_ PLUMB_GUARDED_BY(mu_);
  std::unique_ptr<LineTail> metrics_tail_ PLUMB_GUARDED_BY(mu_);
  std::unique_ptr<SampleTable> samples_ PLUMB_GUARDED_BY(mu_);
  std::unique_ptr<LineTail> samples_tail_ PLUMB_GUARDED_BY(mu_);
  Glance glance_ PLUMB_GUARDED_BY(mu_);
  int64_t glanced_size_ PLUMB_GUARDED_BY(mu_) = -1, glanced_ns_ PLUMB_GUARDED_BY(mu_) = -1;
  Clock::time_point metrics_at_ PLUMB_GUARDED_BY(mu_){},
      samples_at_ PLUMB_GUARDED_BY(mu_){}, facts_at_ PLUMB_GUARDED_BY(mu_){};
};

}  // namespace plumb::run
