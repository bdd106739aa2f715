// run/roles/planning/gpu_probe.h: the speeds of a small model on the CPU, where the same passes are
// timed, and on a GPU against passes of the whole model.
#include "run/roles/planning/gpu_probe.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/device/device_memory.h"

namespace plumb::run {
namespace {

policy_model::ModelShape Shape() {
  return {.family = "llama",
          .layers = 6,
          .hidden = 64,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .ffn = 128,
          .vocab = 200,
          .max_positions = 512,
          .tied = true,
          .eos_tokens = {2}};
}

configs::Config Recipe() {
  configs::Config config;
  config.rollout.max_batch = 6;
  config.rollout.prompts_per_step = 4;
  config.rollout.samples_per_prompt = 4;
  config.rollout.max_new_tokens = 24;
  config.data.max_prompt_tokens = 16;
  config.optimizer.micro_batch_tokens = 256;
  config.run.threads = 1;
  return config;
}

void ExpectSpeeds(const Speeds& speeds, bool generation) {
  for (const double each : {speeds.train_layers, speeds.train_head, speeds.forward_layers,
                            speeds.forward_head, speeds.update_bytes, speeds.publish_bytes}) {
    EXPECT_GT(each, 1e5);
    EXPECT_LT(each, 1e16);
  }
  EXPECT_EQ(speeds.decode_layers > 0, generation);
  EXPECT_NE(speeds.source.find("measured here in"), std::string::npos) << speeds.source;
  EXPECT_EQ(speeds.source.find("answers at a time") != std::string::npos, generation);
}

TEST(GpuProbeTest, PassesAndStepsAreTimed) {
  const auto speeds = ProbeGpu(Recipe(), Shape(), Device::kCpu, {}, int64_t{1} << 40);
  ASSERT_TRUE(speeds);
  std::printf("%s\n", speeds->source.c_str());
  ExpectSpeeds(*speeds, true);
  configs::Config offline = Recipe();
  offline.algorithm.name = configs::AlgorithmName::kDpo;
  offline.preference.max_tokens = 40;
  const auto of_pairs = ProbeGpu(offline, Shape(), Device::kCpu, {}, 0);
  ASSERT_TRUE(of_pairs);
  ExpectSpeeds(*of_pairs, false);
}

TEST(GpuProbeTest, LayersOfSeveralKindsAreNotTried) {
  policy_model::ModelShape states = Shape();
  states.hybrid = {.layers = std::vector<uint8_t>(static_cast<size_t>(states.layers), 1),
                   .taps = 4,
                   .k_heads = 1,
                   .v_heads = 2,
                   .k_dim = 8,
                   .v_dim = 16};
  EXPECT_FALSE(ProbeGpu(Recipe(), states, Device::kCpu, {}, 0));
}

TEST(GpuProbeCuda, ACardIsMeasured) {
  if (!kernels::CudaAvailable()) GTEST_SKIP() << "NO GPU: its speeds were NOT measured here";
  policy_model::ModelShape shape = Shape();
  shape.layers = 16;
  shape.hidden = 896;
  shape.heads = 14;
  shape.head_dim = 64;
  shape.ffn = 4864;
  shape.vocab = 32768;
  shape.max_positions = 2048;
  configs::Config config = Recipe();
  config.model.dtype = DType::kBFloat16;
  config.run.device = "cuda";
  config.optimizer.micro_batch_tokens = 8192;
  config.rollout.max_batch = 64;
  config.rollout.prompts_per_step = 32;
  config.rollout.max_new_tokens = 128;
  config.data.max_prompt_tokens = 128;
  const OwnedStream stream(Device::Cuda(0));
  const auto speeds =
      ProbeGpu(config, shape, stream, {}, kernels::DeviceBytesFree(Device::Cuda(0)));
  ASSERT_TRUE(speeds);
  std::printf("%s\nhead %.4g TFLOP/s, forward %.4g, update %.4g TB/s\n", speeds->source.c_str(),
              speeds->train_head / 1e12, speeds->forward_layers / 1e12,
              speeds->update_bytes / 1e12);
  ExpectSpeeds(*speeds, true);
  EXPECT_GT(speeds->train_layers, 2e13);
}

}  // namespace
}  // namespace plumb::run
