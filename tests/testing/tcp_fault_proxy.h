// Stands between two loopback TCP ends and does to their bytes what networks and dying processes
// do.
//
// Each chunk that passes (up to 512 bytes) may, with the given chances (from a seed, so that a
// failure can be repeated): end the connection after half of it, wait, come twice, vanish, change
// places with the next one, or have a byte changed.
// A partition swallows nothing: bytes wait in the sockets until it heals, as behind a dead switch.
// Thread safety: all methods; one thread of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <random>
#include <thread>

namespace plumb::testing {

struct ProxyFaults {
  double cut = 0, delay = 0, twice = 0, vanish = 0, swap = 0, change = 0;  // chances a chunk, 0..1
  int max_delay_ms = 20;
};

class TcpFaultProxy {
 public:
  TcpFaultProxy(int target_port, ProxyFaults faults, uint64_t seed);
  ~TcpFaultProxy();

  int port() const { return port_; }
  void SetPartitioned(bool partitioned) { partitioned_ = partitioned; }
  void SetHealthy(bool healthy) { healthy_ = healthy; }  // no more faults
  uint64_t faults() const { return faults_done_; }
  uint64_t connections() const { return connections_; }

 private:
  struct Link;
  void Run();
  bool Pump(Link& link);

  const int target_port_;
  const ProxyFaults faults_;
  std::mt19937_64 random_;  // the thread's
  int listener_ = -1;
  int port_ = 0;
  std::list<std::unique_ptr<Link>> links_;  // the thread's
  std::atomic<bool> stop_{false}, partitioned_{false}, healthy_{false};
  std::atomic<uint64_t> faults_done_{0}, connections_{0};
  std::thread thread_;
};

}  // namespace plumb::testing
