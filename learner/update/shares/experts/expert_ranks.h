// The ranks of a learner that share out the experts of a model (expert parallelism).
//
//   ep = 2, dp = 2      expert groups   {0, 1} {2, 3}     neighbours: they talk most
//                       alike           {0, 2} {1, 3}     have the same experts
// All of them share out batches: each has micro-batches of its own, and everything but experts as
// under dp. Within a group rows go to the rank that has their expert (Exchange); over ranks that
// are alike the experts' gradients are added up.
// Thread safety: one thread. Ownership: owns the groups, borrows the ranks. Errors:
// kInvalidArgument where ep does not divide the ranks, or those of one machine, where it is known
// how many they are; RankLost. Units: seconds, and bytes that went to other ranks.
#pragma once

#include <memory>

#include "configs/config.h"
#include "learner/ranks/ranks.h"
#include "learner/update/optimizer.h"
#include "policy_model/memory/expert_group.h"

namespace plumb::learner {

class ExpertRanks : public policy_model::ExpertGroup {
 public:
  // `all`: nullptr: there is one rank. `here`: how many of them are on this rank's machine; 1:
  // perhaps nobody has said.
  ExpertRanks(Ranks* all, int ep, int here);

  // Experts are shared out.
  bool there() const { return group_ != nullptr; }
  Ranks& group() const { return *group_; }
  // nullptr: no other rank has these experts.
  Ranks* alike() const { return alike_.get(); }
  // For the transformer; nullptr: all experts are here.
  policy_model::ExpertGroup* exchange() { return there() ? this : nullptr; }

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  void Exchange(std::span<const std::byte> out, std::span<const int64_t> to,
                std::span<std::byte> in, std::span<const int64_t> from) override;

  // Since the last call: what exchanges took, waiting for other ranks with it, and what went out.
  struct Traffic {
    double seconds = 0;
    int64_t bytes = 0;
  };
  Traffic Take();

 private:
  std::unique_ptr<Ranks> group_, alike_;
  Traffic traffic_;
};

// Of ranks that share out batches, `experts` among them.
Sharing SharingOf(const configs::Config& config, Ranks* ranks, ModelShare* share,
                  const ExpertRanks& experts);

}  // namespace plumb::learner
