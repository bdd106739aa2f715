// Log lines of a role: spdlog with the role's name in front.
//
// Thread safety: all functions. A role calls SetUpLogging once, before its threads start; without
// it lines go to stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/mutex.h"

namespace plumb {

enum class LogLevel : uint8_t { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3 };

// `file` (may be empty) receives everything from `level` on; the terminal only warnings and errors.
void SetUpLogging(const std::string& role, int rank, const std::string& file,
                  LogLevel level = LogLevel::kInfo);

void LogDebug(std::string_view line);
void LogInfo(std::string_view line);
void LogWarning(std::string_view line);
void LogError(std::string_view line);

// Warns with the first call of each line in this process: what is true of a file is not said again
// each time it is opened.
void LogWarningOnce(const std::string& line);

// Warns at most once per interval; what was held back is counted and said with the next line.
class LogEvery {
 public:
  explicit LogEvery(std::chrono::milliseconds interval) : interval_(interval) {}
  void Warning(std::string_view line);

 private:
  const std::chrono::milliseconds interval_;
  Mutex mu_;
  std::chrono::steady_clock::time_point next_ PLUMB_GUARDED_BY(mu_){};
  int64_t held_back_ PLUMB_GUARDED_BY(mu_) = 0;
};

}  // namespace plumb
