#include "reward/notice.h"

#include <chrono>
#include <mutex>
#include <utility>

#include "common/log.h"

namespace plumb::reward {
namespace {

std::mutex mu;
std::function<void(const std::string&)> current;  // guarded by mu, as the rest
std::chrono::steady_clock::time_point window;
int in_window = 0;
uint64_t left_out = 0;

void Send(const std::string& line, bool urgent) {
  std::lock_guard lock(mu);
  const auto now = std::chrono::steady_clock::now();
  if (now - window > std::chrono::seconds(1)) window = now, in_window = 0;
  if (!urgent && ++in_window > 5) {
    ++left_out;
    return;
  }
  std::string text = line;
  if (left_out > 0) text += " (" + std::to_string(left_out) + " warnings left out)";
  left_out = 0;
  if (current) {
    current(text);
  } else {
    LogWarning(text);
  }
}

}  // namespace

void Notice(const std::string& line) { Send(line, false); }
void UrgentNotice(const std::string& line) { Send(line, true); }

std::function<void(const std::string&)> SetNoticeSink(std::function<void(const std::string&)> sink) {
  std::lock_guard lock(mu);
  return std::exchange(current, std::move(sink));
}

}  // namespace plumb::reward
