// Sets of weights in blocks, for whoever asks for them: at the learner, and at an actor that hands
// on what it gets.
//
// Purpose: a set stands here as a whole or block by block while it arrives, each block as it is
// and, where that is shorter, as what has changed since the version before
// (common/net/weights/block_change.h). Answers weights.blocks (common/net/weight_wire.h).
// Memory: the sets of the newest version, what has changed in them, and of each set at most one
// older version: the one that somebody is in the middle of. A slow receiver so gets to the end of
// what it began, however often weights are published; one that begins then is told of the newest.
// Thread safety: all methods. Ownership: shares the bytes it is given. Errors: kNotFound for a set
// that is not here and is not to come.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "common/base/hash/digest.h"
#include "common/base/mutex.h"
#include "common/net/weight_wire.h"
#include "common/record/payload.h"
#include "common/record/ports.h"

namespace plumb {

struct BlockShelfOptions {
  // Somebody who is in the middle of a set and has not asked for so long has gone.
  std::chrono::milliseconds gone_after{30'000};
  size_t answer_bytes = size_t{8} << 20;  // one answer goes on until it is so large
};

class BlockShelf {
 public:
  explicit BlockShelf(BlockShelfOptions options = {}) : options_(options) {}

  // A version begins: of the sets here those that are not among `kept` are of the past.
  void Open(int64_t version, std::span<const Digest> kept);
  // One of its sets is to come; `base`: the digest of what its changes are since, or empty.
  void Begin(const std::string& name, const Digest& set, uint64_t bytes, const Digest& base);
  // A block of it has come. `change`: as block_change.h has it; empty: it is handed on whole.
  void Put(const Digest& set, size_t block, Payload whole, Payload change);
  // All of the version that comes has come.
  void Close();

  // What is here of the blocks that are asked for, as EncodeBlocks has it, as soon as there is one;
  // none of them at the deadline: none.
  std::string Answer(const weight_wire::BlocksQuestion& question, Deadline deadline);
  // A block of the newest version; empty: it is not here.
  Payload Block(const Digest& set, size_t block) const;

  // weight_bytes: given out; weight_bytes_saved: that what has changed was shorter than whole.
  std::map<std::string, int64_t> counters() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Set {
    std::string name;
    Digest base;
    uint64_t bytes = 0;
    std::vector<Payload> whole, change;
    std::map<std::string, Clock::time_point> busy;  // who is in the middle of it, last heard of
    bool past = false;
  };
  // What is of the past goes once nobody is in the middle of it.
  void Sweep() PLUMB_REQUIRES(mu_);

  const BlockShelfOptions options_;
  mutable Mutex mu_;
  CondVar changed_;
  std::map<Digest, Set> sets_ PLUMB_GUARDED_BY(mu_);
  int64_t newest_ PLUMB_GUARDED_BY(mu_) = -1;
  bool open_ PLUMB_GUARDED_BY(mu_) = false;  // more of the newest version is to come
  int64_t given_ PLUMB_GUARDED_BY(mu_) = 0, saved_ PLUMB_GUARDED_BY(mu_) = 0;
};

}  // namespace plumb
