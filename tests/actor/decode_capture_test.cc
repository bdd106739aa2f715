// A decode step on a GPU, captured in a CUDA graph: forward over the pages, draw, and the drawn
// token as the input of the next step. Replays have to give what the same calls give one by one, to
// the bit: the kernels and their order are the same.
#include <gtest/gtest.h>

#ifdef PLUMB_CUDA
#include <cuda_runtime_api.h>

#include <memory>
#include <span>
#include <vector>

#include "actor/device_array.h"
#include "actor/pages/kv_pages.h"
#include "kernels/decode_state.h"
#include "kernels/sampling.h"
#include "policy_model/transformer.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

constexpr int32_t kSlots = 6, kPageTokens = 8, kSteps = 40;

struct Answers {
  std::vector<int32_t> tokens;  // [slot, step]
  std::vector<float> logprobs;
};

// Row r of a step is slot r, so that the state's own arrays are the step's inputs: nothing comes
// from the host.
class Decoder {
 public:
  Decoder(const policy_model::Weights& weights, const kernels::SamplingOptions& sampling)
      : weights_(weights),
        stream_(weights.flat().stream()),
        launch_{stream_, weights.flat().dtype()},
        sampling_(sampling),
        stride_(
            static_cast<int32_t>((weights.shape().max_positions + kPageTokens - 1) / kPageTokens)),
        model_(weights.shape(), stream_, launch_.dtype),
        pages_(weights.shape(), stream_, launch_.dtype, kPageTokens, kSlots * stride_),
        scratch_(stream_,
                 static_cast<size_t>(kernels::SamplingScratch(kSlots, weights.shape().vocab))) {
    for (int32_t s = 0; s < kSlots; ++s) {
      row_[static_cast<size_t>(s)] = s;
      for (int32_t p = 0; p < stride_; ++p)
        table_[static_cast<size_t>(s * stride_ + p)] = p * kSlots + s;
    }
    row_.Upload();
    table_.Upload();
    state_ = {.max_slots = kSlots,
              .max_new_tokens = kSteps,
              .last_token = last_token_.device(),
              .position = position_.device(),
              .generated = generated_.device(),
              .limit = limit_.device(),
              .status = status_.device(),
              .prompt = prompt_.device(),
              .sample = sample_.device(),
              .version = version_.device(),
              .tokens = tokens_.device(),
              .logprobs = logprobs_.device(),
              .versions = versions_.device()};
  }

  // Every slot before its first token: a prompt of one.
  void Restart() {
    for (size_t s = 0; s < kSlots; ++s) {
      last_token_[s] = static_cast<int32_t>(3 * s);
      position_[s] = generated_[s] = 0;
      limit_[s] = kSteps;
      status_[s] = static_cast<uint8_t>(kernels::SlotStatus::kRunning);
      prompt_[s] = 100 + s / 2;
      sample_[s] = static_cast<uint32_t>(s % 2);
    }
    for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = -1;
    for (auto* array : {&last_token_, &position_, &generated_, &limit_, &tokens_}) array->Upload();
    status_.Upload();
    prompt_.Upload();
    sample_.Upload();
    stream_.Synchronize();
  }

  // Enqueues one step.
  void Step() {
    const std::span<const int32_t> rows(row_.device(), kSlots);
    const kernels::PagedRows paged{kSlots, row_.device(), position_.device(), table_.device(),
                                   stride_};
    const float* logits =
        model_.ForwardPaged(weights_, {last_token_.device(), kSlots}, paged, pages_.view(), rows);
    kernels::Call(launch_, kernels::GatherAddresses{.state = state_,
                                                    .slots = row_.device(),
                                                    .rows = kSlots,
                                                    .prompt_out = draw_prompt_.device(),
                                                    .sample_out = draw_sample_.device(),
                                                    .position_out = draw_position_.device()});
    kernels::Call(launch_, kernels::SampleTokens{.logits = logits,
                                                 .rows = kSlots,
                                                 .vocab = weights_.shape().vocab,
                                                 .options = sampling_,
                                                 .prompt = draw_prompt_.device(),
                                                 .sample = draw_sample_.device(),
                                                 .position = draw_position_.device(),
                                                 .token = drawn_.device(),
                                                 .logprob = drawn_logprob_.device(),
                                                 .scratch = scratch_.device()});
    kernels::Call(launch_, kernels::AdvanceSlots{.state = state_,
                                                 .slots = row_.device(),
                                                 .rows = kSlots,
                                                 .token = drawn_.device(),
                                                 .logprob = drawn_logprob_.device()});
  }

  Answers Read() {
    tokens_.Download();
    logprobs_.Download();
    stream_.Synchronize();
    constexpr size_t kAll = size_t{kSlots} * kSteps;
    return {{tokens_.host(), tokens_.host() + kAll}, {logprobs_.host(), logprobs_.host() + kAll}};
  }

  cudaStream_t cuda_stream() const { return static_cast<cudaStream_t>(stream_.handle()); }

 private:
  const policy_model::Weights& weights_;
  const Stream stream_;
  const kernels::Launch launch_;
  const kernels::SamplingOptions sampling_;
  const int32_t stride_;
  policy_model::Transformer model_;
  KvPages pages_;
  kernels::DecodeState state_;
  DeviceArray<int32_t> last_token_{stream_, kSlots}, position_{stream_, kSlots},
      generated_{stream_, kSlots};
  DeviceArray<int32_t> limit_{stream_, kSlots}, row_{stream_, kSlots};
  DeviceArray<int32_t> table_{stream_, static_cast<size_t>(kSlots* stride_)};
  DeviceArray<uint8_t> status_{stream_, kSlots};
  DeviceArray<uint64_t> prompt_{stream_, kSlots}, draw_prompt_{stream_, kSlots};
  DeviceArray<uint32_t> sample_{stream_, kSlots}, draw_sample_{stream_, kSlots};
  DeviceArray<int64_t> version_{stream_, 1}, versions_{stream_, size_t{kSlots} * kSteps};
  DeviceArray<int32_t> tokens_{stream_, size_t{kSlots} * kSteps};
  DeviceArray<float> logprobs_{stream_, size_t{kSlots} * kSteps};
  DeviceArray<int32_t> draw_position_{stream_, kSlots}, drawn_{stream_, kSlots};
  DeviceArray<float> drawn_logprob_{stream_, kSlots};
  DeviceArray<uint8_t> scratch_;
};

// The captured form of a step, replayed `times` times.
void Replay(Decoder& decoder, int times) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(decoder.cuda_stream(), cudaStreamCaptureModeThreadLocal),
            cudaSuccess);
  try {
    decoder.Step();
  } catch (const std::exception& e) {
    cudaStreamEndCapture(decoder.cuda_stream(), &graph);
    cudaGetLastError();
    FAIL() << "the step cannot be captured: " << e.what();
  }
  ASSERT_EQ(cudaStreamEndCapture(decoder.cuda_stream(), &graph), cudaSuccess)
      << "something in the step cannot be captured";
  ASSERT_EQ(cudaGraphInstantiate(&ready, graph, 0), cudaSuccess);
  size_t nodes = 0;
  EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
  EXPECT_GT(nodes, 20u) << "products, norms and attention of two layers";
  for (int i = 0; i < times; ++i)
    ASSERT_EQ(cudaGraphLaunch(ready, decoder.cuda_stream()), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(decoder.cuda_stream()), cudaSuccess);
  cudaGraphExecDestroy(ready);
  cudaGraphDestroy(graph);
}

class DecodeCaptureCuda : public ::testing::TestWithParam<std::tuple<DType, float>> {
 protected:
  void SetUp() override {
    if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: a decode step was NOT captured here";
  }
};

TEST_P(DecodeCaptureCuda, AReplayedStepGivesTheTokensAndLogprobsOfTheStepItself) {
  const auto [dtype, temperature] = GetParam();
  const OwnedStream stream(Device::Cuda(0));
  policy_model::Weights weights(TinyShape(), stream, dtype);
  weights.Initialise(3, 0.15);
  Decoder decoder(weights, {.temperature = temperature, .seed = 11});
  decoder.Restart();
  for (int i = 0; i < kSteps; ++i) decoder.Step();
  const Answers expected = decoder.Read();
  for (const int32_t token : expected.tokens)
    ASSERT_TRUE(token >= 0 && token < weights.shape().vocab) << token;

  decoder.Restart();
  ASSERT_NO_FATAL_FAILURE(Replay(decoder, kSteps));
  const Answers replayed = decoder.Read();
  EXPECT_EQ(replayed.tokens, expected.tokens);
  EXPECT_EQ(replayed.logprobs, expected.logprobs);
}

INSTANTIATE_TEST_SUITE_P(Models, DecodeCaptureCuda,
                         ::testing::Combine(::testing::Values(DType::kFloat32, DType::kBFloat16),
                                            ::testing::Values(0.0f, 1.0f)));

// Two roles on one GPU, each with a stream: what one does is no part of what the other captures.
TEST(DecodeCaptureCudaRoles, AnotherRolesWorkIsNotInTheGraph) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: a decode step was NOT captured here";
  const OwnedStream actor(Device::Cuda(0)), learner(Device::Cuda(0));
  policy_model::Weights weights(TinyShape(), actor, DType::kFloat32),
      other(TinyShape(), learner, DType::kFloat32);
  weights.Initialise(3, 0.15);
  other.Initialise(4, 0.15);
  Decoder decoder(weights, {.temperature = 1.0f, .seed = 11}),
      beside(other, {.temperature = 1.0f, .seed = 11});
  beside.Restart();
  for (int i = 0; i < kSteps; ++i) beside.Step();
  const Answers expected = beside.Read();
  decoder.Restart();
  decoder.Step();  // takes memory
  decoder.Restart();
  beside.Restart();
  cudaGraph_t graph = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(decoder.cuda_stream(), cudaStreamCaptureModeThreadLocal),
            cudaSuccess);
  for (int i = 0; i < kSteps; ++i) {
    if (i == 0) decoder.Step();
    beside.Step();
  }
  ASSERT_EQ(cudaStreamEndCapture(decoder.cuda_stream(), &graph), cudaSuccess);
  const Answers answers = beside.Read();
  EXPECT_EQ(answers.tokens, expected.tokens);
  EXPECT_EQ(answers.logprobs, expected.logprobs);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace plumb::actor
#endif
