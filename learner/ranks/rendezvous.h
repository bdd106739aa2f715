// How ranks find each other.
//
//   one machine   a private folder: rank r listens at FOLDER/rank-r.sock (roles = "processes")
//   any           MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE and LOCAL_RANK, as torchrun, Slurm and
//                 Kubernetes set them: a key-value store of LibTorch (TCPStore) at that address, in
//                 which each rank writes where it listens. Rank 0 serves the store, unless torchrun
//                 does (TORCHELASTIC_USE_AGENT_STORE)
// Thread safety: one thread. Errors: RankLost for a rank that does not come, kInvalidArgument for
// an environment that is none, kUnavailable where the store cannot be reached, or something else
// answers there, JoinStopped. A call of the store that hangs is left to a thread of its own, which
// ends with it or the process.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "learner/ranks/ranks.h"

namespace plumb::learner {

struct RankPlace {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the ranks of this machine
};

struct RankEnvironment : RankPlace {
  std::string master;
  int port = 0;
  bool store_is_there = false;
  int restarts = 0;  // of the whole group, by torchrun
};

inline constexpr int kMostRanks = 1024;  // as of run.parallel

// nullopt: no ranks are named, or WORLD_SIZE is 1. `get` as std::getenv.
std::optional<RankEnvironment> ReadRankEnvironment(
    const std::function<const char*(const char*)>& get);

// Both wait for all ranks, at most `patience`, and as long for each call of the ranks later. `stop`
// is asked while they wait, by the calling thread.
std::unique_ptr<Ranks> JoinByEnvironment(const RankEnvironment& environment,
                                         std::chrono::milliseconds patience,
                                         const std::function<bool()>& stop = {});
std::unique_ptr<Ranks> JoinInFolder(const std::string& folder, int rank, int size,
                                    std::chrono::milliseconds patience,
                                    const std::function<bool()>& stop = {});

}  // namespace plumb::learner
