// The thread of a WireSocket, and what other threads share with it. Private to the transport
// target.
//
// Thread safety: Count, counters, Mailbox, WorkQueue: all; Start and Stop by one thread, once.
// Errors: what is thrown on the socket's thread is counted as thread_errors and handed to `failed`,
// never lost and never the end of the process; the loop goes on.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "common/base/error.h"
#include "common/net/wire_socket.h"
#include "common/record/ports.h"

namespace plumb {

class WireLoop {
 public:
  WireLoop(WireSocket::Kind kind, const std::string& endpoint, WireOptions options)
      : socket(kind, endpoint, std::move(options)) {}
  ~WireLoop() { Stop(); }

  struct Turn {
    Deadline until;      // the next one comes then at the latest
    bool write = false;  // something waits for the socket to take it
    size_t take =
        256;  // messages at most before the next turn; 0: what there is stays with the peers
  };
  // `turn` does what is due: before each wait, and a last time before Stop returns. `take` gets
  // each message.
  void Start(std::function<Turn()> turn, std::function<void(WireSocket::Incoming&)> take,
             std::function<void(const Error&)> failed);
  void Stop();

  void Count(const char* name);
  std::map<std::string, uint64_t> counters() const;

  WireSocket socket;  // the thread's, but for what is everybody's

 private:
  void Run();
  std::function<Turn()> turn_;
  std::function<void(WireSocket::Incoming&)> take_;
  std::function<void(const Error&)> failed_;
  mutable std::mutex mu_;
  std::map<std::string, uint64_t> counters_;  // guarded by mu_
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// What other threads hand to a socket's thread. Outlives the socket in the hands of those who may
// still have something to say.
template <class T>
class Mailbox {
 public:
  explicit Mailbox(WireSocket* socket) : socket_(socket) {}
  void Post(T item) {
    std::lock_guard lock(mu_);
    if (!socket_) return;
    items_.push_back(std::move(item));
    socket_->Wake();
  }
  std::vector<T> Take() {
    std::lock_guard lock(mu_);
    return std::exchange(items_, {});
  }
  void Close() {
    std::lock_guard lock(mu_);
    socket_ = nullptr;
  }

 private:
  std::mutex mu_;
  WireSocket* socket_;    // guarded by mu_
  std::vector<T> items_;  // guarded by mu_
};

// Threads that work what is put in, in its order.
template <class T>
class WorkQueue {
 public:
  WorkQueue(int threads, std::function<void(T)> work) : work_(std::move(work)) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~WorkQueue() { Close(); }
  void Push(T item) {
    std::lock_guard lock(mu_);
    items_.push_back(std::move(item));
    changed_.notify_one();
  }
  size_t size() const {
    std::lock_guard lock(mu_);
    return items_.size();
  }
  // What runs is finished, what waits is let go.
  void Close() {
    {
      std::lock_guard lock(mu_);
      closed_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : std::exchange(threads_, {})) thread.join();
  }

 private:
  void Run() {
    for (std::unique_lock lock(mu_);;) {
      changed_.wait(lock, [&] { return closed_ || !items_.empty(); });
      if (closed_) return;
      T item = std::move(items_.front());
      items_.pop_front();
      lock.unlock();
      work_(std::move(item));
      lock.lock();
    }
  }

  const std::function<void(T)> work_;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::deque<T> items_;  // guarded by mu_
  bool closed_ = false;  // guarded by mu_
  std::vector<std::thread> threads_;
};

}  // namespace plumb
