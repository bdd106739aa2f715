#include "learner/offline/square_sums.h"

#include <algorithm>

#include "kernels/device/device_memory.h"
#include "kernels/head/picked_logprob.h"

namespace plumb::learner {

void SquareSums::Take(std::span<float> out) {
  std::copy(results_.begin(), results_.end(), out.begin());
}

void SquareSums::Forward(const kernels::Launch& launch, const policy_model::HeadRows& of) {
  const auto rows = static_cast<size_t>(of.rows);
  if (ids_.elements() < of.rows) {
    ids_ = policy_model::FlatBuffer(stream_, DType::kInt32, of.rows);
    best_ = policy_model::FlatBuffer(stream_, DType::kInt32, of.rows);
    logprobs_ = policy_model::FlatBuffer(stream_, DType::kFloat32, of.rows);
    lse_ = policy_model::FlatBuffer(stream_, DType::kFloat32, of.rows);
    const std::vector<int32_t> first(rows, 0);  // the sums are wanted, of whichever token
    kernels::CopyAndWait(launch.stream, ids_.data(), first.data(), rows * sizeof(int32_t));
  }
  once_.resize(rows);
  float* const out = results_.data() + of.first;
  for (const float temperature : {1.0f, 0.5f}) {  // temperature 1/2: logits times 2
    kernels::Call(launch, kernels::PickedLogprob{.logits = of.logits,
                                                 .ids = static_cast<const int32_t*>(ids_.data()),
                                                 .rows = of.rows,
                                                 .vocab = of.vocab,
                                                 .picks = 1,
                                                 .temperature = temperature,
                                                 .logprob = logprobs_.f32(),
                                                 .lse = lse_.f32(),
                                                 .best = static_cast<int32_t*>(best_.data())});
    kernels::CopyAndWait(launch.stream, once_.data(), lse_.f32(), rows * sizeof(float));
    for (size_t r = 0; r < rows; ++r) out[r] += temperature == 1.0f ? -2 * once_[r] : once_[r];
  }
}

}  // namespace plumb::learner
