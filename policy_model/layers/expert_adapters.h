// What adapters add to one of the two matrices that every expert of a layer has: y_e += scale B_e
// (A_e x), with a pair of its own for each expert (LowRank::experts).
//
// A part of ExpertsStage, which goes from expert to expert: the matrices of the one at hand are
// taken out of the adapter's layout into scratch memory; on a GPU those of all of them at once.
// Without adapters it does nothing. Thread safety, protocol: stage.h; Plan takes memory before each
// of the three ways of use. Shapes: x T[n, columns], y T[n, rows] of one expert.
#pragma once

#include "kernels/products/expert_products.h"
#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

class ExpertAdapters {
 public:
  using Product = void (*)(const kernels::Launch&, const void*, const void*, int64_t, int64_t,
                           int64_t, bool, void*);
  // `weight`: offset of the matrices of all experts, `rows` of one of them.
  ExpertAdapters(int64_t weight, int64_t rows, int64_t columns)
      : weight_(weight), rows_(rows), columns_(columns) {}

  // Whether the matrices have any.
  bool There(const Pass& pass) const;
  // `n`: most tokens of an expert; on a GPU of all of them.
  void Plan(const Pass& pass, int64_t n, Arena& scratch);
  void Add(Product product, const Pass& pass, Arena& scratch, int32_t expert, int64_t n,
           const void* x, void* y) const;
  // dx += the adapters' part of the gradient of x.
  void BackwardInput(const PackedPass& pass, int32_t expert, int64_t n, const void* dy,
                     void* dx) const;
  void BackwardWeights(const PackedPass& pass, int32_t expert, int64_t n, const void* dy,
                       const void* x) const;

  // The same of all experts, on a GPU: x and y of the rows of `groups`.
  void AddAll(const Pass& pass, Arena& scratch, const kernels::ExpertGroups& groups, const void* x,
              void* y) const;
  void BackwardInputAll(const PackedPass& pass, const kernels::ExpertGroups& groups, const void* dy,
                        void* dx) const;
  void BackwardWeightsAll(const PackedPass& pass, const kernels::ExpertGroups& groups,
                          const void* dy, const void* x) const;

 private:
  const void* TakeAllB(const Pass& pass, Arena& scratch, const ParameterSet& set,
                       const LowRank& part) const;
  const void* TakeB(const Pass& pass, Arena& scratch, const ParameterSet& set, const LowRank& part,
                    int32_t expert) const;

  const int64_t weight_, rows_, columns_;
  // Of the last plan: T[n, rank] twice, B of one expert (of all, on a GPU), its gradient.
  int64_t low_ = 0, dlow_ = 0, b_ = 0, grad_ = 0;
};

}  // namespace plumb::policy_model
