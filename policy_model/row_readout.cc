#include "policy_model/row_readout.h"

#include <ATen/ATen.h>

#include <tuple>

#include "kernels/head/picked_logprob.h"
#include "policy_model/layers/ops.h"
#include "policy_model/memory/torch_stream.h"

namespace plumb::policy_model {

void LikeliestTokens(const kernels::Launch& launch, const float* logits, int64_t rows,
                     int64_t vocab, int64_t count, int32_t* ids) {
  if (launch.device().is_cpu()) {
    kernels::Call(launch,
                  kernels::TopTokens{
                      .logits = logits, .rows = rows, .vocab = vocab, .count = count, .ids = ids});
    return;
  }
  const OnStream here(launch.stream);
  const c10::InferenceMode guard;
  const auto options = at::TensorOptions().device(TorchDevice(launch.device()));
  const at::Tensor all =
      at::from_blob(const_cast<float*>(logits), {rows, vocab}, options.dtype(at::kFloat));
  const auto [values, places] = at::topk(all, count, /*dim=*/1);
  at::from_blob(ids, {rows, count}, options.dtype(at::kInt))
      .copy_(at::where(at::isneginf(values), at::full_like(places, -1), places));
}

void MapHidden(const kernels::Launch& launch, const void* hidden, const void* map, int64_t rows,
               int64_t width, int64_t to, float* out) {
  ops::LinearToFloat(launch, hidden, map, rows, to, width, out);
}

}  // namespace plumb::policy_model
