// The connections of a rank to every other: bytes both ways at once, with a deadline that names who
// is late.
//
// Purpose: what the collectives of learner/ranks/ranks.h are made of. Every pair of ranks has one
// stream socket: of a private folder where all ranks are on one machine, else TCP. A message says
// which call of which kind it belongs to, so that ranks which have come apart notice it at once
// instead of reading each other's numbers. Goals: a peer that died is seen when its connection
// ends, one that hangs at the deadline, and both are named. Non-goal: secrecy; over TCP the ranks'
// network is trusted, as it is by every collective library (docs/ranks.md). Thread safety: one
// thread a peer: threads that exchange with different ones may do so at once. Ownership: owns its
// sockets. Errors: RankLost names the rank; JoinStopped; kIo where the operating system refuses a
// socket.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/error.h"

namespace plumb::learner {

// Another rank has died, hangs, has ended with an error or computes something else: all ranks end,
// and begin again at the newest checkpoint.
class RankLost : public Error {
 public:
  RankLost(int rank, const std::string& message)
      : Error(ErrorCode::kUnavailable, message, "rank " + std::to_string(rank)), rank_(rank) {}
  int rank() const { return rank_; }

 private:
  int rank_;
};

// This process was asked to end while it waited for the other ranks to come.
class JoinStopped : public Error {
 public:
  JoinStopped() : Error(ErrorCode::kUnavailable, "stopped while it waited for the other ranks") {}
};

// A descriptor that is closed with its owner.
class Socket {
 public:
  explicit Socket(int descriptor = -1) : descriptor_(descriptor) {}
  ~Socket();
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

// Where a rank listens: "unix:PATH" or "tcp:ADDRESS:PORT" (numbers).
struct Listener {
  Socket socket;
  std::string address;
};
Listener ListenOnPath(const std::string& path);
Listener ListenOnAddress(const std::string& address);  // a port of the system's choice

class RankMesh {
 public:
  using Clock = std::chrono::steady_clock;

  // Connects to the ranks below this one and waits for those above it. `secret`: of this group of
  // ranks, so that another's do not join it. `stop`, where there is one, is asked all the while;
  // JoinStopped once it says so.
  RankMesh(int rank, int size, Listener listener,
           const std::function<std::string(int rank)>& address_of, const std::string& secret,
           Clock::time_point deadline, std::function<bool()> stop = {});

  // What goes to a peer and what comes from it; empty: nothing.
  struct Part {
    int peer = 0;
    std::span<const std::byte> send = {};
    std::span<std::byte> receive = {};
  };
  // All parts at once, at most one a peer. `call` and `what` say what this is: both ends have to
  // mean the same, of the same size.
  void Exchange(uint64_t call, std::string_view what, std::span<const Part> parts,
                Clock::time_point deadline);

  // Tells the others, as far as they can be reached, why this rank ends. Throws nothing.
  void SayEnded(const std::string& why) noexcept;

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(peers_.size()); }
  // Of payloads, without the headers of messages.
  int64_t sent_bytes() const;

 private:
  struct Peer {
    Socket socket;
    bool mid_message = false;  // what is sent next would be read as the rest of a message
  };
  struct Lane;
  void Advance(Lane& lane, short events, uint64_t call, std::string_view what);
  using Stop = std::function<bool()>;
  void Connect(int peer, const std::string& address, const std::string& secret,
               Clock::time_point deadline, const Stop& stop);
  void Accept(const Listener& listener, const std::string& secret, Clock::time_point deadline,
              const Stop& stop);
  // Throws why the run ends, where another rank has said so, else that this one is gone.
  [[noreturn]] void Gone(int peer) const;

  const int rank_;
  std::vector<Peer> peers_;  // by rank; this rank's is empty
  int64_t sent_bytes_ = 0;
};

}  // namespace plumb::learner
