// The micro-batches of a step through the stages of a pipeline, one forward and one backward in
// turns (1F1B).
//
//   stage s of P first makes as many forwards as there are stages behind it, so that the last one
//   has work; then one forward and one backward in turns, which frees the memory of one micro-batch
//   before it takes that of the next; then the backwards that are left. It holds P - s
//   micro-batches at most, each in a slot with a transformer of its own.
// Neighbours exchange what layers give and its gradient: one call of theirs a hand-over, in an
// order that is the same at both ends, both ways at once where both have something. So the order of
// everything, and with it every sum, follows from the number of micro-batches alone.
// Thread safety: one thread. Ownership: owns the slots but for the first's transformer, and what is
// on the way; borrows the ranks. Errors: RankLost. Units: seconds; bytes of a hand-over are those
// of T[T, H], T packed tokens of the micro-batch, in the weights' type.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "learner/ranks/ranks.h"
#include "policy_model/memory/flat_buffer.h"
#include "policy_model/packing.h"
#include "policy_model/stage_ends.h"
#include "policy_model/transformer.h"

namespace plumb::learner {

// Where a micro-batch is between its forward and its backward.
struct PassSlot {
  policy_model::Transformer* transformer = nullptr;
  policy_model::PackedBatch batch = {};
  policy_model::StageEnds ends = {};
};

class Pipeline {
 public:
  // Ranks of `stages` are the stages in their order, and all construct it at once. `vocab`: rows of
  // the whole model's vocabulary.
  Pipeline(Ranks& stages, const Stream& stream, DType dtype, int64_t hidden, int64_t vocab);

  int stage() const { return stages_.rank(); }
  int stages() const { return stages_.size(); }
  bool last() const { return stage() + 1 == stages(); }

  // The first slot's, which makes all other passes, too; others are made like it. Before the first
  // Run.
  void Use(policy_model::Transformer& transformer, bool recompute);
  PassSlot& slot(size_t i);

  // Of micro-batch `i`: lays its tokens down in the slot's batch; makes its pass there.
  using Part = std::function<void(PassSlot& slot, size_t i)>;
  struct Parts {
    Part pack, forward, backward;
  };
  // Micro-batches 0 to `n`, by all stages at once; forwards alone where there is no backward.
  void Run(size_t n, const Parts& parts);

  // `numbers` of the last stage, on all; of the others as many as they will be.
  void ShareLast(std::span<float> numbers);

  // What hand-overs have taken since the last call, in which a stage waits: the bubble. On a GPU 0:
  // nobody waits where it could be measured.
  double TakeWaited();

 private:
  struct Neighbour {
    std::unique_ptr<Ranks> ranks = nullptr;  // both; nullptr: there is none
    policy_model::FlatBuffer room = {};      // what the lower stage gives, then the upper
    bool below = false;
  };
  // Gives `send` bytes and gets `receive`; where those are, until the next call.
  const void* Swap(Neighbour& with, const void* sent, int64_t send, int64_t receive);
  int64_t BytesOf(size_t i) const { return bytes_[i]; }

  Ranks& stages_;
  const Stream stream_;
  const DType dtype_;
  const int64_t hidden_;
  const int64_t vocab_;
  bool recompute_ = false;
  Neighbour below_, above_;
  std::vector<std::unique_ptr<policy_model::Transformer>> made_;
  std::vector<std::unique_ptr<PassSlot>> slots_;
  std::vector<int64_t> bytes_;  // of the micro-batches of a run, as they are handed over
  double waited_ = 0;
};

}  // namespace plumb::learner
