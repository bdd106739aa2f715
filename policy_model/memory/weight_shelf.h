// Copies of the newest published weights, where the learner computes, which actors of this machine
// take from there.
//
// Purpose: the learner goes on to change its weights as soon as they are put here; an actor copies
// when it gets to it, on another GPU without a way through the host. Each set has one place, which
// the next version of it is written to; that waits for who reads there, but not for long: a reader
// that died would hold up the learner. One that was overtaken finds another digest, and asks again.
// Thread safety: all methods. Ownership: owns its memory and a stream a device. Errors:
// kUnavailable where memory ends; kIo of CUDA.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "common/base/mutex.h"
#include "common/record/ports.h"
#include "kernels/device/lent_memory.h"

namespace plumb::policy_model {

class WeightShelf {
 public:
  explicit WeightShelf(std::chrono::milliseconds patience = std::chrono::seconds(2))
      : patience_(patience) {}

  // All sets of a version; those without bytes are as they were. They are here when it returns.
  void Put(std::span<const WeightSet> sets);
  // Bytes of a set that is here; nullopt: it is not.
  std::optional<uint64_t> Size(const Digest& set);
  // A handle of it, to be given back as soon as it has been copied.
  std::optional<std::string> Lend(const Digest& set);
  void Return(const Digest& set);
  // A copy to the host's memory, of a set that is as large. False: it is not here.
  bool Read(const Digest& set, std::span<std::byte> into);

 private:
  struct Place {
    Digest digest;
    std::unique_ptr<kernels::LentMemory> memory;
    int readers = 0;
  };
  Place* Find(const Digest& set) PLUMB_REQUIRES(mu_);

  const std::chrono::milliseconds patience_;
  Mutex mu_;
  CondVar returned_;
  std::map<std::string, Place> places_ PLUMB_GUARDED_BY(mu_);  // by the set's name
  std::map<int, OwnedStream> streams_ PLUMB_GUARDED_BY(mu_);   // by the GPU's number
};

}  // namespace plumb::policy_model
