#include "reward/part/notice.h"

#include <chrono>
#include <map>
#include <utility>

#include "common/base/log.h"
#include "common/base/mutex.h"

namespace plumb::reward {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kASecond = 5, kAMinute = 50;

// What a topic has said lately.
struct Topic {
  Clock::time_point second, minute;  // when the one that is being counted began
  int in_second = 0, in_minute = 0;
  uint64_t left_out = 0;
};

Mutex mu;
std::function<void(const std::string&)> current PLUMB_GUARDED_BY(mu);
std::map<std::string, Topic> topics PLUMB_GUARDED_BY(mu);  // as many as a recipe has parts

void Send(const std::string& line, const std::string& name, bool urgent) {
  MutexLock lock(mu);
  Topic& topic = topics[name];
  const auto now = Clock::now();
  if (now - topic.second > std::chrono::seconds(1)) topic.second = now, topic.in_second = 0;
  if (now - topic.minute > std::chrono::minutes(1)) topic.minute = now, topic.in_minute = 0;
  if (!urgent && (topic.in_second >= kASecond || topic.in_minute >= kAMinute)) {
    ++topic.left_out;
    return;
  }
  ++topic.in_second, ++topic.in_minute;
  std::string text = line;
  if (topic.left_out > 0) text += " (" + std::to_string(topic.left_out) + " warnings left out)";
  topic.left_out = 0;
  if (current) {
    current(text);
  } else {
    LogWarning(text);
  }
}

}  // namespace

void Notice(const std::string& line, const std::string& topic) { Send(line, topic, false); }
void UrgentNotice(const std::string& line) { Send(line, "", true); }

std::function<void(const std::string&)> SetNoticeSink(
    std::function<void(const std::string&)> sink) {
  MutexLock lock(mu);
  topics.clear();
  return std::exchange(current, std::move(sink));
}

}  // namespace plumb::reward
