#include "run/board/metric_table.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
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

struct MetricTable::Parser {
  simdjson::dom::parser json;
};

MetricTable::MetricTable(size_t max_bytes)
    : max_bytes_(max_bytes), parser_(std::make_unique<Parser>()) {}
MetricTable::~MetricTable() = default;

void MetricTable::Clear() {
  steps_.clear();
  wall_s_.clear();
  seconds_of_.clear();
  tokens_of_.clear();
  columns_.clear();
  by_name_.clear();
  newest_.clear();
  order_.clear();
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
  while (!lines.empty()) {
    const auto* end = static_cast<const char*>(memchr(lines.data(), '\n', lines.size()));
    const size_t n = end == nullptr ? lines.size() : static_cast<size_t>(end - lines.data());
    if (n > 0) AppendLine(lines.substr(0, n));
    lines.remove_prefix(std::min(lines.size(), n + 1));
  }
  if (bytes() > max_bytes_) Thin();
}

size_t MetricTable::ColumnOf(std::string_view name) {
  const auto found = by_name_.find(name);
  if (found != by_name_.end()) return found->second;
  if (columns_.size() >= kMaxColumns) return kMaxColumns;
  const size_t column = columns_.size();
  const auto newest = newest_.emplace(std::string(name), Value{}).first;
  columns_.push_back({std::string(name), {}, &newest->second});
  by_name_.emplace(std::string(name), column);
  return column;
}

void MetricTable::AppendLine(std::string_view line) {
  namespace dom = simdjson::dom;
  // A whole document first: its values can then be asked for in any way, whatever stands there.
  dom::object object;
  if (parser_->json.parse(line.data(), line.size(), /*realloc_if_needed=*/false).get(object) !=
      simdjson::SUCCESS) {
    ++unreadable_;
    return;
  }
  int64_t step = -1;
  double wall_s = 0;
  line_.clear();
  size_t at = 0;  // in order_
  for (const dom::key_value_pair field : object) {
    size_t column = kMaxColumns;
    if (at < order_.size() && columns_[order_[at]].name == field.key) {
      column = order_[at++];
    } else if (field.key == "step") {
      if (field.value.get(step) != simdjson::SUCCESS) step = -1;
      continue;
    } else if (field.key == "wall_s") {
      if (field.value.get(wall_s) != simdjson::SUCCESS) wall_s = 0;
      continue;
    } else {
      column = ColumnOf(field.key);
      if (column == kMaxColumns) continue;
      // its place in the order, if it is one of them further on
      const auto from = order_.begin() + static_cast<std::ptrdiff_t>(at);
      const auto later = std::find(from, order_.end(), column);
      if (later != order_.end()) at = static_cast<size_t>(later - order_.begin()) + 1;
    }
    double value = 0;
    if (field.value.get(value) == simdjson::SUCCESS) line_.emplace_back(column, value);
    else if (field.value.is_null()) line_.emplace_back(column, kNotFinite);
    // a text or a list is no number of a curve
  }
  if (step < 0) {
    ++unreadable_;
    return;
  }
  if (line_.size() > order_.size()) {
    order_.clear();
    for (const auto& [column, value] : line_) order_.push_back(column);
  }
  if (step <= last_step_) DropFrom(step);
  if (first_wall_s_ == 0) first_wall_s_ = wall_s;
  double step_time = -1, trained = -1, generated = -1;
  for (const auto& [column, value] : line_) {
    if (!std::isfinite(value)) continue;
    *columns_[column].newest = {value, step};
    const std::string& name = columns_[column].name;
    if (name == kStepTime) step_time = value;
    else if (name == kTrained) trained = value;
    else if (name == kGenerated) generated = value;
  }
  // Without the time of its steps, that of the lines: pauses between lives of the run included.
  if (step_time >= 0) seconds_ += step_time;
  else if (last_wall_s_ > 0 && wall_s > last_wall_s_) seconds_ += wall_s - last_wall_s_;
  tokens_ += std::max(0.0, trained >= 0 ? trained : generated);
  last_step_ = step;
  last_wall_s_ = wall_s;
  if (seen_++ % stride_ != 0) return;
  const size_t row = steps_.size();
  steps_.push_back(step);
  wall_s_.push_back(wall_s);
  seconds_of_.push_back(seconds_);
  tokens_of_.push_back(tokens_);
  for (const auto& [column, value] : line_) {
    std::vector<float>& values = columns_[column].values;
    values.resize(row, kNone);
    values.push_back(static_cast<float>(value));
  }
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
