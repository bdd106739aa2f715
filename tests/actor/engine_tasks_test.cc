// Rows of several tasks in one batch: each gets the adapters as its own task weighs them.
#include <gtest/gtest.h>

#include <map>

#include "actor/engine.h"
#include "common/base/error.h"
#include "common/record/task_tokens.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using Samples = std::map<std::pair<uint64_t, uint32_t>, GeneratedSample>;  // by (request, sample)

policy_model::Weights TaskWeights(int64_t task_tokens) {
  policy_model::Weights weights = TinyWeights();
  weights.AddAdapter(
      {.rank = 4, .alpha = 8, .adapters = 3, .tasks = {"code", "sums"}, .task_tokens = task_tokens},
      5);
  policy_model::ParameterSet& set = *weights.adapters()[0];
  RandomStream random(9, 9);
  for (const auto& e : set.table->entries()) {
    const bool b = e.name.ends_with("lora_B"), gate = e.name == "task_gate";
    for (int64_t i = 0; (b || gate) && i < e.elements; ++i)
      set.flat.f32()[e.offset + i] = (b ? 0.1f : 3.0f) * random.NextNormal();
  }
  return weights;
}

std::vector<GenerateRequest> Requests(int64_t task_tokens) {
  std::vector<GenerateRequest> requests = MixedRequests(16);
  for (GenerateRequest& r : requests) {
    const auto front = TaskFront(static_cast<int32_t>(r.id % 2), task_tokens);
    r.tokens.insert(r.tokens.begin(), front.begin(), front.end());
  }
  return requests;
}

EngineOptions Options(int64_t task_tokens, int32_t tasks = 2) {
  EngineOptions options = TinyOptions();
  options.tasks = tasks;
  options.task_tokens = static_cast<int32_t>(task_tokens);
  return options;
}

Samples Generate(const EngineOptions& options, const policy_model::Weights& weights,
                 const std::vector<GenerateRequest>& requests) {
  Engine engine(weights.shape(), weights.flat().stream(), DType::kFloat32, options);
  for (const GenerateRequest& r : requests) engine.Submit(r);
  while (engine.Step(weights, 0)) {
  }
  Samples out;
  for (GenerateResult& r : engine.TakeFinished()) {
    for (GeneratedSample& s : r.samples) out.emplace(std::pair(r.id, s.sample), std::move(s));
  }
  EXPECT_EQ(engine.free_pages(), engine.num_pages());
  return out;
}

TEST(EngineTasks, ARowDoesNotDependOnRowsOfOtherTasks) {
  for (const int64_t task_tokens : {0, 3}) {
    const policy_model::Weights weights = TaskWeights(task_tokens);
    const std::vector<GenerateRequest> requests = Requests(task_tokens);
    EngineOptions options = Options(task_tokens);
    options.max_batch = 32;
    const Samples reference = Generate(options, weights, requests);
    for (const int32_t max_batch : {1, 5}) {
      options.max_batch = max_batch;
      options.prefill_tokens = max_batch == 5 ? 7 : 64;
      const Samples other = Generate(options, weights, requests);
      ASSERT_EQ(other.size(), reference.size());
      for (const auto& [key, s] : reference) {
        EXPECT_EQ(s.tokens, other.at(key).tokens) << key.first;
        EXPECT_EQ(s.logprobs, other.at(key).logprobs) << key.first;
      }
    }
  }
}

TEST(EngineTasks, ARowIsThatOfItsTasksOwnAdapter) {
  const policy_model::Weights weights = TaskWeights(0);
  const std::vector<GenerateRequest> requests = Requests(0);
  const Samples mixed = Generate(Options(0), weights, requests);
  const Samples own[] = {Generate(Options(0, 0), weights.ForTask("code"), requests),
                         Generate(Options(0, 0), weights.ForTask("sums"), requests)};
  int other = 0;
  for (const auto& [key, s] : mixed) {
    const GeneratedSample& one = own[key.first % 2].at(key);
    // The weights are rounded into B there: the same up to the last bits, which may turn a draw.
    const size_t n = std::min<size_t>(3, s.tokens.size());
    for (size_t i = 0; i < n && i < one.tokens.size() && s.tokens[i] == one.tokens[i]; ++i)
      EXPECT_NEAR(s.logprobs[i], one.logprobs[i], 2e-5);
    other += s.logprobs[0] != own[1 - key.first % 2].at(key).logprobs[0];
  }
  EXPECT_GT(other, static_cast<int>(mixed.size()) / 2);
}

TEST(EngineTasks, OnAGpuTheyAnswerAsOnTheCpu) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: tasks were NOT generated for on CUDA";
  const OwnedStream stream(Device::Cuda(0));
  for (const int64_t task_tokens : {0, 3}) {
    const policy_model::Weights cpu = TaskWeights(task_tokens);
    policy_model::Weights cuda(cpu.shape(), stream, DType::kFloat32);
    cuda.AddAdapter(cpu.adapters()[0]->adapter->spec(), 5);
    for (const auto& [from, to] : {std::pair{&cpu.flat(), &cuda.flat()},
                                   {&cpu.adapters()[0]->flat, &cuda.adapters()[0]->flat}}) {
      std::vector<std::byte> bytes(from->bytes());
      from->CopyToHost(bytes);
      to->CopyFromHost(bytes);
    }
    EngineOptions options = Options(task_tokens);
    options.max_batch = 7;
    options.prefill_tokens = 5;
    const std::vector<GenerateRequest> requests = Requests(task_tokens);
    const Samples want = Generate(options, cpu, requests), got = Generate(options, cuda, requests);
    ASSERT_EQ(got.size(), want.size());
    size_t equal = 0;
    for (const auto& [key, x] : want) {
      const GeneratedSample& y = got.at(key);
      equal += x.tokens == y.tokens;
      for (size_t i = 0;
           i < std::min(x.tokens.size(), y.tokens.size()) && x.tokens[i] == y.tokens[i]; ++i) {
        ASSERT_NEAR(x.logprobs[i], y.logprobs[i], 2e-4) << key.first << " " << i;
      }
    }
    // A draw within a rounding of a boundary may fall on its other side.
    EXPECT_GE(equal, want.size() * 9 / 10);
  }
}

TEST(EngineTasks, LogprobsAreThoseOfTheTrainingForward) {
  for (const int64_t task_tokens : {0, 3}) {
    const policy_model::Weights weights = TaskWeights(task_tokens);
    const std::vector<GenerateRequest> requests = Requests(task_tokens);
    const Samples samples = Generate(Options(task_tokens), weights, requests);
    policy_model::PackedBatch batch;
    batch.Clear();
    batch.task_tokens = task_tokens > 0;
    std::vector<float> sampled;
    for (const auto& [key, s] : samples) {
      std::vector<int32_t> tokens = requests[key.first].tokens;
      std::vector<uint8_t> mask(tokens.size(), 0);
      tokens.insert(tokens.end(), s.tokens.begin(), s.tokens.end());
      mask.resize(tokens.size(), 1);
      batch.Append(tokens, mask);
      sampled.insert(sampled.end(), s.logprobs.begin(), s.logprobs.end());
    }
    policy_model::Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    std::vector<float> scored(sampled.size());
    model.Forward(weights, batch, {1.0f, false}, false, scored, {});
    double sum = 0;
    for (size_t i = 0; i < scored.size(); ++i) sum += std::abs(scored[i] - sampled[i]);
    EXPECT_LE(sum / static_cast<double>(scored.size()), 1e-4);
  }
}

TEST(EngineTasks, APromptWithoutATaskIsRefused) {
  const policy_model::Weights weights = TaskWeights(3);
  GenerateRequest none{.id = 0, .tokens = {1, 2}}, few{.id = 1, .tokens = {TaskToken(0, 0), 1}},
      unknown{.id = 2, .tokens = TaskFront(2, 3)}, empty{.id = 3, .tokens = TaskFront(1, 3)};
  unknown.tokens.push_back(1);
  const Samples samples = Generate(Options(3), weights, {none, few, unknown, empty});
  for (const auto& [id, words] :
       std::map<uint64_t, std::string>{{0, "names none of the policy's 2 tasks"},
                                       {1, "begins with 1 tokens of a task, not with the 3 of one"},
                                       {2, "names none of the policy's 2 tasks"},
                                       {3, "has no token but those of its task"}}) {
    const GeneratedSample& s = samples.at({id, 0});
    EXPECT_EQ(s.finish, FinishReason::kAborted);
    EXPECT_NE(s.reason.find(words), std::string::npos) << s.reason;
  }
}

}  // namespace
}  // namespace plumb::actor
