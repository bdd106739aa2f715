// Scalars of a run, one set a step, into as many sinks as wanted: JSONL, a Prometheus endpoint,
// TensorBoard's event files (common/base/metrics/tensorboard.h).
//
// Purpose: every number has one name everywhere (docs: COMPATIBILITY section 4, e.g. "reward/mean",
// "time/train"). Set and Time give the value of the current step; Add counts over the whole run (a
// counter keeps its sum from step to step, a gauge is gone once its step is written). A value that
// is not finite is passed on as "no value" and counted in "metrics/non_finite" (over the run).
// Thread safety: Set, Add, Time, Last: all; Step and AddSink: one thread. Errors: a sink that
// cannot write throws kNoSpace or kIo out of Step; nothing is dropped silently.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/file.h"
#include "common/base/mutex.h"

namespace plumb {

class MetricsSink {
 public:
  virtual ~MetricsSink() = default;
  // `wall_s`: seconds since 1970. Values may be NaN or infinite: say "no value".
  virtual void Write(int64_t step, double wall_s, const std::map<std::string, double>& values) = 0;
};

class Metrics {
 public:
  explicit Metrics(Clock& clock = RealClock()) : clock_(clock) {}

  void AddSink(std::unique_ptr<MetricsSink> sink) { sinks_.push_back(std::move(sink)); }

  void Set(std::string_view name, double value);       // gauge
  void Add(std::string_view name, double amount = 1);  // counter
  // Adds the life of the returned object to the gauge `name`, in seconds: several scopes of a step
  // add up.
  class Timer {
   public:
    Timer(Metrics& metrics, std::string name)
        : metrics_(metrics), name_(std::move(name)), begin_(std::chrono::steady_clock::now()) {}
    ~Timer();
    Timer(const Timer&) = delete;

   private:
    Metrics& metrics_;
    const std::string name_;
    const std::chrono::steady_clock::time_point begin_;
  };
  Timer Time(std::string_view name) { return Timer(*this, std::string(name)); }

  // Writes everything of this step to all sinks and starts the next one. Steps increase.
  void Step(int64_t step);
  // Of an earlier life of the run: Step counts on from there.
  void GoOnFrom(const std::map<std::string, double>& last);
  // What the last Step wrote.
  std::map<std::string, double> Last() const;

 private:
  friend class Timer;
  Clock& clock_;
  std::vector<std::unique_ptr<MetricsSink>> sinks_;
  mutable Mutex mu_;
  std::map<std::string, double> gauges_ PLUMB_GUARDED_BY(mu_);  // of the current step
  std::map<std::string, double> counters_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, double> last_ PLUMB_GUARDED_BY(mu_);
};

// One JSON object a step: {"step":3,"wall_s":1700000000.123,"reward/mean":0.5}; null for a value
// that is not finite. Flushed line by line. Lines with step >= `first_step`, torn lines included,
// are dropped first, atomically, so that the file of a resumed run equals that of an unbroken one.
std::unique_ptr<MetricsSink> MakeJsonlSink(const std::string& path, int64_t first_step = 0,
                                           FileSystem& files = RealFileSystem());

// The values of the last whole line of such a file whose step is below `before`, those that are
// finite; empty without one.
std::map<std::string, double> LastJsonlValues(const std::string& path, int64_t before,
                                              FileSystem& files = RealFileSystem());

// GET http://127.0.0.1:port/metrics in the Prometheus text format, answered by an own thread; any
// other path is 404.
// "reward/mean" is the gauge plumb_reward_mean, a counter's name ends in _total; each has HELP,
// TYPE and the labels given. Before the first step there are plumb_up, 1, and plumb_info, 1, which
// has the labels of `info`, too; both stay. Port 0 takes a free one. Throws kConflict when the port
// is in use.
class PrometheusSink : public MetricsSink {
 public:
  virtual int port() const = 0;
  // Which of the names to come are totals that only rise. From the thread that writes.
  virtual void CountersAre(std::set<std::string> names) = 0;
};
std::unique_ptr<PrometheusSink> MakePrometheusSink(
    int port, const std::map<std::string, std::string>& labels = {},
    const std::map<std::string, std::string>& info = {});

}  // namespace plumb
