// Ranks as threads of a test: each with connections of its own through a private folder.
#pragma once

#include <chrono>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "learner/ranks/rendezvous.h"
#include "policy_model/memory/threads.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {

// Runs `body` as each of `size` ranks and waits for all; one rank: with nullptr. What a rank threw,
// by rank; nullptr: nothing.
inline std::vector<std::exception_ptr> TryAsRanks(
    int size, const std::function<void(Ranks* ranks)>& body,
    std::chrono::milliseconds patience = std::chrono::seconds(60)) {
  std::vector<std::exception_ptr> thrown(static_cast<size_t>(size));
  const testing::TempFolder folder;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      policy_model::UseThreads(1);
      std::unique_ptr<Ranks> ranks;
      try {
        if (size > 1) ranks = JoinInFolder(folder.path(), rank, size, patience);
        body(ranks.get());
      } catch (const std::exception& e) {
        if (ranks) ranks->SayEnded(e.what());
        thrown[static_cast<size_t>(rank)] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

inline void AsRanks(int size, const std::function<void(Ranks* ranks)>& body) {
  for (const std::exception_ptr& each : TryAsRanks(size, body)) {
    if (each) std::rethrow_exception(each);
  }
}

}  // namespace plumb::learner
