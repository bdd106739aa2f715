#include "learner/optimizer.h"

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "common/error.h"
#include "kernels/adamw.h"

namespace plumb::learner {

using policy_model::FlatBuffer;

Optimizer::Optimizer(policy_model::Weights& weights, const configs::OptimizerConfig& options)
    : weights_(weights), options_(options) {
  const auto& flat = weights.flat();
  const int64_t n = flat.elements();
  grad_ = FlatBuffer(flat.stream(), DType::kFloat32, n);
  m_ = FlatBuffer(flat.stream(), DType::kFloat32, n);
  v_ = FlatBuffer(flat.stream(), DType::kFloat32, n);
  if (flat.dtype() != DType::kFloat32)
    own_master_ = std::make_unique<FlatBuffer>(flat.stream(), DType::kFloat32, n);
  norm_scratch_ = FlatBuffer(flat.stream(), DType::kInt64, kernels::kNormScratch + 1);

  // One byte a block of kDecayBlock elements; carried in a buffer of whole int64 so that it can live on any device.
  const int64_t blocks = (n + kernels::kDecayBlock - 1) / kernels::kDecayBlock;
  decay_mask_ = FlatBuffer(flat.stream(), DType::kInt64, (blocks + 7) / 8);
  std::vector<std::byte> mask(decay_mask_.bytes());
  for (const auto& entry : weights.table().entries()) {
    if (!entry.decay) continue;
    const int64_t first = entry.offset / kernels::kDecayBlock;
    const int64_t last = (entry.offset + entry.elements + kernels::kDecayBlock - 1) / kernels::kDecayBlock;
    std::memset(mask.data() + first, 1, static_cast<size_t>(last - first));
  }
  decay_mask_.CopyFromHost(mask);
  AdoptWeights();
}

void Optimizer::AdoptWeights() {
  if (!own_master_) return;
  const auto& flat = weights_.flat();
  std::vector<std::byte> rounded(flat.bytes());
  flat.CopyToHost(rounded);
  std::vector<float> values(static_cast<size_t>(flat.elements()));
  policy_model::ConvertToFloat(rounded.data(), flat.dtype(), values);
  own_master_->CopyFromHost(std::as_bytes(std::span<const float>(values)));
}

void Optimizer::ResetMoments() {
  m_.Zero();
  v_.Zero();
  moment_steps_ = 0;
}

void Optimizer::Restore(const Counters& counters) {
  updates_ = counters.updates;
  skipped_ = counters.skipped;
  skipped_in_a_row_ = counters.skipped_in_a_row;
}

UpdateResult Optimizer::Update(double learning_rate, double loss, std::optional<double> weight_decay) {
  const int64_t n = grad_.elements();
  kernels::Launch launch{.stream = grad_.stream(), .dtype = weights_.flat().dtype()};
  auto* scratch = static_cast<double*>(norm_scratch_.data());
  double* sum = scratch + kernels::kNormScratch;
  kernels::Call(launch, kernels::SumOfSquares{.grad = grad_.f32(), .n = n, .scratch = scratch,
      .out = sum});
  double squares = 0;
  if (grad_.device() == Device::kCpu) {
    squares = *sum;
  } else {
    std::vector<std::byte> host(norm_scratch_.bytes());
    norm_scratch_.CopyToHost(host);
    std::memcpy(&squares, host.data() + sizeof(double) * kernels::kNormScratch, sizeof squares);
  }

  UpdateResult result;
  result.grad_norm = std::sqrt(squares);
  if (!std::isfinite(loss)) result.why_skipped = "the loss is not finite";
  else if (!std::isfinite(squares)) result.why_skipped = "the gradient is not finite";
  if (!result.why_skipped.empty()) {
    ++skipped_;
    if (++skipped_in_a_row_ >= options_.max_skipped_in_a_row) {
      throw Error(ErrorCode::kNonFinite,
                  std::to_string(skipped_in_a_row_) + " updates in a row were skipped because " + result.why_skipped +
                      "; the last checkpoint holds the last good weights: resume from it with a lower learning rate",
                  "optimizer");
    }
    return result;
  }

  kernels::AdamwOptions adamw{.learning_rate = static_cast<float>(learning_rate),
                              .beta1 = static_cast<float>(options_.beta1),
                              .beta2 = static_cast<float>(options_.beta2),
                              .eps = static_cast<float>(options_.eps),
                              .weight_decay = static_cast<float>(weight_decay.value_or(options_.weight_decay)),
                              .grad_scale = 1.0f,
                              .step = moment_steps_ + 1};
  if (options_.grad_clip > 0 && result.grad_norm > options_.grad_clip) {
    adamw.grad_scale = static_cast<float>(options_.grad_clip / (result.grad_norm + 1e-6));
  }
  kernels::Call(launch, kernels::AdamwUpdate{.master = master().f32(), .m = m_.f32(), .v = v_.f32(),
      .grad = grad_.f32(), .decay_mask = static_cast<const uint8_t*>(decay_mask_.data()), .n = n,
      .options = adamw, .param = own_master_ ? weights_.flat().data() : nullptr});
  ++moment_steps_;
  ++updates_;
  skipped_in_a_row_ = 0;
  result.applied = true;
  return result;
}

}  // namespace plumb::learner
