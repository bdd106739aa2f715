#include "policy_model/task_pass.h"

#include <algorithm>
#include <string>

#include "common/base/error.h"
#include "common/record/task_tokens.h"
#include "kernels/device/device_memory.h"
#include "kernels/embedding.h"
#include "policy_model/memory/task_weights.h"

namespace plumb::policy_model {
namespace {

[[noreturn]] void NoTask(const std::string& what, int32_t task, int32_t count) {
  throw Error(ErrorCode::kInvalidArgument,
              what + (task < 0 ? " names no task" : " names task number " + std::to_string(task)) +
                  ": this policy weighs its adapters by one of " + std::to_string(count));
}

}  // namespace

void TaskPass::Copy::Put(const Stream& stream, const void* from, size_t bytes) {
  if (memory_.bytes() < bytes || memory_.device() != stream.device())
    memory_ = FlatBuffer(stream, DType::kFloat32, static_cast<int64_t>(bytes / 4 + 1));
  kernels::CopyAndWait(stream, memory_.data(), from, bytes);
}

bool TaskPass::Start(const Weights& weights, size_t rows) {
  const int gated = weights.gated();
  on_ = gated >= 0;
  if (!on_) return false;
  const ParameterSet& set = *weights.adapters()[static_cast<size_t>(gated)];
  count_ = static_cast<int32_t>(TasksOf(set));
  front_ = set.adapter->spec().task_tokens;
  TaskWeights(set, weight_);
  dweight_.assign(weight_.size(), 0);
  task_.resize(rows);
  gate_ = {.adapter = static_cast<size_t>(gated),
           .task = task_.data(),
           .weight = weight_.data(),
           .dweight = dweight_.data()};
  return true;
}

// To the device, once all of them are known.
void TaskPass::PutTasks() {
  if (stream_.device().is_cpu()) return;
  task_there_.Put(stream_, task_.data(), 4 * task_.size());
  weight_there_.Put(stream_, weight_.data(), 4 * weight_.size());
  dweight_there_.Put(stream_, dweight_.data(), 8 * dweight_.size());
  gate_.task = static_cast<const int32_t*>(task_there_.data());
  gate_.weight = static_cast<const float*>(weight_there_.data());
  gate_.dweight = static_cast<double*>(dweight_there_.data());
}

void TaskPass::Begin(const Weights& weights, const PackedBatch& batch) {
  if (!Start(weights, batch.tokens.size())) return;
  for (int32_t s = 0; s < batch.sequences(); ++s) {
    const auto at = static_cast<size_t>(s);
    const int32_t task = batch.tasks[at];
    if (task < 0 || task >= count_)
      NoTask("sequence " + std::to_string(s) + " of a batch", task, count_);
    std::fill(task_.begin() + batch.cu_seqlens[at], task_.begin() + batch.cu_seqlens[at + 1], task);
  }
  PutTasks();
}

void TaskPass::BeginRows(const Weights& weights, std::span<const int32_t> tasks) {
  if (!Start(weights, tasks.size())) return;
  PLUMB_CHECK(!tasks.empty(), "rows of a policy with tasks name theirs");
  for (size_t r = 0; r < tasks.size(); ++r) {
    if (tasks[r] < 0 || tasks[r] >= count_)
      NoTask("row " + std::to_string(r) + " of a step", tasks[r], count_);
    task_[r] = tasks[r];
  }
  PutTasks();
}

bool TaskPass::Has(int32_t token) const {
  return on_ && IsTaskToken(token) && TaskOf(token) < count_ && TaskPlace(token) < front_;
}

kernels::TaskTokenShape TaskPass::Tokens(std::span<const int32_t> tokens, int64_t width) const {
  return {.tokens = tokens.data(),
          .rows = static_cast<int64_t>(tokens.size()),
          .width = width,
          .first = kFirstTaskToken,
          .stride = kMostTaskTokens,
          .per_task = static_cast<int32_t>(front_),
          .tasks = count_};
}

std::span<const int32_t> TaskPass::Known(std::span<const int32_t> tokens) {
  if (!on_ || front_ == 0) return tokens;
  known_.assign(tokens.begin(), tokens.end());
  std::replace_if(known_.begin(), known_.end(), IsTaskToken, 0);
  return known_;
}

const int32_t* TaskPass::KnownRows(std::span<const int32_t> tokens) {
  if (stream_.device().is_cpu() || !on_ || front_ == 0) return Known(tokens).data();
  known_.resize(tokens.size());
  known_there_.Put(stream_, known_.data(), 4 * known_.size());  // of that size
  auto* known = static_cast<int32_t*>(known_there_.data());
  kernels::Call({.stream = stream_},
                kernels::KnownTokens{.shape = Tokens(tokens, 0), .known = known});
  return known;
}

void TaskPass::Embed(const Weights& weights, std::span<const int32_t> tokens, void* x) {
  if (!on_ || front_ == 0) return;
  if (!stream_.device().is_cpu()) {
    tokens_there_.Put(stream_, tokens.data(), 4 * tokens.size());
    tokens = {static_cast<const int32_t*>(tokens_there_.data()), tokens.size()};
  }
  EmbedRows(weights, tokens, x);
}

void TaskPass::EmbedRows(const Weights& weights, std::span<const int32_t> tokens, void* x) const {
  if (!on_ || front_ == 0) return;
  const ParameterSet& set = *weights.adapters()[gate_.adapter];
  kernels::Call({.stream = stream_, .dtype = weights.dtype()},
                kernels::EmbedTaskTokens{.shape = Tokens(tokens, weights.shape().hidden),
                                         .table = set.flat.at(set.adapter->tasks().tokens),
                                         .x = x});
}

// Adds to floats in the memory of the device.
void TaskPass::Add(std::span<const float> values, float* there) {
  if (!there) return;
  sums_there_.Put(stream_, values.data(), values.size_bytes());
  kernels::Call({.stream = stream_, .dtype = DType::kFloat32},
                kernels::AddScaled{
                    .x = sums_there_.data(), .n = static_cast<int64_t>(values.size()), .y = there});
}

void TaskPass::Backward(const PackedPass& pass, std::span<const int32_t> tokens, const void* dx) {
  if (!on_) return;
  const ParameterSet& set = *pass.weights.adapters()[gate_.adapter];
  const TaskSlices& at = set.adapter->tasks();
  float* embedding = pass.grad.OfAdapter(gate_.adapter, at.embedding);
  float* gate = pass.grad.OfAdapter(gate_.adapter, at.gate);
  const bool gpu = stream_.device().is_cuda();
  if (gpu) {
    const size_t bytes = 8 * dweight_.size();
    kernels::CopyAndWait(stream_, dweight_.data(), dweight_there_.data(), bytes);
    kernels::Zero(stream_, dweight_there_.data(), bytes);
    constexpr auto kDim = static_cast<size_t>(kTaskDim);
    std::vector<float> e(TasksOf(set) * kDim), g(AdaptersOf(set) * kDim);
    TaskWeightsBackward(set, weight_, dweight_, e.data(), g.data());
    Add(e, embedding);
    Add(g, gate);
  } else {
    TaskWeightsBackward(set, weight_, dweight_, embedding, gate);
  }
  std::fill(dweight_.begin(), dweight_.end(), 0);
  float* grad = front_ == 0 ? nullptr : pass.grad.OfAdapter(gate_.adapter, at.tokens);
  if (!grad) return;
  if (gpu) tokens = {static_cast<const int32_t*>(tokens_there_.data()), tokens.size()};
  kernels::Call(pass.launch, kernels::EmbedTaskTokensBackward{
                                 .shape = Tokens(tokens, pass.hidden()), .d = dx, .grad = grad});
}

}  // namespace plumb::policy_model
