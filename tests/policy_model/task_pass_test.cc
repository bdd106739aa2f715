// A policy whose adapters are weighed by the task of a row, in packed and paged passes, and its
// files.
#include "policy_model/task_pass.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/record/task_tokens.h"
#include "policy_model/memory/task_weights.h"
#include "policy_model/transformer.h"
#include "tests/policy_model/task_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using testing::TaskModel;
using testing::TaskShape;
using testing::TaskSpec;

std::vector<int32_t> Row(int32_t task, int64_t task_tokens, const std::vector<int32_t>& tokens) {
  std::vector<int32_t> row = TaskFront(task, task_tokens);
  row.insert(row.end(), tokens.begin(), tokens.end());
  return row;
}

// Sequences of both tasks; two of the first share what they begin with.
struct Batch {
  PackedBatch batch;
  std::vector<float> g_logprob;
  std::optional<uint64_t> dropout = std::nullopt;
  Batch(int64_t task_tokens, bool laid, bool shares = true) {
    batch.Clear();
    batch.task_tokens = laid;
    RandomStream random(3, 1);
    const auto tokens = [&](int n) {
      std::vector<int32_t> out;
      for (int i = 0; i < n; ++i) out.push_back(static_cast<int32_t>(random.NextBelow(31)));
      return out;
    };
    const auto front = static_cast<int32_t>(TaskFront(0, task_tokens).size());
    const auto add = [&](const std::vector<int32_t>& row, int32_t shared) {
      std::vector<uint8_t> mask(row.size(), 1);
      // Nothing before the token behind the task is known, and what is shared is not scored.
      for (int32_t i = 0; i <= std::max(front, shared); ++i) mask[static_cast<size_t>(i)] = 0;
      batch.Append(row, mask, shared);
    };
    add(Row(1, task_tokens, tokens(13)), 0);
    std::vector<int32_t> first = Row(0, task_tokens, tokens(7)), second = first;
    const auto prompt = static_cast<int32_t>(first.size());
    for (const int32_t t : tokens(4)) first.push_back(t);
    for (const int32_t t : tokens(6)) second.push_back(t);
    if (shares) batch.AppendPrefix(std::span(first).first(static_cast<size_t>(prompt - 1)));
    for (const auto& row : {first, second}) {
      std::vector<uint8_t> mask(row.size(), 0);
      std::fill(mask.begin() + prompt, mask.end(), uint8_t{1});
      batch.Append(row, mask, shares ? prompt - 1 : 0);
    }
    add(Row(0, task_tokens, tokens(9)), 0);
    for (size_t r = 0; r < batch.rows.size(); ++r) g_logprob.push_back(random.NextNormal());
  }
  std::vector<float> Forward(Transformer& model, const Weights& weights, bool keep = false,
                             double* value = nullptr) const {
    std::vector<float> logprob(batch.rows.size());
    model.Forward(weights, batch, {.temperature = 0.9f, .entropy = false, .dropout = dropout}, keep,
                  logprob, {});
    for (size_t i = 0; value && i < logprob.size(); ++i)
      *value += static_cast<double>(g_logprob[i]) * static_cast<double>(logprob[i]);
    return logprob;
  }
};

TEST(TaskPassTest, ARowGetsWhatItsTaskWeighs) {
  for (const char* family : {"llama", "phi3"}) {
    const Weights weights = TaskModel(TaskSpec(), family);
    Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
    const Batch b(0, false);
    const auto gated = b.Forward(model, weights);
    // The same rows through each task's own adapter, which knows no tasks.
    const auto code = b.Forward(model, weights.ForTask("code")),
               sums = b.Forward(model, weights.ForTask("sums")),
               base = b.Forward(model, weights.WithoutAdapters());
    double apart = 0, moved = 0;
    for (size_t i = 0; i < gated.size(); ++i) {
      const bool first = i < 12;  // of the sequence of task 1
      EXPECT_NEAR(gated[i], first ? sums[i] : code[i], 2e-5) << family << " " << i;
      apart = std::max(apart, std::abs(static_cast<double>(sums[i] - code[i])));
      moved = std::max(moved, std::abs(static_cast<double>(gated[i] - base[i])));
    }
    EXPECT_GT(apart, 0.01) << family;
    EXPECT_GT(moved, 0.05) << family;
    // Merged into the base, too; and what is shared is what is not.
    Weights merged = TaskModel(TaskSpec(), family);
    merged = merged.ForTask("code");
    merged.Merge();
    const auto of_merged = b.Forward(model, merged);
    const auto apart_laid = Batch(0, false, /*shares=*/false).Forward(model, weights);
    for (size_t i = 0; i < gated.size(); ++i) {
      if (i >= 12) {
        EXPECT_NEAR(of_merged[i], gated[i], 2e-5) << family;
      }
      EXPECT_NEAR(apart_laid[i], gated[i], 2e-5) << family;
    }
  }
}

TEST(TaskPassTest, AGpuTakesPoliciesWithTasks) {
  int place = 0;
  Weights weights = Weights::WithoutMemory(TaskShape(), Stream::Borrow(Device::Cuda(0), &place),
                                           DType::kBFloat16);
  weights.AddAdapter(TaskSpec(2), 5);
  EXPECT_EQ(weights.gated(), 0);
  EXPECT_EQ(weights.task_tokens(), 2);
}

TEST(TaskPassTest, NewAdaptersChangeNothingAndTheBaseDoesNotSeeTasks) {
  Weights weights(TaskShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(11, 0.15);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const Batch b(0, false);
  const auto base = b.Forward(model, weights);
  weights.AddAdapter(TaskSpec(), 5);
  EXPECT_EQ(b.Forward(model, weights), base);
  EXPECT_EQ(b.Forward(model, weights.WithoutAdapters()), base);
  // As if the rows named no task.
  PackedBatch plain;
  plain.Clear();
  const size_t n = static_cast<size_t>(b.batch.cu_seqlens[1]);
  plain.Append(std::span(b.batch.tokens).first(n), std::vector<uint8_t>(n, 1));
  std::vector<float> logprob(plain.rows.size());
  model.Forward(weights.WithoutAdapters(), plain, {.temperature = 0.9f, .entropy = false}, false,
                logprob, {});
  EXPECT_TRUE(std::equal(logprob.begin(), logprob.end(), base.begin()));
  // Rows without a task have no weights.
  EXPECT_THROW(model.Forward(weights, plain, {.entropy = false}, false, logprob, {}), Error);
}

void ExpectGradientsOfFiniteDifferences(int64_t task_tokens, bool recompute, double dropout = 0) {
  AdapterSpec spec = TaskSpec(task_tokens);
  spec.dropout = dropout;
  Weights weights = TaskModel(spec);
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  model.RecomputeLayers(recompute);
  Batch b(task_tokens, task_tokens > 0);
  if (dropout > 0) b.dropout = 17;
  ParameterSet& set = *weights.adapters()[0];
  FlatBuffer grad(Device::kCpu, DType::kFloat32, set.flat.elements());
  FlatBuffer* const adapters[] = {&grad};
  Gradients gradients;
  gradients.adapters = adapters;
  b.Forward(model, weights, true);
  model.Backward(weights, b.batch, b.g_logprob, {}, gradients);
  size_t of_tasks = 0;
  for (const TensorEntry& e : set.table->entries()) {
    of_tasks += e.name.starts_with("task_");
    float* at = set.flat.f32() + e.offset;
    const std::vector<float> keep(at, at + e.elements);
    double norm = 0;
    for (int64_t i = 0; i < e.elements; ++i)
      norm += std::pow(static_cast<double>(grad.f32()[e.offset + i]), 2);
    ASSERT_GT(norm, 0) << e.name;
    const double h = 3e-3 / std::sqrt(norm);
    double value[2] = {0, 0};
    for (int side = 0; side < 2; ++side) {
      for (int64_t i = 0; i < e.elements; ++i) {
        at[i] = keep[static_cast<size_t>(i)] +
                static_cast<float>((side ? -h : h) * static_cast<double>(grad.f32()[e.offset + i]));
      }
      b.Forward(model, weights, false, &value[side]);
    }
    std::copy(keep.begin(), keep.end(), at);
    EXPECT_NEAR((value[0] - value[1]) / (2 * h), norm, 0.01 * norm + 4e-5 / h) << e.name;
  }
  EXPECT_EQ(of_tasks, task_tokens > 0 ? 3u : 2u);
}

TEST(TaskPassTest, GradientsAreThoseOfFiniteDifferences) {
  ExpectGradientsOfFiniteDifferences(0, false);
  ExpectGradientsOfFiniteDifferences(0, true);
  ExpectGradientsOfFiniteDifferences(2, false);
  ExpectGradientsOfFiniteDifferences(0, false, /*dropout=*/0.4);
}

TEST(TaskPassTest, TokensOfATaskAreLaidInFrontOfItsRows) {
  const Weights weights = TaskModel(TaskSpec(2));
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const Batch b(2, true), stripped(2, false), none(0, false);
  EXPECT_EQ(b.batch.size(), stripped.batch.size() + 2 * 3) << "three begin with their task";
  const auto with = b.Forward(model, weights);
  // Nothing of them reaches the base.
  EXPECT_EQ(stripped.batch.tokens, none.batch.tokens);
  EXPECT_EQ(stripped.batch.positions, none.batch.positions);
  EXPECT_EQ(stripped.batch.rows, none.batch.rows);
  EXPECT_NE(with, stripped.Forward(model, weights));
  // They are no tokens of a model without them.
  EXPECT_THROW(b.Forward(model, weights.WithoutAdapters()), Error);
  EXPECT_THROW(b.Forward(model, TaskModel()), Error);
}

TEST(TaskPassTest, TokensOfATaskBeginAsWordsOfTheBase) {
  Weights weights(TaskShape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(11, 0.15);
  weights.AddAdapter(TaskSpec(2), 5);
  const ParameterSet& set = *weights.adapters()[0];
  for (int64_t row = 0; row < 4; ++row) {
    const float* at = set.flat.f32() + set.adapter->tasks().tokens + row * 32;
    int found = 0;
    for (int64_t t = 0; t < 31; ++t)
      found += std::equal(at, at + 32, weights.flat().f32() + weights.table().embedding() + t * 32);
    EXPECT_EQ(found, 1) << row;
  }
}

TEST(TaskPassTest, FilesHaveAFormOfTheirOwn) {
  const plumb::testing::TempFolder temp;
  for (const int64_t task_tokens : {0, 2}) {
    const Weights weights = TaskModel(TaskSpec(task_tokens));
    const std::string folder = temp / ("tokens" + std::to_string(task_tokens));
    SaveModelDirectory(weights, folder, "", "base");
    const AdapterConfig config = ReadAdapterConfig(folder);
    EXPECT_EQ(config.spec, TaskSpec(task_tokens));
    EXPECT_EQ(config.base_model, "base");
    const auto written =
        nlohmann::json::parse(RealFileSystem().ReadFile(folder + "/adapter_config.json", 1 << 20));
    EXPECT_EQ(written["peft_type"], "PLUMB_TASKS") << "which PEFT does not take for its own";
    Weights read(TaskShape(), Device::kCpu, DType::kFloat32);
    read.Initialise(11, 0.15);
    read.AddAdapter(config.spec, 0);
    EXPECT_NE(read.ComputeDigest(), weights.ComputeDigest());
    read.LoadTrained(folder);
    EXPECT_EQ(read.ComputeDigest(), weights.ComputeDigest());
    // Of other tasks they are another policy's.
    AdapterSpec other = config.spec;
    other.tasks = {"sums", "code"};
    Weights others(TaskShape(), Device::kCpu, DType::kFloat32);
    others.AddAdapter(other, 0);
    EXPECT_THROW(others.LoadTrained(folder), Error);
  }
  // That of one task is PEFT's.
  SaveModelDirectory(TaskModel().ForTask("sums"), temp / "one", "", "base");
  EXPECT_EQ(ReadAdapterConfig(temp / "one").spec, TaskSpec().ForTask(1));
}

}  // namespace
}  // namespace plumb::policy_model
