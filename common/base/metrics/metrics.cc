#include "common/base/metrics/metrics.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/base/error.h"

namespace plumb {
namespace {

constexpr char kNonFinite[] = "metrics/non_finite";
constexpr size_t kMaxMetricsBytes = size_t{1} << 30;

void AppendNumber(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char digits[32];  // the shortest text that reads back as the same double
  const auto end = std::to_chars(digits, digits + sizeof digits, value);
  out.append(digits, end.ptr);
}

void AppendString(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += c;
    }
  }
  out += '"';
}

// The step of a line this sink wrote; -1 for one that is torn.
int64_t StepOf(std::string_view line) {
  constexpr std::string_view kBegin = "{\"step\":";
  if (line.size() <= kBegin.size() || line.substr(0, kBegin.size()) != kBegin || line.back() != '}')
    return -1;
  int64_t step = -1;
  const auto end = std::from_chars(line.data() + kBegin.size(), line.data() + line.size(), step);
  return end.ec == std::errc() ? step : -1;
}

class JsonlSink final : public MetricsSink {
 public:
  JsonlSink(const std::string& path, int64_t first_step, FileSystem& files) {
    if (files.Exists(path)) {
      const std::string before = files.ReadFile(path, kMaxMetricsBytes);
      std::string kept;
      for (size_t at = 0; at < before.size();) {
        const size_t end = before.find('\n', at);
        if (end == std::string::npos) break;  // torn by a crash
        const std::string_view line(before.data() + at, end - at);
        const int64_t step = StepOf(line);
        if (step >= 0 && step < first_step) kept.append(line).push_back('\n');
        at = end + 1;
      }
      if (kept != before) files.WriteFileAtomic(path, kept);
    }
    file_ = files.OpenAppend(path);
  }

  void Write(int64_t step, double wall_s, const std::map<std::string, double>& values) override {
    std::string line = "{\"step\":" + std::to_string(step) + ",\"wall_s\":";
    AppendNumber(line, wall_s);
    for (const auto& [name, value] : values) {
      line += ',';
      AppendString(line, name);
      line += ':';
      AppendNumber(line, value);
    }
    line += "}\n";
    file_->Append(line);
  }

 private:
  std::unique_ptr<AppendFile> file_;
};

}  // namespace

void Metrics::Set(std::string_view name, double value) {
  MutexLock lock(mu_);
  gauges_[std::string(name)] = value;
}

void Metrics::Add(std::string_view name, double amount) {
  MutexLock lock(mu_);
  counters_[std::string(name)] += amount;
}

Metrics::Timer::~Timer() {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  MutexLock lock(metrics_.mu_);
  metrics_.gauges_[name_] += seconds;
}

void Metrics::Step(int64_t step) {
  std::map<std::string, double> values;
  {
    MutexLock lock(mu_);
    values = std::move(gauges_);
    gauges_.clear();
    for (const auto& [name, value] : values) {
      if (!std::isfinite(value)) counters_[kNonFinite] += 1;
    }
    for (const auto& [name, value] : counters_) values[name] = value;
    last_ = values;
  }
  const double wall_s = static_cast<double>(clock_.WallMs()) / 1000.0;
  for (const auto& sink : sinks_) sink->Write(step, wall_s, values);
}

void Metrics::GoOnFrom(const std::map<std::string, double>& last) {
  MutexLock lock(mu_);
  if (const auto found = last.find(kNonFinite); found != last.end())
    counters_[kNonFinite] += found->second;
}

std::map<std::string, double> Metrics::Last() const {
  MutexLock lock(mu_);
  return last_;
}

std::map<std::string, double> LastJsonlValues(const std::string& path, int64_t before,
                                              FileSystem& files) {
  std::map<std::string, double> values;
  if (before <= 0 || !files.Exists(path)) return values;
  const std::string text = files.ReadFile(path, kMaxMetricsBytes);
  // From the end: the step is among the last ones.
  for (size_t end = text.rfind('\n'); end != std::string::npos && end > 0;) {
    const size_t begin = text.rfind('\n', end - 1);
    const size_t from = begin == std::string::npos ? 0 : begin + 1;
    const std::string_view line(text.data() + from, end - from);
    const int64_t step = StepOf(line);
    end = begin;
    if (step < 0 || step >= before) continue;
    const auto object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) continue;
    for (const auto& [name, value] : object.items()) {
      if (value.is_number()) values[name] = value.get<double>();
    }
    break;
  }
  return values;
}

std::unique_ptr<MetricsSink> MakeJsonlSink(const std::string& path, int64_t first_step,
                                           FileSystem& files) {
  return std::make_unique<JsonlSink>(path, first_step, files);
}

}  // namespace plumb
