// One branch on the residual stream: x += scale * behind(f(before(x))), where either norm may be
// missing and scale is mostly 1.
//
// Saved for the backward: x and what the norms need; the normed input is computed again.
// Thread safety, protocol: stage.h. Shapes: x, out, dx: T[T, H].
#pragma once

#include <memory>
#include <vector>

#include "policy_model/layers/norm.h"
#include "policy_model/layers/stage.h"

namespace plumb::policy_model {

class Branch {
 public:
  Branch(NormLayer before, std::unique_ptr<Stage> stage, NormLayer behind, float scale = 1)
      : before_(before), behind_(behind), stage_(std::move(stage)), scale_(scale) {}

  void PlanForward(const PackedPass& pass);
  // out may be x where nothing is kept; without pass.output it is written to or not.
  void Forward(const PackedPass& pass, const void* x, void* out);
  void PlanBackward(const PackedPass& pass);
  // dx: the gradient of out; becomes that of x.
  void Backward(const PackedPass& pass, const void* x, void* dx);
  void PlanStep(const PagedPass& pass);
  void Step(const PagedPass& pass, void* x);

 private:
  // What the stage gives goes through memory of its own before it is added.
  bool apart(const Pass& pass) const { return behind_.there() || scale_ != 1 || pass.group; }

  NormLayer before_, behind_;
  std::unique_ptr<Stage> stage_;
  const float scale_;
  // saved; y: what the stage gave, where a norm is behind
  int64_t rstd_before_ = 0, rstd_behind_ = 0, y_ = 0;
  // scratch of the forward; joining: what is added, where it is not added in place
  int64_t norm_ = 0, joining_ = 0;
  int64_t norm_again_ = 0, dnorm_ = 0, dscaled_ = 0, dy_ = 0;  // scratch of the backward
  int64_t step_norm_ = 0, step_y_ = 0;                         // scratch of the step
};

inline constexpr size_t kBranchesALayer = 2;

// The two branches of every layer of the plan, in order: attention, feed-forward.
std::vector<Branch> BranchesOf(const TensorTable& table);
// The norm in front of the head.
NormLayer FinalNormOf(const TensorTable& table);
// What embeddings are multiplied by, as the family rounds it.
float EmbeddingScaleOf(const TensorTable& table, DType dtype);

}  // namespace plumb::policy_model
