// actor/engine.h on CUDA: greedy answers equal the CPU's, and a sampled token's log-prob is the one
// the packed pass gives.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "actor/engine.h"
#include "policy_model/transformer.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

std::map<std::pair<uint64_t, uint32_t>, GeneratedSample> Generate(
    const EngineOptions& options, const policy_model::Weights& weights,
    EngineCounters* counters = nullptr) {
  Engine engine(weights.shape(), weights.flat().stream(), weights.flat().dtype(), options);
  std::map<std::pair<uint64_t, uint32_t>, GeneratedSample> out;
  for (const GenerateRequest& r : MixedRequests(12)) engine.Submit(r);
  while (engine.Step(weights, 0)) {
  }
  if (counters != nullptr) *counters = engine.counters();
  for (GenerateResult& r : engine.TakeFinished()) {
    for (GeneratedSample& s : r.samples) out.emplace(std::make_pair(r.id, s.sample), std::move(s));
  }
  return out;
}

TEST(EngineCuda, AnswersEqualTheCpu) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: generation was not run on CUDA";
  const policy_model::Weights cpu = TinyWeights();
  const OwnedStream stream(Device::Cuda(0));
  policy_model::Weights cuda(cpu.shape(), stream, DType::kFloat32);
  std::vector<std::byte> bytes(cpu.flat().bytes());
  cpu.flat().CopyToHost(bytes);
  cuda.flat().CopyFromHost(bytes);
  for (const float temperature : {0.0f, 1.0f}) {
    EngineOptions options = TinyOptions();
    options.max_batch = 7;
    options.sampling.temperature = temperature;
    const auto a = Generate(options, cpu), b = Generate(options, cuda);
    ASSERT_EQ(a.size(), b.size());
    int equal = 0, compared = 0;
    for (const auto& [key, x] : a) {
      const GeneratedSample& y = b.at(key);
      equal += x.tokens == y.tokens;
      for (size_t i = 0;
           i < std::min(x.tokens.size(), y.tokens.size()) && x.tokens[i] == y.tokens[i];
           ++i, ++compared) {
        ASSERT_NEAR(x.logprobs[i], y.logprobs[i], 1e-4)
            << key.first << " " << key.second << " " << i;
      }
    }
    // The same random addresses draw the same tokens; a draw within a rounding of a boundary may
    // fall on its other side.
    EXPECT_GE(equal, static_cast<int>(a.size()) * 9 / 10);
    EXPECT_GT(compared, 100);
  }
}

policy_model::ModelShape WithExperts() {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.experts = {.count = 6, .widths = {24}, .per_token = 2, .shared_ffn = 20, .shared_gate = true};
  return s;
}

policy_model::ModelShape WithStates() {
  policy_model::ModelShape s = TinyShape();
  s.family = "qwen3_5_text";
  s.layers = 4;
  s.rotated_share = 0.5;
  s.attention_gate = true;
  s.hybrid = {
      .layers = {1, 1, 0, 1}, .taps = 4, .k_heads = 2, .v_heads = 4, .k_dim = 12, .v_dim = 10};
  return s;
}

policy_model::ModelShape WithUnevenExperts() {
  policy_model::ModelShape s = WithExperts();
  s.experts.widths = {24, 9, 17, 24, 1, 16};
  return s;
}

policy_model::ModelShape WithSinglePositions() {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.window = 9;
  s.global_every = 4;
  s.sinks = true;
  return s;
}

policy_model::ModelShape WithGates() {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.window = 9;
  s.gate_top_k = 3;
  return s;
}

TEST(EngineCuda, EveryKindOfModelAnswersAsOnTheCpuRecordedOrNot) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: generation was not run on CUDA";
  const OwnedStream stream(Device::Cuda(0));
  for (const policy_model::ModelShape& shape :
       {WithExperts(), WithStates(), WithUnevenExperts(), WithSinglePositions(), WithGates()}) {
    policy_model::SetThreads(1);
    policy_model::Weights cpu(shape, Device::kCpu, DType::kFloat32),
        cuda(shape, stream, DType::kFloat32);
    cpu.Initialise(3, 0.15);
    std::vector<std::byte> bytes(cpu.flat().bytes());
    cpu.flat().CopyToHost(bytes);
    cuda.flat().CopyFromHost(bytes);
    EngineOptions options = TinyOptions();
    options.max_batch = 7;
    options.prefill_tokens = 5;  // prompts in pieces
    options.record_experts = shape.experts.count > 0;
    const auto want = Generate(options, cpu);
    for (const bool record : {false, true}) {
      options.record_steps = record;
      EngineCounters counters;
      const auto got = Generate(options, cuda, &counters);
      ASSERT_EQ(got.size(), want.size());
      EXPECT_EQ(counters.replayed_steps > counters.decode_steps / 8, record)
          << counters.replayed_steps << " of " << counters.decode_steps;
      size_t equal = 0, chosen = 0, alike = 0;
      for (const auto& [key, x] : want) {
        const GeneratedSample& y = got.at(key);
        for (size_t i = 0;
             i < std::min(x.tokens.size(), y.tokens.size()) && x.tokens[i] == y.tokens[i]; ++i) {
          ASSERT_NEAR(x.logprobs[i], y.logprobs[i], 2e-4)
              << shape.family << " " << key.first << " " << key.second << " " << i;
        }
        if (x.tokens != y.tokens) continue;
        ++equal;
        ASSERT_EQ(x.experts.bytes.size(), y.experts.bytes.size());
        chosen += x.experts.bytes.size();
        for (size_t i = 0; i < x.experts.bytes.size(); ++i)
          alike += x.experts.bytes[i] == y.experts.bytes[i];
      }
      EXPECT_GE(equal, want.size() * 9 / 10) << shape.family;
      // At a rounding's distance two experts may change places.
      EXPECT_GE(alike, chosen * 99 / 100) << shape.family;
      EXPECT_EQ(chosen > 0, options.record_experts);
    }
  }
}

policy_model::ModelShape WithLatents() {
  policy_model::ModelShape s = TinyShape();
  s.family = "plumb";
  s.latent = {.kv_rank = 24, .nope = 12, .rope = 4, .value = 16};
  s.kv_heads = s.heads;
  s.head_dim = s.latent.head();
  return s;
}

// Keys and values of both devices differ in their last bits, so that one number in some thousands
// falls on the other side of a tie and is a step of its row's grid away: that moves log-probs by
// thousandths and a few draws to the next token.
TEST(EngineCuda, PagesInFewerBitsAnswerAsOnTheCpuRecordedOrNot) {
  if (!kernels::CudaAvailable())
    GTEST_SKIP() << "NO GPU: pages in fewer bits were not used on CUDA";
  const OwnedStream stream(Device::Cuda(0));
  for (const policy_model::ModelShape& shape :
       {TinyShape(), WithLatents(), WithSinglePositions()}) {
    policy_model::SetThreads(1);
    policy_model::Weights cpu(shape, Device::kCpu, DType::kFloat32),
        cuda(shape, stream, DType::kFloat32);
    cpu.Initialise(3, 0.15);
    std::vector<std::byte> bytes(cpu.flat().bytes());
    cpu.flat().CopyToHost(bytes);
    cuda.flat().CopyFromHost(bytes);
    EngineOptions options = TinyOptions();
    options.max_batch = 7;
    options.prefill_tokens = 5;
    const auto whole = Generate(options, cuda);
    for (const kernels::KvFormat format :
         {kernels::KvFormat::kInt8, kernels::KvFormat::kFp8, kernels::KvFormat::kInt4}) {
      options.kv_format = format;
      const auto want = Generate(options, cpu);
      for (const bool record : {false, true}) {
        options.record_steps = record;
        EngineCounters counters;
        const auto got = Generate(options, cuda, &counters);
        ASSERT_EQ(got.size(), want.size());
        EXPECT_EQ(counters.replayed_steps > counters.decode_steps / 8, record);
        size_t equal = 0, compared = 0, rounded = 0;
        double distance = 0;
        for (const auto& [key, x] : want) {
          const GeneratedSample& y = got.at(key);
          equal += x.tokens == y.tokens;
          rounded += y.logprobs != whole.at(key).logprobs;
          for (size_t i = 0;
               i < std::min(x.tokens.size(), y.tokens.size()) && x.tokens[i] == y.tokens[i];
               ++i, ++compared) {
            distance +=
                std::abs(static_cast<double>(x.logprobs[i]) - static_cast<double>(y.logprobs[i]));
          }
        }
        const std::string what = "format " + std::to_string(static_cast<int>(format));
        EXPECT_GE(equal, want.size() * 6 / 10) << what;
        EXPECT_GT(compared, 100u) << what;
        EXPECT_LT(distance / static_cast<double>(compared), 0.005) << what;
        EXPECT_GT(rounded, want.size() / 2) << what << ": pages are in fewer bits";
      }
      options.record_steps = true;
    }
  }
}

// The first of the weights, and a copy of them elsewhere.
struct Twins {
  explicit Twins(const Stream& stream) : a(TinyShape(), stream, DType::kFloat32) {
    a.Initialise(3, 0.15);
    b.emplace(a.Twin());
    std::vector<std::byte> bytes(a.flat().bytes());
    a.flat().CopyToHost(bytes);
    b->flat().CopyFromHost(bytes);
  }
  policy_model::Weights a;
  std::optional<policy_model::Weights> b;
};

TEST(EngineCuda, RecordedStepsAnswerAsTheStepsThemselves) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: no decode step was recorded";
  const OwnedStream stream(Device::Cuda(0));
  const Twins weights(stream);
  for (const float temperature : {0.0f, 1.0f}) {
    for (const int32_t batch : {1, 7, 19}) {
      EngineOptions options = TinyOptions();
      options.max_batch = batch;
      options.sampling.temperature = temperature;
      EngineCounters with, without;
      const auto recorded = Generate(options, weights.a, &with);
      options.record_steps = false;
      const auto plain = Generate(options, weights.a, &without);
      EXPECT_EQ(without.replayed_steps, 0u);
      EXPECT_GT(with.replayed_steps, with.decode_steps / 4) << "of " << with.decode_steps;
      ASSERT_EQ(recorded.size(), plain.size());
      size_t equal = 0;
      for (const auto& [key, x] : plain) {
        const GeneratedSample& y = recorded.at(key);
        equal += x.tokens == y.tokens && x.finish == y.finish;
        for (size_t i = 0;
             i < std::min(x.tokens.size(), y.tokens.size()) && x.tokens[i] == y.tokens[i]; ++i)
          ASSERT_NEAR(x.logprobs[i], y.logprobs[i], 1e-4) << batch << " " << key.first << " " << i;
      }
      // Other numbers of rows may be other products: a draw at a boundary may fall elsewhere.
      EXPECT_GE(equal, plain.size() * 9 / 10) << "batch " << batch;
    }
  }
}

// Two and three steps behind the host's back, recorded or not, and prompts that share what they
// begin with: other numbers of rows may be other products, as above.
TEST(EngineCuda, StepsTogetherAndSharedPrefixesAnswerAsOneByOne) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: no steps were enqueued together";
  const OwnedStream stream(Device::Cuda(0));
  const Twins weights(stream);
  EngineOptions options = TinyOptions();
  options.max_batch = 19;
  options.steps_together = 1;
  options.record_steps = false;
  const auto one_by_one = Generate(options, weights.a);
  for (const int32_t together : {2, 3}) {
    for (const bool record : {false, true}) {
      for (const bool share : {false, true}) {
        options.steps_together = together;
        options.record_steps = record;
        options.share_prefixes = options.share_answers = share;
        EngineCounters counters;
        const auto got = Generate(options, weights.a, &counters);
        EXPECT_EQ(counters.replayed_steps > counters.decode_steps / 8, record);
        ASSERT_EQ(got.size(), one_by_one.size());
        size_t equal = 0;
        for (const auto& [key, x] : one_by_one) {
          const GeneratedSample& y = got.at(key);
          equal += x.tokens == y.tokens && x.finish == y.finish;
          for (size_t i = 0;
               i < std::min(x.tokens.size(), y.tokens.size()) && x.tokens[i] == y.tokens[i]; ++i)
            ASSERT_NEAR(x.logprobs[i], y.logprobs[i], 1e-4) << key.first << " " << i;
        }
        EXPECT_GE(equal, one_by_one.size() * 9 / 10)
            << together << " together, recorded " << record << ", shared " << share;
      }
    }
  }
}

TEST(EngineCuda, WeightsThatLieElsewhereAreUsedAtOnce) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: no decode step was recorded";
  const OwnedStream stream(Device::Cuda(0));
  const Twins weights(stream);
  policy_model::Weights other(TinyShape(), stream, DType::kFloat32);
  other.Initialise(4, 0.15);
  EngineOptions options = TinyOptions();
  options.max_batch = 4;
  options.sampling.temperature = 0;
  // Every third step by other weights: the tokens depend on it.
  const auto run = [&](bool record, const policy_model::Weights& first) {
    options.record_steps = record;
    Engine engine(TinyShape(), stream, DType::kFloat32, options);
    for (const GenerateRequest& r : MixedRequests(4)) engine.Submit(r);
    for (int64_t i = 0; engine.Step(i % 3 == 2 ? other : first, i); ++i) {
    }
    std::vector<std::vector<int32_t>> tokens;
    for (const GenerateResult& r : engine.TakeFinished()) {
      for (const GeneratedSample& s : r.samples) tokens.push_back(s.tokens);
    }
    return tokens;
  };
  const auto plain = run(false, weights.a);
  EXPECT_EQ(run(true, weights.a), plain);
  EXPECT_EQ(run(true, *weights.b), plain);
}

// Many answers at once, whose prompt's keys are read for all of them together, against few.
// The bits are checked on the CPU (pages/engine_recompute_test.cc); here that tokens, pages and
// states reach the device.
TEST(EngineCuda, WhatIsComputedAgainUnderNewWeightsIsTheirsAlone) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: generation was not run on CUDA";
  const OwnedStream stream(Device::Cuda(0));
  for (const policy_model::ModelShape& shape : {TinyShape(), WithStates()}) {
    std::vector<policy_model::Weights> versions;
    for (const uint64_t seed : {3, 4}) {
      policy_model::Weights cpu(shape, Device::kCpu, DType::kFloat32);
      cpu.Initialise(seed, 0.15);
      std::vector<std::byte> bytes(cpu.flat().bytes());
      cpu.flat().CopyToHost(bytes);
      versions.emplace_back(shape, stream, DType::kFloat32);
      versions.back().flat().CopyFromHost(bytes);
    }
    for (const bool recompute : {true, false}) {
      EngineOptions options = TinyOptions();
      options.eos = {};
      options.prefill_tokens = 23;
      options.recompute_after_update = recompute;
      Engine engine(shape, stream, DType::kFloat32, options);
      const std::vector<GenerateRequest> requests = MixedRequests(6);
      for (const GenerateRequest& r : requests) engine.Submit(r);
      for (int64_t step = 0; !engine.idle(); ++step)
        engine.Step(versions[step < 14 ? 0 : 1], step < 14 ? 0 : 1);
      int crossed = 0, other = 0;
      for (const GenerateResult& result : engine.TakeFinished()) {
        for (const GeneratedSample& s : result.samples) {
          const auto b = static_cast<size_t>(std::ranges::count(s.versions, 0));
          if (b == 0 || b == s.tokens.size()) continue;
          ++crossed;
          GenerateRequest one = requests[result.id];
          one.tokens.insert(one.tokens.end(), s.tokens.begin(),
                            s.tokens.begin() + static_cast<ptrdiff_t>(b));
          one.num_samples = 1;
          one.first_sample = s.sample;
          one.limit = static_cast<int32_t>(s.tokens.size() - b);
          Engine alone(shape, stream, DType::kFloat32, options);
          alone.Submit(one);
          while (alone.Step(versions[1], 1)) {
          }
          const GeneratedSample want = alone.TakeFinished().at(0).samples.at(0);
          bool same = true;
          for (size_t i = 0; same && i < want.tokens.size(); ++i) {
            same = std::abs(want.logprobs[i] - s.logprobs[b + i]) < 1e-4f;
            if (want.tokens[i] != s.tokens[b + i]) break;  // within a rounding of a boundary
          }
          other += same ? 0 : 1;
        }
      }
      EXPECT_GE(crossed, 5);
      EXPECT_EQ(other == 0, recompute) << other << " of " << crossed;
      EXPECT_EQ(engine.counters().recomputed_tokens > 0, recompute);
      EXPECT_EQ(engine.free_pages(), engine.num_pages());
    }
  }
}

TEST(EngineCuda, AnswersOfAGroupThatReadKeysTogetherAreThoseOfSmallBatches) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: generation was not run on CUDA";
  policy_model::ModelShape shape = TinyShape();
  shape.head_dim = 64;
  shape.max_positions = 400;
  shape.eos_tokens = {};
  const OwnedStream stream(Device::Cuda(0));
  policy_model::SetThreads(1);
  policy_model::Weights cpu(shape, Device::kCpu, DType::kBFloat16),
      cuda(shape, stream, DType::kBFloat16);
  cpu.Initialise(3, 0.15);
  std::vector<std::byte> bytes(cpu.flat().bytes());
  cpu.flat().CopyToHost(bytes);
  cuda.flat().CopyFromHost(bytes);
  std::vector<std::map<std::pair<uint64_t, uint32_t>, GeneratedSample>> answers;
  for (const int32_t max_batch : {180, 7}) {  // two KV heads: from 132 rows on
    EngineOptions options = TinyOptions();
    options.max_batch = max_batch;
    options.page_tokens = 16;
    options.kv_budget_mb = 256;
    options.prefill_tokens = 300;
    options.max_new_tokens = 9;
    options.eos = {};
    Engine engine(shape, stream, DType::kBFloat16, options);
    RandomStream random(5, 5);
    for (uint64_t id = 0; id < 3; ++id) {
      GenerateRequest request{.id = id, .num_samples = 60, .prompt_key = id};
      for (uint64_t i = 0; i < 150 + 130 * (id % 2); ++i)
        request.tokens.push_back(static_cast<int32_t>(random.NextBelow(61)));
      engine.Submit(request);
    }
    while (engine.Step(cuda, 0)) {
    }
    answers.emplace_back();
    for (GenerateResult& r : engine.TakeFinished()) {
      for (GeneratedSample& s : r.samples)
        answers.back().emplace(std::make_pair(r.id, s.sample), std::move(s));
    }
  }
  ASSERT_EQ(answers[0].size(), 180u);
  ASSERT_EQ(answers[1].size(), 180u);
  size_t equal = 0;
  for (const auto& [key, x] : answers[0]) {
    const GeneratedSample& y = answers[1].at(key);
    equal += x.tokens == y.tokens;
    for (size_t i = 0; i < x.tokens.size() && x.tokens[i] == y.tokens[i]; ++i) {
      // Attention gives the same bits; the library's products need not, in another batch.
      ASSERT_NEAR(x.logprobs[i], y.logprobs[i], 0.1) << key.first << " " << key.second << " " << i;
    }
  }
  EXPECT_GE(equal, 144u);
}

}  // namespace
}  // namespace plumb::actor
