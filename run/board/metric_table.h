// The numbers of a run as columns: a float a step and metric.
//
// Purpose: a curve of a long run is drawn from a few hundred buckets, without reading its file
// again. A step that comes a second time takes the place of the first and of what followed it. Of a
// run that needs more than the bound only every second step is kept, then every fourth, and so on
// (stride()); sums and newest values are still those of all steps. Many lines at once are parsed by
// several threads, which end before Append returns.
// Thread safety: one thread. Units: seconds and tokens since the run's first line. Errors: none: a
// line that is no object with a step is counted and left out.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/metrics/missing_steps.h"

namespace plumb::run {

enum class XAxis : uint8_t { kStep, kTokens, kTime };

// One curve. Where a bucket holds one value, low and high are that value.
struct Curve {
  std::vector<double> x;               // of the last value of a bucket
  std::vector<float> mean, low, high;  // NaN: the value was not finite
};

class MetricTable {
 public:
  static constexpr size_t kDefaultMaxBytes = size_t{192} << 20;

  static constexpr size_t kPieceBytes = size_t{512} << 10;  // what a thread is begun for

  // `threads`: that parse; 0: as many as the machine has, at most four.
  explicit MetricTable(size_t max_bytes = kDefaultMaxBytes, size_t threads = 0);
  ~MetricTable();
  MetricTable(const MetricTable&) = delete;

  // So many bytes of lines are to come in all: memory for them is taken at once.
  void Expect(uint64_t bytes) { expected_bytes_ = bytes; }
  // Whole lines. REQUIRES: LineTail::kPadding readable bytes behind them.
  void Append(std::string_view lines);
  void Clear();

  size_t rows() const { return steps_.size(); }
  int64_t stride() const { return stride_; }
  // Changes when rows that were there are no longer, or stand elsewhere.
  uint64_t revision() const { return revision_; }
  int64_t unreadable() const { return unreadable_; }
  const MissingSteps& missing() const { return missing_; }
  int64_t last_step() const { return last_step_; }     // -1: none
  double last_wall_s() const { return last_wall_s_; }  // seconds since 1970; 0: none
  double seconds() const { return seconds_; }          // of training
  double tokens() const { return tokens_; }
  // Seconds a step takes of late, what lies between steps (checkpoints, evaluations) included, a
  // pause between lives of the run not; 0: there are fewer than two.
  double Pace() const;
  size_t bytes() const;

  std::vector<std::string> Names() const;  // sorted
  // The newest finite value of each metric, and the step it is of.
  struct Value {
    double value = 0;
    int64_t step = -1;
  };
  const std::map<std::string, Value, std::less<>>& Newest() const { return newest_; }

  // At most `points` buckets of equal numbers of steps; buckets without a value are left out. Empty
  // for a name that is not there. `from`: the first row, 0 for all.
  Curve CurveOf(std::string_view name, XAxis axis, size_t points, size_t from = 0) const;

  struct Row {
    int64_t step = 0;
    double wall_s = 0, seconds = 0, tokens = 0;
  };
  Row RowAt(size_t row) const;
  // NaN: it has none, or one that was not finite (then `written` is set).
  float At(size_t column, size_t row, bool* written = nullptr) const;
  size_t columns() const { return columns_.size(); }
  const std::string& NameOf(size_t column) const { return columns_[column].name; }

 private:
  struct Column {
    std::string name;
    std::vector<float> values;  // shorter than steps_: the rest has none
    Value* newest = nullptr;    // in newest_
  };
  class Parser;
  struct ParsedLine;

  void Take(Parser& parsed);
  void AddLine(const ParsedLine& line, const Parser& parsed);
  void Reserve(std::string_view lines);
  size_t ColumnOf(std::string_view name);
  void DropFrom(int64_t step);
  void Thin();

  const size_t max_bytes_;
  std::vector<std::unique_ptr<Parser>> parsers_;  // one a thread
  uint64_t expected_bytes_ = 0;
  size_t expected_rows_ = 0;
  std::vector<int64_t> steps_;
  std::vector<double> wall_s_, seconds_of_, tokens_of_;
  std::vector<Column> columns_;
  std::map<std::string, size_t, std::less<>> by_name_;
  std::map<std::string, Value, std::less<>> newest_;
  size_t step_time_ = SIZE_MAX, trained_ = SIZE_MAX, generated_ = SIZE_MAX;  // columns, once there
  MissingSteps missing_;
  uint64_t revision_ = 1;
  int64_t stride_ = 1, seen_ = 0, unreadable_ = 0, last_step_ = -1;
  double last_wall_s_ = 0, first_wall_s_ = 0, seconds_ = 0, tokens_ = 0;
};

}  // namespace plumb::run
