// ZeRO-2 and 3: of a base's gradients, and of its weights, a rank keeps its part, and has the rest
// of them a layer at a time.
//
//   gradients   a layer's are added up in a room of its own while its backward goes on; then they
//               are reduced to their owners beside the backward of the next layer, each adds its
//               part to what it keeps (SetState::grad), and the room is free again
//   weights     (spread) a layer's are gathered into a room ahead of the pass and given up behind
//               it; head, norm and embedding are there for a whole pass
// There are two rooms for layers, of gradients and of weights, and one each for what stands outside
// of layers. On the CPU a Courier talks to the other ranks meanwhile; on a GPU it is a second
// stream. Every rank goes through the same passes, computing or not (PassParts::PassBy).
// Thread safety: one thread. Ownership: owns the rooms, borrows the set's state. Errors: RankLost.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/device/stream_mark.h"
#include "learner/ranks/courier.h"
#include "learner/update/optimizer.h"
#include "policy_model/memory/pass_parts.h"

namespace plumb::learner {

// The ends of a set's buckets, in elements: the head, each layer from the last, the embedding; of
// an adapter one.
std::vector<int64_t> BucketEnds(const policy_model::ParameterSet& set);

// Elements of rooms: of layers (two of the largest) and of what stands outside.
int64_t RoomElements(const std::vector<int64_t>& bucket_ends);

class PartKeeper : public policy_model::PassParts {
 public:
  // Of a set that is a base, whose state keeps its part of gradients (SetState::grad_in_parts).
  PartKeeper(Optimizer::SetState& state, const Sharing& sharing);
  ~PartKeeper() override;

  // Keeps of the weights this rank's part from now on; the set's flat buffer has no memory then.
  // All of the set is trained.
  void Spread();
  // The other way, of all ranks.
  void Gather();
  bool spread() const { return spread_; }

  void Begin(Way way) override;
  void Enter(Way way, int64_t layer) override;
  void Leave(Way way, int64_t layer) override;
  void End(Way way) override;
  const void* Weight(int64_t offset) const override;
  float* Gradient(int64_t offset) const override;

  bool timed() const { return courier_ != nullptr; }
  // What the ranks' sums and gathers took so far, and how long passes waited for them; on the CPU.
  Courier::Times times() const { return courier_ ? courier_->times() : Courier::Times{}; }

 private:
  // Memory for a bucket at a time.
  struct Room {
    policy_model::FlatBuffer memory = {};
    // The job that fills it (weights) or empties it (gradients): on the CPU, on a GPU.
    Courier::Ticket ticket = 0;
    kernels::StreamMark done{Device::kCpu};
    size_t bucket = 0;
    bool open = false;  // the pass may use it
  };
  // Two for layers, then the head's and the embedding's.
  using Rooms = std::array<Room, 4>;

  size_t BucketOf(int64_t layer) const;
  size_t last_bucket() const { return static_cast<size_t>(layers_) + 1; }
  void Furnish(Rooms& rooms, DType dtype);
  const Room* Find(const Rooms& rooms, int64_t place) const;
  void PostGather(Room& room, size_t bucket);
  void PostReduce(Room& room);
  void Reduce(size_t bucket, float* gradients, const Stream& stream);
  void GatherInto(size_t bucket, void* weights, const Stream& stream);
  void Post(Room& room, std::function<void(const Stream& stream)> job);
  void Wait(const Room& room);

  Optimizer::SetState& state_;
  Ranks& ranks_;
  const Wire wire_;
  const int64_t layers_;
  const Stream stream_;
  bool spread_ = false;
  Rooms gradients_, weights_;
  size_t turn_ = 0;                    // of the rooms for layers' gradients
  std::unique_ptr<Courier> courier_;   // CPU
  std::optional<OwnedStream> beside_;  // CUDA
  kernels::StreamMark here_;           // how far the pass has come
};

}  // namespace plumb::learner
