// optimizer.gradients = "bfloat16": a base's gradients are kept in two bytes, and of a pass those
// of one layer at a time are there in float32.
//
//   room    float   what a pass adds up of the layer at hand; of what stands outside of layers,
//                   before the first and behind the last of them
//   grad    T[M]    (SetState::grad, bfloat16) what passes before have come to; the room joins it
//                   when the layer is done, with one rounding (kernels/update/narrow_gradients.h)
// On a GPU a product of an update's first pass is written to grad itself, rounded as the room would
// be when it joins: 10 bytes a parameter less to move.
// Of the room a tensor is zeroed when its gradient is first asked for, unless whoever asks writes
// all of it (TakeEmpty); what nobody asked for does not join.
// So every product over the tokens of a micro-batch is summed in float32, as without; what is
// rounded is the sum over micro-batches. Stages, and whoever reads the room, know nothing of it.
// Thread safety: one thread. Ownership: owns the room, borrows the set's state.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <vector>

#include "learner/update/optimizer.h"
#include "policy_model/memory/pass_parts.h"

namespace plumb::learner {

// Elements of the room: of the largest of what is open at a time. `bucket_ends`: as of BucketEnds
// (part_keeper.h), of what is trained; `tied`: the head's product is the embedding's.
int64_t GradientRoomElements(const std::vector<int64_t>& bucket_ends, bool tied);

class GradientRooms : public policy_model::PassParts {
 public:
  // Of a base of layers whose state.grad is bfloat16.
  GradientRooms(Optimizer::SetState& state, bool tied);

  // Before the first pass of an update; `key`: of its roundings.
  void BeginUpdate(uint64_t key);

  void Begin(Way way) override;
  void Enter(Way way, int64_t layer) override;
  void Leave(Way way, int64_t layer) override;
  void End(Way way) override;
  const void* Weight(int64_t offset) const override;
  // In the room, of what is open.
  float* Gradient(int64_t offset) const override;
  bool TakeEmpty(int64_t offset, int64_t elements) const override;
  BFloat16* TakeNarrow(int64_t offset, int64_t elements) const override;

  int64_t bytes() const { return static_cast<int64_t>(room_.bytes()); }

 private:
  // Places [begin, end) of what is trained; their gradients lie at `at` of the room.
  struct Open {
    int64_t begin = 0, end = 0, at = 0;
  };
  // A tensor that something is in, at `at` of the room.
  struct Touched {
    int64_t place = 0, elements = 0, at = 0;
  };
  // The tensor at an offset of the set, opened or not: its place and where it lies in the room;
  // nullopt: it is frozen.
  std::optional<Touched> Find(int64_t offset) const;
  bool IsTouched(const Touched& tensor) const;
  size_t last_bucket() const { return ends_.size() - 1; }
  // Gives what is open to the gradients, and opens these buckets.
  void Turn(std::initializer_list<size_t> buckets);

  Optimizer::SetState& state_;
  const bool tied_;
  const std::vector<int64_t> ends_;  // of buckets, in places
  mutable policy_model::FlatBuffer room_;
  std::vector<Open> open_;
  mutable std::vector<Touched> touched_;
  int64_t backwards_ = 0;  // since BeginUpdate
  uint64_t key_ = 0;
  uint32_t joined_ = 0;  // since BeginUpdate
};

}  // namespace plumb::learner
