// A policy whose adapters are weighed by the task of a row, on CUDA against the CPU, which
// task_pass_test.cc holds to finite differences: log-probs, gradients of adapters, gate, embeddings
// and learned tokens.
//
// Tolerance: float32 sums in another order through two layers (families_cuda_test.cc).
#include <gtest/gtest.h>

#include <cmath>
#include <span>

#include "common/base/rng.h"
#include "common/record/task_tokens.h"
#include "policy_model/task_pass.h"
#include "policy_model/transformer.h"
#include "tests/policy_model/task_model.h"

namespace plumb::policy_model {
namespace {

using testing::TaskModel;
using testing::TaskShape;
using testing::TaskSpec;

constexpr double kTolerance = 1e-4;

PackedBatch Batch(int64_t task_tokens) {
  PackedBatch batch;
  batch.Clear();
  batch.task_tokens = task_tokens > 0;
  RandomStream random(3, 1);
  for (const auto& [task, n] : {std::pair{1, 13}, {0, 21}, {0, 4}, {1, 30}}) {
    std::vector<int32_t> row = TaskFront(task, task_tokens);
    const size_t front = row.size();
    for (int i = 0; i < n; ++i) row.push_back(static_cast<int32_t>(random.NextBelow(31)));
    std::vector<uint8_t> mask(row.size(), 1);
    std::fill_n(mask.begin(), front + 1, uint8_t{0});
    batch.Append(row, mask, 0);
  }
  return batch;
}

// The CPU's policy on a device.
Weights There(const Weights& cpu, const AdapterSpec& spec, const Stream& stream) {
  Weights weights(cpu.shape(), stream, DType::kFloat32);
  std::vector<std::byte> bytes(cpu.flat().bytes());
  cpu.flat().CopyToHost(bytes);
  weights.flat().CopyFromHost(bytes);
  weights.AddAdapter(spec, 5);
  bytes.resize(cpu.adapters()[0]->flat.bytes());
  cpu.adapters()[0]->flat.CopyToHost(bytes);
  weights.adapters()[0]->flat.CopyFromHost(bytes);
  return weights;
}

struct Numbers {
  std::vector<float> logprob, grad;
};

Numbers RunModel(const Weights& weights, const Stream& stream, int64_t task_tokens) {
  Transformer model(weights.shape(), stream, DType::kFloat32);
  const PackedBatch batch = Batch(task_tokens);
  Numbers out;
  out.logprob.resize(batch.rows.size());
  std::vector<float> g;
  RandomStream random(5, 5);
  for (size_t i = 0; i < batch.rows.size(); ++i) g.push_back(random.NextNormal());
  FlatBuffer own(stream, DType::kFloat32, weights.adapters()[0]->flat.elements());
  FlatBuffer* const owns[] = {&own};
  Gradients gradients;
  gradients.adapters = owns;
  for (int micro = 0; micro < 2; ++micro) {  // gradients are added up
    model.Forward(weights, batch, {.entropy = false}, true, out.logprob, {});
    model.Backward(weights, batch, g, {}, gradients);
  }
  out.grad.resize(static_cast<size_t>(own.elements()));
  own.CopyToHost(std::as_writable_bytes(std::span<float>(out.grad)));
  return out;
}

double Norm(std::span<const float> a, std::span<const float> b = {}) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double less = b.empty() ? 0 : static_cast<double>(b[i]);
    sum += std::pow(static_cast<double>(a[i]) - less, 2);
  }
  return std::sqrt(sum);
}

TEST(TaskCuda, LogProbsAndGradientsAreTheCpus) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: policies with tasks were NOT run on CUDA";
  const OwnedStream stream(Device::Cuda(0));
  for (const int64_t task_tokens : {0, 2}) {
    const AdapterSpec spec = TaskSpec(task_tokens);
    const Weights cpu = TaskModel(spec), cuda = There(cpu, spec, stream);
    const Numbers want = RunModel(cpu, Device::kCpu, task_tokens),
                  got = RunModel(cuda, stream, task_tokens);
    EXPECT_LT(Norm(got.logprob, want.logprob), kTolerance * Norm(want.logprob));
    size_t of_tasks = 0;
    for (const TensorEntry& e : cpu.adapters()[0]->table->entries()) {
      const auto at = static_cast<size_t>(e.offset), n = static_cast<size_t>(e.elements);
      const auto a = std::span(got.grad).subspan(at, n), b = std::span(want.grad).subspan(at, n);
      of_tasks += e.name.starts_with("task_");
      EXPECT_GT(Norm(b), 0) << e.name;
      EXPECT_LT(Norm(a, b), kTolerance * Norm(b) + 1e-6 * Norm(want.grad)) << e.name;
    }
    EXPECT_EQ(of_tasks, task_tokens > 0 ? 3u : 2u);
  }
}

}  // namespace
}  // namespace plumb::policy_model
