#include "run/board/metric_table.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <system_error>
#include <thread>
#include <utility>

#include "run/board/line_tail.h"

namespace plumb::run {
namespace {

static_assert(LineTail::kPadding >= simdjson::SIMDJSON_PADDING);

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
// A value that the run wrote as null: it has a place in the curve, as a gap.
constexpr float kNotFinite = std::numeric_limits<float>::infinity();
constexpr size_t kMaxColumns = 4096;  // a file of ever new names must not take all memory
constexpr size_t kFixedBytes = sizeof(int64_t) + 3 * sizeof(double);

constexpr std::string_view kTrained = "perf/train_tokens", kGenerated = "perf/generated_tokens",
                           kStepTime = "time/step";

}  // namespace

namespace {

// False: the machine gives no more threads.
template <class Work>
bool Begin(std::vector<std::thread>& threads, Work work) {
  try {
    threads.emplace_back(std::move(work));
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

}  // namespace

struct MetricTable::ParsedLine {
  int64_t step = -1;
  double wall_s = 0;
  size_t begin = 0, end = 0;  // in the parser's values
};

// Some neighbouring lines as numbers. Names are numbered by the parser; `columns` says which column
// of the table each is, once Take has given it one.
class MetricTable::Parser {
 public:
  void Clear() {
    names_.clear();
    by_name_.clear();
    order_.clear();
    columns.clear();
  }

  void Parse(std::string_view lines) {
    parsed.clear();
    values.clear();
    unreadable = 0;
    while (!lines.empty()) {
      const auto* end = static_cast<const char*>(memchr(lines.data(), '\n', lines.size()));
      const size_t n = end == nullptr ? lines.size() : static_cast<size_t>(end - lines.data());
      if (n > 0) ParseLine(lines.substr(0, n));
      lines.remove_prefix(std::min(lines.size(), n + 1));
    }
  }

  const std::vector<std::string>& names() const { return names_; }

  std::vector<ParsedLine> parsed;
  std::vector<std::pair<uint32_t, double>> values;
  int64_t unreadable = 0;
  std::vector<size_t> columns;

 private:
  uint32_t NumberOf(std::string_view name) {
    const auto found = by_name_.find(name);
    if (found != by_name_.end()) return found->second;
    if (names_.size() >= kMaxColumns) return kMaxColumns;
    const auto number = static_cast<uint32_t>(names_.size());
    names_.emplace_back(name);
    by_name_.emplace(std::string(name), number);
    return number;
  }

  void ParseLine(std::string_view line) {
    namespace dom = simdjson::dom;
    // A whole document first: its values can then be asked for in any way, whatever stands there.
    dom::object object;
    if (json_.parse(line.data(), line.size(), /*realloc_if_needed=*/false).get(object) !=
        simdjson::SUCCESS) {
      ++unreadable;
      return;
    }
    ParsedLine out{.begin = values.size()};
    size_t at = 0;  // in order_
    for (const dom::key_value_pair field : object) {
      uint32_t number = kMaxColumns;
      if (at < order_.size() && names_[order_[at]] == field.key) {
        number = order_[at++];
      } else if (field.key == "step") {
        if (field.value.get(out.step) != simdjson::SUCCESS) out.step = -1;
        continue;
      } else if (field.key == "wall_s") {
        if (field.value.get(out.wall_s) != simdjson::SUCCESS) out.wall_s = 0;
        continue;
      } else {
        number = NumberOf(field.key);
        if (number == kMaxColumns) continue;
        // its place in the order, if it is one of them further on
        const auto from = order_.begin() + static_cast<std::ptrdiff_t>(at);
        const auto later = std::find(from, order_.end(), number);
        if (later != order_.end()) at = static_cast<size_t>(later - order_.begin()) + 1;
      }
      double value = 0;
      if (field.value.get(value) == simdjson::SUCCESS) values.emplace_back(number, value);
      else if (field.value.is_null()) values.emplace_back(number, kNotFinite);
      // a text or a list is no number of a curve
    }
    if (out.step < 0) {
      ++unreadable;
      values.resize(out.begin);
      return;
    }
    out.end = values.size();
    if (out.end - out.begin > order_.size()) {
      order_.clear();
      for (size_t i = out.begin; i < out.end; ++i) order_.push_back(values[i].first);
    }
    parsed.push_back(out);
  }

  simdjson::dom::parser json_;
  std::vector<std::string> names_;
  std::map<std::string, uint32_t, std::less<>> by_name_;
  // The names of the fullest line, in its order: the next line has mostly the same.
  std::vector<uint32_t> order_;
};

MetricTable::MetricTable(size_t max_bytes, size_t threads) : max_bytes_(max_bytes) {
  if (threads == 0) threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 4);
  for (size_t i = 0; i < threads; ++i) parsers_.push_back(std::make_unique<Parser>());
}
MetricTable::~MetricTable() = default;

void MetricTable::Clear() {
  steps_.clear();
  wall_s_.clear();
  seconds_of_.clear();
  tokens_of_.clear();
  columns_.clear();
  by_name_.clear();
  newest_.clear();
  missing_.Clear();
  for (const auto& parser : parsers_) parser->Clear();
  step_time_ = trained_ = generated_ = SIZE_MAX;
  expected_bytes_ = 0;
  expected_rows_ = 0;
  ++revision_;
  stride_ = 1;
  seen_ = unreadable_ = 0;
  last_step_ = -1;
  last_wall_s_ = first_wall_s_ = seconds_ = tokens_ = 0;
}

size_t MetricTable::bytes() const {
  size_t cells = 0;
  for (const Column& c : columns_) cells += c.values.capacity();
  return cells * sizeof(float) + steps_.capacity() * kFixedBytes;
}

void MetricTable::Append(std::string_view lines) {
  if (steps_.empty() && expected_rows_ == 0) Reserve(lines);
  // Pieces of equal size, each up to the end of a line.
  const size_t pieces = std::clamp<size_t>(lines.size() / kPieceBytes, 1, parsers_.size());
  std::vector<std::thread> threads;
  size_t begin = 0;
  for (size_t i = 0; i < pieces; ++i) {
    size_t end = i + 1 == pieces ? lines.size() : std::max(begin, (i + 1) * lines.size() / pieces);
    if (end < lines.size()) end = std::min(lines.size(), lines.find('\n', end)) + 1;
    end = std::min(end, lines.size());
    const std::string_view piece = lines.substr(begin, end - begin);
    Parser* const parser = parsers_[i].get();
    if (i + 1 == pieces) parser->Parse(piece);
    else if (!Begin(threads, [parser, piece] { parser->Parse(piece); })) parser->Parse(piece);
    begin = end;
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t i = 0; i < pieces; ++i) Take(*parsers_[i]);
  if (bytes() > max_bytes_) Thin();
}

// Rows for what is to come, as long as these lines are on average, but no more than are kept.
void MetricTable::Reserve(std::string_view lines) {
  const auto count = static_cast<size_t>(std::count(lines.begin(), lines.end(), '\n'));
  if (count == 0 || expected_bytes_ <= lines.size()) return;
  const double rows = 1.02 * static_cast<double>(expected_bytes_) * static_cast<double>(count) /
                      static_cast<double>(lines.size());
  expected_rows_ = static_cast<size_t>(rows);
  if (expected_rows_ * kFixedBytes > max_bytes_ / 4) {
    expected_rows_ = 0;
    return;
  }
  steps_.reserve(expected_rows_);
  wall_s_.reserve(expected_rows_);
  seconds_of_.reserve(expected_rows_);
  tokens_of_.reserve(expected_rows_);
}

void MetricTable::Take(Parser& parsed) {
  unreadable_ += parsed.unreadable;
  for (size_t i = parsed.columns.size(); i < parsed.names().size(); ++i)
    parsed.columns.push_back(ColumnOf(parsed.names()[i]));
  for (const ParsedLine& line : parsed.parsed) AddLine(line, parsed);
}

size_t MetricTable::ColumnOf(std::string_view name) {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return found->second;
  if (columns_.size() >= kMaxColumns) return kMaxColumns;
  const size_t column = columns_.size();
  const auto newest = newest_.emplace(std::string(name), Value{}).first;
  columns_.push_back({std::string(name), {}, &newest->second});
  if (bytes() + expected_rows_ * sizeof(float) < max_bytes_)
    columns_.back().values.reserve(expected_rows_);
  if (name == kStepTime) step_time_ = column;
  else if (name == kTrained) trained_ = column;
  else if (name == kGenerated) generated_ = column;
  by_name_.emplace(std::string(name), column);
  return column;
}

void MetricTable::AddLine(const ParsedLine& line, const Parser& parsed) {
  const auto [step, wall_s, begin, end] = line;
  if (step <= last_step_) DropFrom(step);
  missing_.Step(step);
  if (first_wall_s_ == 0) first_wall_s_ = wall_s;
  double step_time = -1, trained = -1, generated = -1;
  const bool kept = seen_++ % stride_ == 0;
  const size_t row = steps_.size();
  for (size_t i = begin; i < end; ++i) {
    const size_t column = parsed.columns[parsed.values[i].first];
    if (column == kMaxColumns) continue;
    const double value = parsed.values[i].second;
    if (std::isfinite(value)) {
      *columns_[column].newest = {value, step};
      if (column == step_time_) step_time = value;
      else if (column == trained_) trained = value;
      else if (column == generated_) generated = value;
    }
    if (!kept) continue;
    std::vector<float>& values = columns_[column].values;
    values.resize(row, kNone);
    values.push_back(static_cast<float>(value));
  }
  // Without the time of its steps, that of the lines: pauses between lives of the run included.
  if (step_time >= 0) seconds_ += step_time;
  else if (last_wall_s_ > 0 && wall_s > last_wall_s_) seconds_ += wall_s - last_wall_s_;
  tokens_ += std::max(0.0, trained >= 0 ? trained : generated);
  last_step_ = step;
  last_wall_s_ = wall_s;
  if (!kept) return;
  steps_.push_back(step);
  wall_s_.push_back(wall_s);
  seconds_of_.push_back(seconds_);
  tokens_of_.push_back(tokens_);
}

// The rows from `step` on, as if they had never been.
void MetricTable::DropFrom(int64_t step) {
  ++revision_;
  const auto first = std::lower_bound(steps_.begin(), steps_.end(), step);
  const auto rows = static_cast<size_t>(first - steps_.begin());
  steps_.resize(rows);
  wall_s_.resize(rows);
  seconds_of_.resize(rows);
  tokens_of_.resize(rows);
  for (Column& c : columns_) {
    if (c.values.size() > rows) c.values.resize(rows);
  }
  seconds_ = rows > 0 ? seconds_of_.back() : 0;
  tokens_ = rows > 0 ? tokens_of_.back() : 0;
  last_wall_s_ = rows > 0 ? wall_s_.back() : 0;
  last_step_ = rows > 0 ? steps_.back() : -1;
  seen_ = static_cast<int64_t>(rows) * stride_;
}

void MetricTable::Thin() {
  ++revision_;
  stride_ *= 2;
  const auto thin = [](auto& values) {
    size_t kept = 0;
    for (size_t i = 0; i < values.size(); i += 2) values[kept++] = values[i];
    values.resize(kept);
    values.shrink_to_fit();
  };
  thin(steps_);
  thin(wall_s_);
  thin(seconds_of_);
  thin(tokens_of_);
  for (Column& c : columns_) thin(c.values);
}

double MetricTable::Pace() const {
  constexpr size_t kLate = 200, kEnough = 10;  // rows
  const size_t n = std::min(kLate, steps_.empty() ? 0 : steps_.size() - 1);
  double sum = 0, largest = 0;
  int64_t count = 0, of_largest = 0;
  for (size_t row = steps_.size() - n; row < steps_.size(); ++row) {
    const double took = std::max(0.0, wall_s_[row] - wall_s_[row - 1]);
    const int64_t steps = steps_[row] - steps_[row - 1];
    sum += took;
    count += steps;
    if (took > largest) largest = took, of_largest = steps;
  }
  if (n >= kEnough && largest > sum / 2) sum -= largest, count -= of_largest;  // it was away
  return count > 0 ? sum / static_cast<double>(count) : 0;
}

std::vector<std::string> MetricTable::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, column] : by_name_) names.push_back(name);
  return names;
}

MetricTable::Row MetricTable::RowAt(size_t row) const {
  return {steps_[row], wall_s_[row], seconds_of_[row], tokens_of_[row]};
}

float MetricTable::At(size_t column, size_t row, bool* written) const {
  const std::vector<float>& values = columns_[column].values;
  const float value = row < values.size() ? values[row] : kNone;
  if (written != nullptr) *written = !std::isnan(value);
  return std::isinf(value) ? kNone : value;
}

Curve MetricTable::CurveOf(std::string_view name, XAxis axis, size_t points, size_t from) const {
  Curve curve;
  const auto found = by_name_.find(name);
  if (found == by_name_.end() || points == 0) return curve;
  const std::vector<float>& values = columns_[found->second].values;
  // Rows that have a value: an evaluation every hundred steps gets as many points as there is room.
  size_t count = 0;
  for (size_t row = from; row < values.size(); ++row) count += !std::isnan(values[row]);
  if (count == 0) return curve;
  const size_t buckets = std::min(points, count);
  curve.x.reserve(buckets);
  const auto x_of = [&](size_t row) {
    switch (axis) {
      case XAxis::kTokens: return tokens_of_[row];
      case XAxis::kTime: return seconds_of_[row];
      case XAxis::kStep: break;
    }
    return static_cast<double>(steps_[row]);
  };
  size_t done = 0, row = from;
  for (size_t bucket = 0; bucket < buckets; ++bucket) {
    const size_t end = (bucket + 1) * count / buckets;
    double sum = 0;
    size_t finite = 0, last = from;
    float low = std::numeric_limits<float>::max(), high = std::numeric_limits<float>::lowest();
    for (; done < end; ++row) {
      const float value = values[row];
      if (std::isnan(value)) continue;
      ++done;
      last = row;
      if (std::isinf(value)) continue;
      ++finite;
      sum += static_cast<double>(value);
      low = std::min(low, value);
      high = std::max(high, value);
    }
    curve.x.push_back(x_of(last));
    curve.mean.push_back(finite == 0 ? kNone
                                     : static_cast<float>(sum / static_cast<double>(finite)));
    curve.low.push_back(finite == 0 ? kNone : low);
    curve.high.push_back(finite == 0 ? kNone : high);
  }
  return curve;
}

}  // namespace plumb::run
