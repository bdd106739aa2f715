// This rank's share of a model that several ranks compute together (tensor parallelism).
//
// Purpose: what trains (transformer, optimizer, objectives) has the share and takes it for a model
// of its own; what loads, saves, compares and hands out has the whole, tensors as files have them.
// The whole lies in memory while it is loaded and while it is saved: Take brings its numbers into
// the share, Spread gives its memory up, Gather brings it back from the shares of all ranks. A
// checkpoint therefore holds nothing of how many ranks there were. Where answers are generated from
// the whole it stays, and is what it was at the last Gather.
// Thread safety: one thread. Ownership: owns the share, borrows the group and the whole. Errors:
// those of ShareOf (policy_model/families/tensor_share.h); kUnsupported for adapters; RankLost.
// Host memory: tensor by tensor.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "learner/ranks/ranks.h"
#include "policy_model/families/tensor_share.h"
#include "policy_model/memory/tensor_group.h"
#include "policy_model/memory/weights.h"

namespace plumb::learner {

class ModelShare : public policy_model::TensorGroup {
 public:
  enum class Whole : uint8_t { kComesAndGoes, kStays };
  // All ranks of the group make it at once. The share has the numbers of `whole` from the start.
  ModelShare(Ranks& group, policy_model::Weights& whole, Whole stays = Whole::kComesAndGoes);

  policy_model::Weights& weights() { return share_; }
  policy_model::Weights& whole() { return whole_; }
  Ranks& ranks() const { return group_; }

  // The whole has been loaded: takes its numbers. The same for another pair of such models.
  void Take() { Take(whole_, share_); }
  void Take(const policy_model::Weights& whole, policy_model::Weights& share) const;
  // Gives the whole's memory up where it does not stay; it has been taken. Brings its numbers back,
  // of all ranks.
  void Spread();
  void Gather();
  // The whole's memory has its numbers as they are.
  bool fresh() const { return stays_ == Whole::kComesAndGoes && !spread(); }
  bool spread() const { return whole_.flat().data() == nullptr; }
  // Of what every rank has all of: the same on all of them, or something went wrong.
  std::string UncutDigest() const;

  // Of entry `i` of both tables: what this rank has of `whole` bytes, `element` a number; and the
  // other way from the parts of all ranks, which all call it.
  std::vector<std::byte> Cut(size_t i, size_t element, std::span<const std::byte> whole) const;
  void Join(size_t i, size_t element, std::span<const std::byte> own,
            std::span<std::byte> whole) const;
  const policy_model::TensorEntry& WholeEntry(size_t i) const {
    return whole_.base().table->entries()[i];
  }

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  void Sum(const Stream& stream, DType dtype, void* values, int64_t n) override;
  void Gather(std::span<const float> own, std::span<float> all) override;

 private:
  Ranks& group_;
  policy_model::Weights& whole_;
  policy_model::Weights share_;
  const Whole stays_;
  std::vector<float> sums_;  // of bfloat16 in the host's memory
};

}  // namespace plumb::learner
