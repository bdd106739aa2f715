// This rank's share of a model that several ranks compute together (tensor parallelism).
//
// Purpose: what trains (transformer, optimizer, objectives) has the share and takes it for a model
// of its own; what loads, saves, compares and hands out has the whole, tensors as files have them.
// The whole lies in memory while it is loaded and while it is saved: Take brings its numbers into
// the share, Spread gives its memory up, Gather brings it back from the shares of all ranks. A
// checkpoint therefore holds nothing of how many ranks there were. Where answers are generated from
// the whole it stays, and is what it was at the last Gather.
// A stage of a pipeline is a share, too, whose tensors are whole or not there
// (stages/model_stage.h); what the optimizer and its files ask of either is virtual.
// Thread safety: one thread. Ownership: owns the share, borrows the group and the whole. Errors:
// those of ShareOf (policy_model/families/tensor_share.h); kUnsupported for adapters; RankLost.
// Host memory: tensor by tensor.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
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
  virtual ~ModelShare() = default;

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
  // Who computes every layer together; nullptr: layers are whole (Transformer::SetGroup).
  virtual policy_model::TensorGroup* group() { return this; }
  virtual const char* factor() const { return "tp"; }  // of run.parallel
  // Of what several ranks have all of: throws RankLost naming those that differ.
  virtual void CheckUncut(const std::string& what) const;

  // Of tensor `i` of the whole: what this rank has of its bytes, `element` a number; and the other
  // way from the parts of all ranks, which all call it.
  virtual std::vector<std::byte> Cut(size_t i, size_t element,
                                     std::span<const std::byte> whole) const;
  virtual void Join(size_t i, size_t element, std::span<const std::byte> own,
                    std::span<std::byte> whole) const;
  const policy_model::TensorEntry& WholeEntry(size_t i) const {
    return whole_.base().table->entries()[i];
  }
  size_t tensors() const { return whole_.base().table->entries().size(); }
  // The share's entry for it; nullptr: nothing of it is here.
  virtual const policy_model::TensorEntry* Own(size_t i) const {
    return &share_.table().entries()[i];
  }
  // Of a tensor of the share: the norm of the gradient counts it on another rank; and the ranks
  // that each have a summand of its gradient (nullptr: there is one summand).
  virtual bool CountsElsewhere(const policy_model::TensorEntry& own) const {
    return rank() > 0 && !policy_model::IsCut(own);
  }
  virtual Ranks* SummandsOf(const policy_model::TensorEntry& own) const {
    return policy_model::GradientIsSummand(own) ? &group_ : nullptr;
  }
  // What a step took beside computing, of all ranks, which all call it.
  virtual void AddTimes(std::map<std::string, double>& /*metrics*/) {}

  int rank() const override { return group_.rank(); }
  int size() const override { return group_.size(); }
  void Sum(const Stream& stream, DType dtype, void* values, int64_t n) override;
  void Gather(std::span<const float> own, std::span<float> all) override;

 protected:
  // `share`: has no numbers yet; whoever made it takes them.
  ModelShare(Ranks& group, policy_model::Weights& whole, policy_model::Weights share, Whole stays);
  const policy_model::Weights& share() const { return share_; }

 private:
  Ranks& group_;
  policy_model::Weights& whole_;
  policy_model::Weights share_;
  const Whole stays_;
  std::vector<float> sums_;  // of bfloat16 in the host's memory
};

}  // namespace plumb::learner
