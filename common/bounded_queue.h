// A closeable blocking queue with a bound and deadlines.
//
// Thread safety: all methods. Ownership: elements are moved in and out.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace plumb {

template <class T>
class BoundedQueue {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False when there was no room before the deadline or the queue is closed; `value` is then lost unless it was copied.
  bool Push(T value, TimePoint deadline) {
    std::unique_lock lock(mu_);
    if (!room_.wait_until(lock, deadline, [&] { return closed_ || items_.size() < capacity_; })) return false;
    if (closed_) return false;
    items_.push_back(std::move(value));
    lock.unlock();
    filled_.notify_one();
    return true;
  }

  // nullopt at the deadline, or when the queue is closed and empty.
  std::optional<T> Pop(TimePoint deadline) {
    std::unique_lock lock(mu_);
    if (!filled_.wait_until(lock, deadline, [&] { return closed_ || !items_.empty(); })) return std::nullopt;
    if (items_.empty()) return std::nullopt;
    T value = std::move(items_.front());
    items_.pop_front();
    lock.unlock();
    room_.notify_one();
    return value;
  }

  // No more pushes; what is inside can still be popped.
  void Close() {
    {
      std::lock_guard lock(mu_);
      closed_ = true;
    }
    room_.notify_all();
    filled_.notify_all();
  }

  bool closed() const {
    std::lock_guard lock(mu_);
    return closed_;
  }
  size_t size() const {
    std::lock_guard lock(mu_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable std::mutex mu_;
  std::condition_variable room_, filled_;
  std::deque<T> items_;   // guarded by mu_
  bool closed_ = false;   // guarded by mu_
};

}  // namespace plumb
