#include "common/net/wire_loop.h"

namespace plumb {

void WireLoop::Start(std::function<Turn()> turn, std::function<void(WireSocket::Incoming&)> take,
                     std::function<void(const Error&)> failed) {
  turn_ = std::move(turn);
  take_ = std::move(take);
  failed_ = std::move(failed);
  thread_ = std::thread([this] { Run(); });
}

void WireLoop::Stop() {
  stop_ = true;
  socket.Wake();
  if (thread_.joinable()) thread_.join();
}

void WireLoop::Run() {
  for (bool last = false; !last;) {
    last = stop_;
    try {
      const Turn next = turn_();
      if (last) return;
      socket.Poll(next.until, next.write, next.take > 0);
      WireSocket::Incoming in;
      for (size_t n = 0; n < next.take && socket.Receive(in); ++n) take_(in);
    } catch (const std::exception& e) {
      Count("thread_errors");
      const auto* error = dynamic_cast<const Error*>(&e);
      failed_(error ? *error
                    : Error(ErrorCode::kIo,
                            std::string("the connection's thread failed: ") + e.what(),
                            socket.endpoint()));
      if (!last)
        std::this_thread::sleep_for(
            std::chrono::milliseconds(20));  // what fails at once fails again at once
    }
  }
}

void WireLoop::Count(const char* name) {
  std::lock_guard lock(mu_);
  ++counters_[name];
}

std::map<std::string, uint64_t> WireLoop::counters() const {
  std::unique_lock lock(mu_);
  auto all = counters_;
  lock.unlock();
  socket.AddCounters(all);
  return all;
}

}  // namespace plumb
