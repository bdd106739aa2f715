// Gradients of an update that nothing has been added to yet are not zeroed: the first product that
// gives all of a tensor's writes it.
//
// Purpose: on a GPU zeroing a base's float32 gradients and adding to the zeros moves 8 bytes a
// parameter and update more than writing does. What nobody writes as a whole is zeroed when it is
// first asked for, small tensors all at once; what a backward leaves untouched, at its end. So
// whoever reads gradients behind a backward, or through the optimizer (Settle), sees what was there
// before. Weights lie in their flat buffer.
// Thread safety: one thread. Ownership: borrows the set's state.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "learner/update/optimizer.h"
#include "policy_model/memory/pass_parts.h"

namespace plumb::learner {

class FreshGradients : public policy_model::PassParts {
 public:
  // Of a base whose state.grad is float32 and whole.
  explicit FreshGradients(Optimizer::SetState& state);

  // In the place of zeroing them.
  void BeginUpdate();
  // Zeros where nothing is. Nothing to do where every tensor has something.
  void Settle();

  void Begin(Way) override {}
  void Enter(Way, int64_t) override {}
  void Leave(Way, int64_t) override {}
  void End(Way way) override {
    if (way == Way::kBackward) Settle();
  }
  const void* Weight(int64_t offset) const override;
  float* Gradient(int64_t offset) const override;
  bool TakeEmpty(int64_t offset, int64_t elements) const override;

 private:
  // The number of the tensor that has an offset of the set.
  size_t Find(int64_t offset) const;

  Optimizer::SetState& state_;
  std::vector<int64_t> places_;     // of each tensor; -1: it is frozen
  policy_model::FlatBuffer small_;  // kernels::ZeroRange of those that are zeroed at once
  int64_t small_count_ = 0;
  std::vector<uint8_t> is_small_;       // of each tensor
  mutable std::vector<uint8_t> fresh_;  // nothing is in it
  mutable int64_t left_ = 0;            // of them
};

}  // namespace plumb::learner
