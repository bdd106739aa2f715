#include "learner/update/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "common/base/error.h"
#include "kernels/adamw.h"

namespace plumb::learner {

using policy_model::FlatBuffer;

Optimizer::Optimizer(policy_model::Weights& weights, const configs::OptimizerConfig& options,
                     uint64_t seed)
    : options_(options), seed_(seed) {
  const Stream& stream = weights.stream();
  CheckCompact(options, stream.device());
  const bool compact = options.moments == configs::Moments::kInt8;
  for (const auto& set : weights.sets()) {
    if (!set->trained) continue;
    const int64_t n = set->flat.elements();
    // One byte a block of kDecayBlock elements; carried in a buffer of whole int64 so that it can
    // live on any device.
    const int64_t blocks = (n + kernels::kDecayBlock - 1) / kernels::kDecayBlock;
    SetState state{.set = set,
                   .grad = FlatBuffer(stream, DType::kFloat32, n),
                   .decay_mask = FlatBuffer(stream, DType::kInt64, (blocks + 7) / 8)};
    if (compact) {
      state.m8 = CompactMoments(stream, *set->table);
      state.v8 = CompactMoments(stream, *set->table);
    } else {
      state.m = FlatBuffer(stream, DType::kFloat32, n);
      state.v = FlatBuffer(stream, DType::kFloat32, n);
    }
    if (set->flat.dtype() != DType::kFloat32 && options.masters == configs::Masters::kFloat32)
      state.own_master = FlatBuffer(stream, DType::kFloat32, n);
    std::vector<std::byte> mask(state.decay_mask.bytes());
    for (const auto& entry : set->table->entries()) {
      if (!entry.decay) continue;
      const int64_t first = entry.offset / kernels::kDecayBlock;
      const int64_t last =
          (entry.offset + entry.elements + kernels::kDecayBlock - 1) / kernels::kDecayBlock;
      std::memset(mask.data() + first, 1, static_cast<size_t>(last - first));
    }
    state.decay_mask.CopyFromHost(mask);
    sets_.push_back(std::move(state));
  }
  PLUMB_CHECK(!sets_.empty(), "a model of which nothing is trained");
  for (SetState& state : sets_) {
    if (!state.set->adapter) gradients_.base = &state.grad;
  }
  for (const auto& set : weights.adapters()) {
    adapter_grads_.push_back(nullptr);
    for (SetState& state : sets_) {
      if (state.set == set) adapter_grads_.back() = &state.grad;
    }
  }
  gradients_.adapters = adapter_grads_;
  norm_scratch_ = FlatBuffer(stream, DType::kInt64, kernels::kNormScratch + 1);
  AdoptWeights();
}

void Optimizer::ZeroGrad() {
  for (SetState& state : sets_) state.grad.Zero();
}

void Optimizer::AdoptWeights() {
  constexpr int64_t kChunk = int64_t{1} << 22;
  std::vector<std::byte> rounded;
  std::vector<float> values;
  for (SetState& state : sets_) {
    if (!state.has_own_master()) continue;
    const FlatBuffer& flat = state.set->flat;
    for (int64_t at = 0; at < flat.elements(); at += kChunk) {
      const auto n = static_cast<size_t>(std::min(kChunk, flat.elements() - at));
      rounded.resize(n * ElementSize(flat.dtype()));
      values.resize(n);
      flat.CopyToHost(rounded, at);
      policy_model::ConvertToFloat(rounded.data(), flat.dtype(), values);
      state.own_master.CopyFromHost(std::as_bytes(std::span<const float>(values)), at);
    }
  }
}

void Optimizer::ResetMoments() {
  for (SetState& state : sets_) {
    for (FlatBuffer* buffer : state.moments()) buffer->Zero();
  }
  moment_steps_ = 0;
  left_out_.reset();
}

void Optimizer::Restore(const Counters& counters) {
  updates_ = counters.updates;
  skipped_ = counters.skipped;
  skipped_in_a_row_ = counters.skipped_in_a_row;
}

// Of the gradients of all sets.
double Optimizer::SumOfSquares() {
  auto* scratch = static_cast<double*>(norm_scratch_.data());
  double* sum = scratch + kernels::kNormScratch;
  double total = 0;
  for (SetState& state : sets_) {
    kernels::Call(
        {.stream = state.grad.stream(), .dtype = state.set->flat.dtype()},
        kernels::SumOfSquares{
            .grad = state.grad.f32(), .n = state.grad.elements(), .scratch = scratch, .out = sum});
    double squares = 0;
    norm_scratch_.CopyToHost(std::as_writable_bytes(std::span(&squares, 1)), kernels::kNormScratch);
    total += squares;
  }
  return total;
}

std::vector<FlatBuffer*> Optimizer::SetState::moments() {
  if (m.elements() > 0) return {&m, &v};
  return {&m8.codes(), &m8.scales(), &v8.codes(), &v8.scales()};
}

// Tensor by tensor, because their blocks are their own.
void Optimizer::UpdateCompact(size_t set, const kernels::AdamwOptions& adamw) {
  SetState& state = sets_[set];
  FlatBuffer& flat = state.set->flat;
  const auto& entries = state.set->table->entries();
  for (size_t i = 0; i < entries.size(); ++i) {
    const auto& entry = entries[i];
    const auto moment = [&](FlatBuffer& exact, CompactMoments& compact) {
      return exact.elements() > 0 ? kernels::MomentState{.exact = exact.f32() + entry.offset}
                                  : compact.Of(i);
    };
    const bool own = state.has_own_master(), is_float = flat.dtype() == DType::kFloat32;
    kernels::Call({.stream = flat.stream(), .dtype = flat.dtype()},
                  kernels::AdamwCompact{
                      .param = is_float ? nullptr : flat.at(entry.offset),
                      .master = own || is_float ? state.master().f32() + entry.offset : nullptr,
                      .m = moment(state.m, state.m8),
                      .v = moment(state.v, state.v8),
                      .grad = state.grad.f32() + entry.offset,
                      .decay = entry.decay,
                      .n = entry.elements,
                      .options = adamw,
                      .seed = seed_,
                      .set = static_cast<uint32_t>(set),
                      .draw_step = static_cast<uint32_t>(updates_),
                      .first = entry.offset});
  }
}

UpdateResult Optimizer::Update(double learning_rate, double loss,
                               std::optional<double> weight_decay) {
  const double squares = SumOfSquares();
  UpdateResult result;
  result.grad_norm = std::sqrt(squares);
  if (!std::isfinite(loss)) result.why_skipped = "the loss is not finite";
  else if (!std::isfinite(squares)) result.why_skipped = "the gradient is not finite";
  if (!result.why_skipped.empty()) {
    ++skipped_;
    if (++skipped_in_a_row_ >= options_.max_skipped_in_a_row) {
      throw Error(ErrorCode::kNonFinite,
                  std::to_string(skipped_in_a_row_) + " updates in a row were skipped because " +
                      result.why_skipped +
                      "; the last checkpoint holds the last good weights: resume from it with a "
                      "lower learning rate",
                  "optimizer");
    }
    return result;
  }

  kernels::AdamwOptions adamw{
      .learning_rate = static_cast<float>(learning_rate),
      .beta1 = static_cast<float>(options_.beta1),
      .beta2 = static_cast<float>(options_.beta2),
      .eps = static_cast<float>(options_.eps),
      .weight_decay = static_cast<float>(weight_decay.value_or(options_.weight_decay)),
      .grad_scale = 1.0f,
      .step = moment_steps_ + 1};
  if (options_.grad_clip > 0 && result.grad_norm > options_.grad_clip) {
    adamw.grad_scale = static_cast<float>(options_.grad_clip / (result.grad_norm + 1e-6));
  }
  for (size_t i = 0; i < sets_.size(); ++i) {
    SetState& state = sets_[i];
    FlatBuffer& flat = state.set->flat;
    if (state.compact()) {
      UpdateCompact(i, adamw);
      continue;
    }
    kernels::Call(
        {.stream = flat.stream(), .dtype = flat.dtype()},
        kernels::AdamwUpdate{.master = state.master().f32(),
                             .m = state.m.f32(),
                             .v = state.v.f32(),
                             .grad = state.grad.f32(),
                             .decay_mask = static_cast<const uint8_t*>(state.decay_mask.data()),
                             .n = flat.elements(),
                             .options = adamw,
                             .param = state.has_own_master() ? flat.data() : nullptr});
  }
  ++moment_steps_;
  left_out_.reset();
  ++updates_;
  skipped_in_a_row_ = 0;
  result.applied = true;
  return result;
}

}  // namespace plumb::learner
