// Engines of ranks that compute a model together (actor/engine.h, EngineShare) against one engine
// with all of it: the same tokens, and log-probs to rounding; and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>

#include "policy_model/families/tensor_share.h"
#include "tests/actor/answers.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

using policy_model::ModelShape;
using policy_model::Weights;

// Sums over threads of the test, in the order of the ranks.
class Meeting {
 public:
  explicit Meeting(int size) : values_(static_cast<size_t>(size)) {}
  void Sum(int rank, float* values, int64_t n) {
    std::unique_lock lock(mu_);
    values_[static_cast<size_t>(rank)].assign(values, values + n);
    Wait(lock);
    for (int64_t i = 0; i < n; ++i) {
      float sum = 0;
      for (const auto& each : values_) sum += each[static_cast<size_t>(i)];
      values[i] = sum;
    }
    Wait(lock);  // before anybody's next values
    ++sums_;
  }
  int64_t sums() const { return sums_; }

 private:
  void Wait(std::unique_lock<std::mutex>& lock) {
    const int64_t round = round_;
    if (++here_ == static_cast<int>(values_.size())) {
      here_ = 0;
      ++round_;
      changed_.notify_all();
    }
    changed_.wait(lock, [&] { return round_ != round; });
  }
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<std::vector<float>> values_;
  int here_ = 0;
  int64_t round_ = 0, sums_ = 0;
};

struct ThreadRank : policy_model::TensorGroup {
  ThreadRank(Meeting& m, int r, int n) : meeting(m), own(r), all(n) {}
  int rank() const override { return own; }
  int size() const override { return all; }
  void Sum(const Stream&, DType dtype, void* values, int64_t n) override {
    ASSERT_EQ(dtype, DType::kFloat32);
    meeting.Sum(own, static_cast<float*>(values), n);
  }
  void Gather(std::span<const float>, std::span<float>) override { FAIL(); }
  Meeting& meeting;
  const int own, all;
};

Weights ShareOfWeights(const Weights& whole, int rank, int ranks) {
  Weights share(policy_model::ShareOf(whole.shape(), rank, ranks, "rollout.tp"), Device::kCpu,
                DType::kFloat32);
  for (size_t i = 0; i < whole.table().entries().size(); ++i) {
    const auto& entry = whole.table().entries()[i];
    float* to = share.flat().f32() + share.table().entries()[i].offset;
    for (const auto& run : policy_model::ShareRuns(entry, rank, ranks)) {
      std::copy_n(whole.flat().f32() + entry.offset + run.whole, run.size, to + run.share);
    }
  }
  return share;
}

std::vector<GenerateResult> Generate(const Weights& weights, const EngineOptions& options,
                                     const std::vector<GenerateRequest>& requests,
                                     const EngineShare& share = {}) {
  Engine engine(weights.shape(), Device::kCpu, DType::kFloat32, options, nullptr, share);
  std::vector<GenerateResult> results;
  for (size_t i = 0; i < requests.size(); ++i) {
    engine.Submit(requests[i]);
    if (i % 3 == 2) engine.Step(weights, 7);  // some come while others run
  }
  while (engine.Step(weights, 7)) {
    for (GenerateResult& r : engine.TakeFinished()) results.push_back(std::move(r));
  }
  for (GenerateResult& r : engine.TakeFinished()) results.push_back(std::move(r));
  std::sort(results.begin(), results.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
  return results;
}

std::vector<std::vector<GenerateResult>> GenerateTogether(
    const Weights& whole, const EngineOptions& options,
    const std::vector<GenerateRequest>& requests, int ranks) {
  Meeting meeting(ranks);
  std::vector<std::vector<GenerateResult>> all(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadRank group(meeting, rank, ranks);
      const Weights share = ShareOfWeights(whole, rank, ranks);
      all[static_cast<size_t>(rank)] =
          Generate(share, options, requests, {.group = &group, .vocab = whole.shape().vocab});
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(meeting.sums(), 0);
  return all;
}

// `bound` 0: the same bits.
void ExpectSame(const std::vector<GenerateResult>& a, const std::vector<GenerateResult>& b,
                float bound) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    ASSERT_EQ(a[i].id, b[i].id);
    ASSERT_EQ(a[i].samples.size(), b[i].samples.size());
    for (size_t s = 0; s < a[i].samples.size(); ++s) {
      const GeneratedSample &x = a[i].samples[s], &y = b[i].samples[s];
      ASSERT_EQ(x.tokens, y.tokens) << "request " << i << ", sample " << s;
      EXPECT_EQ(x.finish, y.finish);
      EXPECT_EQ(x.versions, y.versions);
      EXPECT_EQ(x.kept, y.kept);
      for (size_t t = 0; t < x.logprobs.size(); ++t)
        ASSERT_NEAR(x.logprobs[t], y.logprobs[t], bound) << i << " " << s << " " << t;
    }
  }
}

std::vector<std::pair<const char*, ModelShape>> Shapes() {
  ModelShape plain = TinyShape();  // of 61 tokens, which no two ranks share equally
  plain.kv_heads = 4;
  ModelShape biased = plain;  // biases behind sums, which one rank adds
  biased.attention_bias = biased.output_bias = biased.mlp_bias = true;
  biased.unused_tokens = {3, 59};
  ModelShape normed = plain;  // norms of single heads and behind branches, windows, tied
  normed.family = "gemma3_text";
  normed.tied = true;
  normed.window = 8;
  normed.sliding = {1, 0};
  return {{"plain", plain}, {"biased", biased}, {"normed", normed}};
}

TEST(EngineShareTest, RanksDrawTheTokensOfOne) {
  policy_model::SetThreads(1);
  const auto requests = MixedRequests(9);
  for (const auto& [name, shape] : Shapes()) {
    Weights whole(shape, Device::kCpu, DType::kFloat32);
    whole.Initialise(5, 0.15);
    for (const float temperature : {0.0f, 1.0f}) {
      SCOPED_TRACE(std::string(name) + ", temperature " + std::to_string(temperature));
      EngineOptions options = TinyOptions();
      options.sampling.temperature = temperature;
      const auto one = Generate(whole, options, requests);
      ASSERT_EQ(one.size(), requests.size());
      for (const int ranks : {2, 4}) {
        const auto all = GenerateTogether(whole, options, requests, ranks);
        for (const auto& each : all) ExpectSame(all[0], each, 0);
        ExpectSame(one, all[0], 1e-5f);
      }
    }
  }
}

// Filters look at all logits, which every rank has.
TEST(EngineShareTest, FiltersKeepWhatOneRankKeeps) {
  const Weights whole = [] {
    ModelShape shape = Shapes()[0].second;
    Weights weights(shape, Device::kCpu, DType::kFloat32);
    weights.Initialise(6, 0.15);
    return weights;
  }();
  EngineOptions options = TinyOptions();
  options.sampling.top_k = 11;
  options.sampling.top_p = 0.9f;
  options.record_kept = true;
  const auto requests = MixedRequests(4);
  ExpectSame(Generate(whole, options, requests), GenerateTogether(whole, options, requests, 2)[0],
             1e-5f);
}

// What the first rank's engine is asked, the others hear before the step.
struct Heard : EngineFollowers {
  explicit Heard(const Weights& w) : share(w) {}
  void Submitted(const GenerateRequest& request) override { calls.push_back(request.id); }
  void Abandoned() override { calls.push_back(1000); }
  const Weights& Stepping(const Weights& whole, int64_t version) override {
    EXPECT_NE(&whole, &share);
    calls.push_back(2000 + static_cast<uint64_t>(version));
    return share;
  }
  const Weights& share;
  std::vector<uint64_t> calls;
};

TEST(EngineShareTest, FollowersHearOfEachCall) {
  const Weights whole = TinyWeights(1), share = TinyWeights(2);
  Heard heard(share);
  EngineOptions options = TinyOptions();
  options.sampling.temperature = 0;
  Engine engine(TinyShape(), Device::kCpu, DType::kFloat32, options, nullptr,
                {.followers = &heard});
  EXPECT_FALSE(engine.Step(whole, 3)) << "nothing is to be done, nothing is said";
  GenerateRequest request{.id = 5, .tokens = {1, 2, 3}, .limit = 4};
  engine.Submit(request);
  engine.Step(whole, 3);
  GenerateRequest bad = request;
  bad.num_samples = 0;
  EXPECT_THROW(engine.Submit(bad), Error) << "which they would refuse, too";
  engine.Step(whole, 4);
  engine.Abandon();
  EXPECT_EQ(heard.calls, (std::vector<uint64_t>{5, 2003, 2004, 1000}));
}

}  // namespace
}  // namespace plumb::actor
