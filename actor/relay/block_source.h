// Weights in blocks: from the learner, or from actors that have them, and only what has changed.
//
// Purpose: the actor's side of weights.leaves and weights.blocks (common/net/weight_wire.h). The
// learner says what there is and the hashes of its blocks; the blocks come from the first of the
// given places that has them, each checked by its hash as it comes, and the learner is the last
// place. A place that is silent, wrong or away is left, with what came from it kept, and named to
// whoever asks (TakeComplaints); one that has nothing yet is waited for, but not for ever; one that
// takes long is compared with the next, and left where that is much faster.
// With `changes` the sets that change are kept here once more, in the host's memory: a block whose
// hash is that of the kept one is not asked for, others may come as what has changed in them.
// What comes is put on `shelf` for others, while hands_on is set, and always the first version: who
// joins together fetches together.
// Thread safety: Await and Read: one thread; the rest: all. Ownership: owns its connections and
// what it keeps; the shelf is the caller's. Errors: as WeightSource; those of places other than
// the learner are told in the log and counted.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "common/base/mutex.h"
#include "common/net/rpc/rpc.h"
#include "common/net/weight_wire.h"
#include "common/net/weights/block_shelf.h"
#include "common/record/ports.h"

namespace plumb::actor {

struct BlockSourceOptions {
  std::string who;  // this actor
  bool changes = false;
  BlockShelf* shelf = nullptr;                      // borrowed; nullptr: nothing is handed on
  std::chrono::milliseconds silence{5000};          // for one answer of a place
  std::chrono::milliseconds patience{15'000};       // for a place that has nothing yet
  std::chrono::milliseconds compare_after{10'000};  // of waiting for one place
  std::chrono::milliseconds forgive{60'000};        // then a place that was left is asked again
};

class BlockSource : public WeightSource {
 public:
  // `learner`: its endpoint.
  BlockSource(const std::string& learner, RpcClientOptions rpc, BlockSourceOptions options);
  ~BlockSource() override;

  std::optional<WeightOffer> Await(const PolicyVersion& held, Deadline deadline) override;
  bool Read(const Digest& set, std::span<std::byte> into) override;
  void Stop() override;

  // Where to ask before the learner, nearest first, and whether others ask here.
  void SetPlaces(std::vector<weight_wire::Place> places, bool hands_on);
  // Names of places that were silent or wrong since the last call.
  std::vector<std::string> TakeComplaints();
  // actor/weight_bytes: that came; actor/weight_bytes_saved: that did not have to, of sets whose
  // other version was kept; actor/weights_elsewhere: places that were left.
  std::map<std::string, int64_t> counters() const;

 private:
  struct Kept {  // a set, or as much of it as has come
    Digest digest;
    std::vector<BlockHash> leaves;
    std::vector<Payload> blocks;  // empty: not here
  };
  struct Left {  // a place that was left
    std::string name;
    std::chrono::steady_clock::time_point when;
  };
  enum class Got { kSome, kNothingYet, kGone, kWrong, kSilent };
  struct Answer {
    Got got = Got::kSilent;
    std::vector<Payload> blocks;
    std::string why;
    double seconds = 0;
  };

  // Whether what comes is put on the shelf.
  bool HandsOn() const;
  // The places to ask now, those that were left not among them.
  std::vector<weight_wire::Place> Places();
  // nullptr: the learner, whose silence is thrown, unless it is only to be compared.
  Answer Ask(const weight_wire::Place* place, const weight_wire::BlocksQuestion& question,
             bool compares);
  // Checks a block that came and puts it to its place. False: it is not what its hash says.
  bool Take(const Payload& encoded, size_t block, const Kept* base, Kept& arriving,
            std::span<std::byte> into, bool hands_on);
  void Leave(const weight_wire::Place& place, const std::string& why, bool complain);
  void Count(const char* name, int64_t n);
  void CheckStopped() const;  // throws

  const RpcClientOptions rpc_;
  const BlockSourceOptions options_;
  RpcClient learner_;
  // The fetching thread's.
  std::optional<WeightOffer> offer_;
  std::map<std::string, Kept> kept_;  // by the set's name
  uint32_t most_ = 1;                 // blocks of the next question: as many as come in good time
  int64_t versions_ = 0;              // that were begun

  mutable Mutex mu_;
  std::vector<weight_wire::Place> places_ PLUMB_GUARDED_BY(mu_);
  std::vector<Left> left_ PLUMB_GUARDED_BY(mu_);
  std::vector<std::string> complaints_ PLUMB_GUARDED_BY(mu_);
  std::map<std::string, int64_t> counters_ PLUMB_GUARDED_BY(mu_);
  bool hands_on_ PLUMB_GUARDED_BY(mu_) = false;
  bool stopped_ PLUMB_GUARDED_BY(mu_) = false;
  // By endpoint and key; made, used and given up by the fetching thread.
  std::map<std::string, std::unique_ptr<RpcClient>> clients_ PLUMB_GUARDED_BY(mu_);
};

}  // namespace plumb::actor
