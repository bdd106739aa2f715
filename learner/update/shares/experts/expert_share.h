// This rank's share of a model whose experts are shared out over ranks: some experts of each layer,
// and everything else (policy_model/families/experts/expert_share.h).
//
// What model_share.h says of shares holds of this one, but that a layer is whole: tokens go to the
// ranks of their experts (expert_ranks.h), and nothing is added up on the way.
// Thread safety: one thread. Ownership: borrows the ranks and the whole. Errors: those of
// ExpertShareOf; kUnsupported for adapters; RankLost.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "learner/update/shares/experts/expert_ranks.h"
#include "learner/update/shares/model_share.h"

namespace plumb::learner {

class ExpertShare : public ModelShare {
 public:
  ExpertShare(ExpertRanks& ranks, policy_model::Weights& whole, Whole stays);

  policy_model::TensorGroup* group() override { return nullptr; }
  const char* factor() const override { return "ep"; }
  // All but experts is the same on all ranks of the group.
  void CheckUncut(const std::string& what) const override;
  std::vector<std::byte> Cut(size_t i, size_t element,
                             std::span<const std::byte> whole) const override;
  void Join(size_t i, size_t element, std::span<const std::byte> own,
            std::span<std::byte> whole) const override;
  bool CountsElsewhere(const policy_model::TensorEntry& /*own*/) const override { return false; }
  Ranks* SummandsOf(const policy_model::TensorEntry& /*own*/) const override { return nullptr; }
  // `time/experts_wait` and `moe/sent_bytes`, of this rank.
  void AddTimes(std::map<std::string, double>& metrics) override;

 private:
  ExpertRanks& experts_;
};

// nullptr: `ranks` share no experts out.
std::unique_ptr<ModelShare> MakeExpertShare(ExpertRanks& ranks, policy_model::Weights& whole,
                                            ModelShare::Whole stays);

}  // namespace plumb::learner
