// What a pass of the transformer needs of a policy with tasks: the adapters' weights for each of
// its rows, the learned tokens in front of a task's rows, and both ways back.
//
// On a GPU the gate's few numbers are computed on the host, which waits for the stream in every
// pass; a step of such a policy is not recorded.
// Thread safety: none. Ownership: keeps its memory from pass to pass; borrows its stream. Errors:
// kInvalidArgument for a sequence that names no task of the policy.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tasks/task_rows.h"
#include "policy_model/layers/stage.h"
#include "policy_model/memory/flat_buffer.h"
#include "policy_model/packing.h"

namespace plumb::policy_model {

class TaskPass {
 public:
  explicit TaskPass(const Stream& stream = Device::kCpu) : stream_(stream) {}

  // Before a packed pass, and before a paged one of rows with these tasks. Without tasks in
  // `weights` neither looks at the others, and nothing below does anything.
  void Begin(const Weights& weights, const PackedBatch& batch);
  void BeginRows(const Weights& weights, std::span<const int32_t> tasks);

  const TaskGate* gate() const { return on_ ? &gate_ : nullptr; }
  // Whether a token is one that the policy has learned an embedding for.
  bool Has(int32_t token) const;
  // The tokens, another one of the vocabulary in the place of tasks'; until the next call.
  std::span<const int32_t> Known(std::span<const int32_t> tokens);
  // Writes the rows of tasks' tokens over x[tokens, H].
  void Embed(const Weights& weights, std::span<const int32_t> tokens, void* x);
  // The same two for tokens that lie in the memory of the device.
  const int32_t* KnownRows(std::span<const int32_t> tokens);
  void EmbedRows(const Weights& weights, std::span<const int32_t> tokens, void* x) const;
  // Adds the gradients of gate, embeddings of tasks and tasks' tokens; dx: T[tokens, H], of x.
  void Backward(const PackedPass& pass, std::span<const int32_t> tokens, const void* dx);

 private:
  // Numbers that the device reads; what lay there is forgotten.
  class Copy {
   public:
    void Put(const Stream& stream, const void* from, size_t bytes);
    void* data() { return memory_.data(); }

   private:
    FlatBuffer memory_;
  };

  bool Start(const Weights& weights, size_t rows);
  void PutTasks();
  kernels::TaskTokenShape Tokens(std::span<const int32_t> tokens, int64_t width) const;
  void Add(std::span<const float> values, float* there);

  const Stream stream_;
  bool on_ = false;
  int32_t count_ = 0;  // of tasks
  int64_t front_ = 0;  // tokens of a task
  TaskGate gate_;
  std::vector<int32_t> task_;    // [rows]
  std::vector<float> weight_;    // [tasks, adapters]
  std::vector<double> dweight_;  // [tasks, adapters]
  std::vector<int32_t> known_;
  // On a GPU.
  Copy task_there_, weight_there_, dweight_there_, tokens_there_, known_there_, sums_there_;
};

}  // namespace plumb::policy_model
