#include "common/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <set>
#include <vector>

namespace plumb {
namespace {

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

std::shared_ptr<spdlog::logger> MakeLogger(const std::string& name, const std::string& file,
                                           LogLevel level) {
  auto terminal = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  terminal->set_level(spdlog::level::warn);
  std::vector<spdlog::sink_ptr> sinks{terminal};
  if (!file.empty()) {
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(file));
    sinks.back()->set_level(ToSpdlog(level));
  }
  auto logger = std::make_shared<spdlog::logger>(name, sinks.begin(), sinks.end());
  logger->set_level(ToSpdlog(level));
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %n %l: %v");
  logger->flush_on(ToSpdlog(level));
  return logger;
}

Mutex logger_mu;
std::shared_ptr<spdlog::logger> logger PLUMB_GUARDED_BY(logger_mu);

std::shared_ptr<spdlog::logger> Logger() {
  MutexLock lock(logger_mu);
  if (!logger) logger = MakeLogger("plumb", "", LogLevel::kWarning);
  return logger;
}

}  // namespace

void SetUpLogging(const std::string& role, int rank, const std::string& file, LogLevel level) {
  auto made = MakeLogger(rank >= 0 ? role + "-" + std::to_string(rank) : role, file, level);
  MutexLock lock(logger_mu);
  logger = std::move(made);
}

void LogDebug(std::string_view line) { Logger()->debug("{}", line); }
void LogInfo(std::string_view line) { Logger()->info("{}", line); }
void LogWarning(std::string_view line) { Logger()->warn("{}", line); }
void LogError(std::string_view line) { Logger()->error("{}", line); }

void LogWarningOnce(const std::string& line) {
  static Mutex mu;
  static std::set<std::string> said PLUMB_GUARDED_BY(mu);
  {
    MutexLock lock(mu);
    if (!said.insert(line).second) return;
  }
  LogWarning(line);
}

void LogEvery::Warning(std::string_view line) {
  int64_t held_back = 0;
  {
    MutexLock lock(mu_);
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) {
      ++held_back_;
      return;
    }
    next_ = now + interval_;
    held_back = std::exchange(held_back_, 0);
  }
  LogWarning(held_back ? std::string(line) + " (and " + std::to_string(held_back) + " more like it)"
                       : std::string(line));
}

}  // namespace plumb
