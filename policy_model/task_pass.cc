#include "policy_model/task_pass.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "common/base/error.h"
#include "common/record/task_tokens.h"
#include "policy_model/memory/task_weights.h"

namespace plumb::policy_model {
namespace {

[[noreturn]] void NoTask(const std::string& what, int32_t task, int32_t count) {
  throw Error(ErrorCode::kInvalidArgument,
              what + (task < 0 ? " names no task" : " names task number " + std::to_string(task)) +
                  ": this policy weighs its adapters by one of " + std::to_string(count));
}

}  // namespace

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

void TaskPass::Begin(const Weights& weights, const PackedBatch& batch) {
  if (!Start(weights, batch.tokens.size())) return;
  for (int32_t s = 0; s < batch.sequences(); ++s) {
    const auto at = static_cast<size_t>(s);
    const int32_t task = batch.tasks[at];
    if (task < 0 || task >= count_)
      NoTask("sequence " + std::to_string(s) + " of a batch", task, count_);
    std::fill(task_.begin() + batch.cu_seqlens[at], task_.begin() + batch.cu_seqlens[at + 1], task);
  }
}

void TaskPass::BeginRows(const Weights& weights, std::span<const int32_t> tasks) {
  if (!Start(weights, tasks.size())) return;
  PLUMB_CHECK(!tasks.empty(), "rows of a policy with tasks name theirs");
  for (size_t r = 0; r < tasks.size(); ++r) {
    if (tasks[r] < 0 || tasks[r] >= count_)
      NoTask("row " + std::to_string(r) + " of a step", tasks[r], count_);
    task_[r] = tasks[r];
  }
}

bool TaskPass::Has(int32_t token) const {
  return on_ && IsTaskToken(token) && TaskOf(token) < count_ && TaskPlace(token) < front_;
}

std::span<const int32_t> TaskPass::Known(std::span<const int32_t> tokens) {
  if (!on_ || front_ == 0) return tokens;
  known_.assign(tokens.begin(), tokens.end());
  std::replace_if(known_.begin(), known_.end(), IsTaskToken, 0);
  return known_;
}

void TaskPass::Embed(const Weights& weights, std::span<const int32_t> tokens, void* x) const {
  if (!on_ || front_ == 0) return;
  const ParameterSet& set = *weights.adapters()[gate_.adapter];
  const int64_t hidden = weights.shape().hidden;
  const size_t bytes = static_cast<size_t>(hidden) * ElementSize(weights.dtype());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!IsTaskToken(tokens[i])) continue;
    const int64_t row = TaskOf(tokens[i]) * front_ + TaskPlace(tokens[i]);
    std::memcpy(static_cast<std::byte*>(x) + i * bytes,
                set.flat.at(set.adapter->tasks().tokens + row * hidden), bytes);
  }
}

void TaskPass::Backward(const PackedPass& pass, std::span<const int32_t> tokens, const void* dx) {
  if (!on_) return;
  const ParameterSet& set = *pass.weights.adapters()[gate_.adapter];
  const TaskSlices& at = set.adapter->tasks();
  TaskWeightsBackward(set, weight_, dweight_, pass.grad.OfAdapter(gate_.adapter, at.embedding),
                      pass.grad.OfAdapter(gate_.adapter, at.gate));
  std::fill(dweight_.begin(), dweight_.end(), 0);
  float* grad = front_ == 0 ? nullptr : pass.grad.OfAdapter(gate_.adapter, at.tokens);
  if (!grad) return;
  const int64_t hidden = pass.hidden();
  std::vector<float> row(static_cast<size_t>(hidden));
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!IsTaskToken(tokens[i])) continue;
    ConvertToFloat(static_cast<const std::byte*>(dx) + static_cast<int64_t>(i) * pass.Bytes(hidden),
                   pass.launch.dtype, row);
    float* to = grad + (TaskOf(tokens[i]) * front_ + TaskPlace(tokens[i])) * hidden;
    for (size_t c = 0; c < row.size(); ++c) to[c] += row[c];
  }
}

}  // namespace plumb::policy_model
