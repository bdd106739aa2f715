// run/roles/time_plan.h and speed_probe.h: the time that a plan says.
#include "run/roles/time_plan.h"

#include <gtest/gtest.h>

#include <ctime>

#include "common/base/error.h"
#include "common/base/file.h"
#include "run/roles/speed_probe.h"
#include "tests/run/toy_run.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run::testing {
namespace {

using configs::Config;
using plumb::testing::TempFolder;

policy_model::ModelShape Shape() {
  return {.family = "llama",
          .layers = 12,
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

Config Recipe() {
  Config config;
  config.model.dtype = DType::kBFloat16;
  config.rollout.kv_budget_mb = 8;
  config.rollout.max_batch = 4;
  config.rollout.prompts_per_step = 4;
  config.rollout.samples_per_prompt = 4;
  config.checkpoint.background = false;
  config.run.threads = 1;
  return config;
}

Speeds Even() {
  Speeds speeds;
  for (double* each :
       {&speeds.train_layers, &speeds.train_head, &speeds.forward_layers, &speeds.forward_head,
        &speeds.decode_layers, &speeds.decode_head, &speeds.update_bytes, &speeds.publish_bytes})
    *each = 1e9;
  return speeds;
}

TEST(TimePlanTest, TheFastestThatFitsIsTheFastestOfThoseThatFit) {
  Config config = Recipe();
  config.optimizer.recompute = configs::Recompute::kLayer;
  const RunMemory memory = PlanRun(config, Shape(), Device::kCpu, 0);
  const auto roomy = FastestThatFits(config, Shape(), Device::kCpu, int64_t{1} << 40, Even(), {});
  ASSERT_TRUE(roomy);
  EXPECT_TRUE(Has(roomy->options, "optimizer.recompute=none")) << roomy->options;
  EXPECT_FALSE(Has(roomy->options, "int8")) << "that makes nothing faster";
  const auto as_it_is =
      FastestThatFits(config, Shape(), Device::kCpu, memory.plan.total(), Even(), {});
  ASSERT_TRUE(as_it_is);
  EXPECT_GE(as_it_is->seconds, roomy->seconds);
  EXPECT_LE(as_it_is->bytes, memory.plan.total());
  EXPECT_FALSE(FastestThatFits(config, Shape(), Device::kCpu, 1000, Even(), {}));
}

// Speeds come out of real passes: all are there, and twice the layers are twice the operations.
TEST(TimePlanTest, ThisMachineIsMeasured) {
  const Speeds speeds = MeasureSpeeds(Recipe(), Shape(), Device::kCpu, {});
  for (const double each :
       {speeds.train_layers, speeds.train_head, speeds.forward_layers, speeds.forward_head,
        speeds.decode_layers, speeds.decode_head, speeds.update_bytes, speeds.publish_bytes}) {
    EXPECT_GT(each, 1e5);
    EXPECT_LT(each, 1e13);
  }
  EXPECT_TRUE(Has(speeds.source, "measured here in")) << speeds.source;
  policy_model::ModelShape large = Shape();
  large.hidden = 4096;
  large.head_dim = 1024;
  large.ffn = 16384;
  EXPECT_TRUE(
      Has(MeasureSpeeds(Recipe(), large, Device::kCpu, {}).source, "too large to be tried"));
}

// Two layers of these stand for no others, and some are no model at all.
TEST(TimePlanTest, LayersOfSeveralKindsAreReckonedFromProducts) {
  policy_model::ModelShape experts = Shape(), states = Shape();
  experts.experts.count = 4;
  experts.experts.widths = {8};
  experts.experts.dense.assign(static_cast<size_t>(experts.layers), 0);
  experts.experts.dense[0] = 1;
  states.hybrid = {.layers = std::vector<uint8_t>(static_cast<size_t>(states.layers), 1),
                   .taps = 4,
                   .k_heads = 1,
                   .v_heads = 2,
                   .k_dim = 8,
                   .v_dim = 16};
  states.hybrid.layers.back() = 0;
  for (const policy_model::ModelShape& shape : {experts, states}) {
    const Speeds speeds = MeasureSpeeds(Recipe(), shape, Device::kCpu, {});
    EXPECT_GT(speeds.train_layers, 1e5);
    EXPECT_TRUE(Has(speeds.source, "are of several kinds")) << speeds.source;
  }
}

// A model whose passes took 20 s and more on a busy machine: the whole of it is bounded.
TEST(TimePlanTest, MeasuringIsShortAndSaysWhatItSaw) {
  policy_model::ModelShape shape = Shape();
  shape.hidden = 1024;
  shape.heads = 16;
  shape.kv_heads = 8;
  shape.head_dim = 64;
  shape.ffn = 4096;
  shape.vocab = 49'152;
  const std::clock_t begin = std::clock();  // of the processor: others take nothing of it
  const Speeds speeds = MeasureSpeeds(Recipe(), shape, Device::kCpu, {});
  const double took = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  EXPECT_LT(took, 16) << "19 s where passes are as long for a large model as for a small one: "
                      << speeds.source;
  EXPECT_GE(speeds.middling, 1) << "no measurement is faster than the fastest";
  EXPECT_EQ(Has(speeds.source, "machine is busy"), speeds.middling >= 1.5) << speeds.source;
}

TEST(TimePlanTest, ABusyMachineIsNamedWithWhatWasMeasured) {
  EXPECT_EQ(BusyText(64e9, 60e9, 64.0 / 60), "");
  const std::string busy = BusyText(64e9, 2e9, 32);
  EXPECT_TRUE(
      Has(busy, "the machine is busy: passes of training, heads included, came to 2 to 64 GFLOP/s"))
      << busy;
}

// State that comes from the host's memory and goes back takes as long as the link does, where that
// is longer than the update.
TEST(TimePlanTest, AnOffloadedUpdateTakesAsLongAsTheLink) {
  Config config = Recipe();
  config.run.device = "cuda";
  const auto train = [&](const Speeds& speeds) {
    return TimeOf(CountStep(config, Shape(), {}, configs::Recompute::kNone), speeds).train;
  };
  Speeds speeds = SpeedsOf(FindCard("h200"), config.model, Shape());
  // The update alone: the toy's generation takes longer than what is saved.
  speeds.train_layers = speeds.train_head = speeds.decode_layers = speeds.decode_head = 1e18;
  speeds.decode_bytes = speeds.forward_layers = speeds.forward_head = 1e18;
  speeds.decode_layer_s = 0;
  EXPECT_GT(speeds.link_bytes, 3e10);
  EXPECT_LT(speeds.link_bytes, 6.4e10);
  const double there = train(speeds);
  config.optimizer.offload = true;
  const double beside = train(speeds);
  EXPECT_GT(beside, there);
  const auto best = FastestThatFits(config, Shape(), Device::Cuda(0), int64_t{1} << 40, speeds, {});
  ASSERT_TRUE(best);
  EXPECT_TRUE(Has(best->options, "optimizer.offload=false")) << best->options;
  speeds.link_bytes = 1e18;
  EXPECT_EQ(train(speeds), there) << "beside it";
}

TEST(TimePlanTest, CardsAndFilesAreReadAndOthersRefused) {
  configs::ModelConfig model = Recipe().model;
  policy_model::ModelShape wide = Shape();
  wide.hidden = 3584;
  const Speeds bfloat16 = SpeedsOf(FindCard("h100"), model, wide);
  EXPECT_NEAR(bfloat16.train_layers / 989e12, 0.59, 0.01) << "of a 7B model";
  wide.hidden = 896;
  EXPECT_NEAR(SpeedsOf(FindCard("h100"), model, wide).train_layers / 989e12, 0.434, 0.01);
  wide.hidden = 3584;
  model.dtype = DType::kFloat32;
  const Speeds float32 = SpeedsOf(FindCard("h100"), model, wide);
  EXPECT_EQ(bfloat16.train_layers, 2 * float32.train_layers);
  model.products = configs::Products::kFp16;
  const Speeds fp16 = SpeedsOf(FindCard("h100"), model, wide);
  EXPECT_EQ(fp16.train_layers, bfloat16.train_layers);
  EXPECT_EQ(fp16.train_head, float32.train_head) << "the head is of the model's type";
  EXPECT_TRUE(Has(bfloat16.source, "h100, published: 989 TFLOP/s")) << bfloat16.source;
  EXPECT_THROW(FindCard("abacus"), Error);
  const TempFolder temp;
  RealFileSystem().WriteFileAtomic(
      temp / "r", R"({"train": 1e12, "forward": 2e12, "decode": 3e12, "memory": 4e11})");
  const Speeds read = ReadSpeeds(temp / "r");
  EXPECT_EQ(read.train_layers, 1e12);
  EXPECT_EQ(read.forward_head, 2e12);
  EXPECT_EQ(read.decode_layers, 3e12);
  EXPECT_EQ(read.decode_bytes, 4e11);
  EXPECT_EQ(read.link_bytes, 0);
  RealFileSystem().WriteFileAtomic(
      temp / "r",
      R"({"train": 1e12, "forward": 2e12, "decode": 3e12, "memory": 4e11, "link": 5e10})");
  EXPECT_EQ(ReadSpeeds(temp / "r").link_bytes, 5e10);
  for (const char* bad :
       {"[]", R"({"train": 1})", R"({"train": -1, "forward": 2, "decode": 3, "memory": 4})",
        R"({"train": 1, "forward": 2, "decode": 3, "memory": 4, "more": 5})"}) {
    RealFileSystem().WriteFileAtomic(temp / "r", bad);
    EXPECT_THROW(ReadSpeeds(temp / "r"), Error) << bad;
  }
}

// Steps of seconds say themselves what they take; of minutes it is known before the first has
// ended.
TEST(TimePlanTest, ALongStepIsExpectedAndAShortOneIsNot) {
  Config config = Recipe();
  config.run.steps = 100;
  config.rollout.max_new_tokens = 8;
  const auto expected = [&](Device device) {
    RunMemory memory = PlanRun(config, Shape(), Device::kCpu, 0);
    memory.device = device;
    return ExpectStep(config, Shape(), memory, {.prompt = 8, .answer = 0});
  };
  EXPECT_FALSE(expected(Device::kCpu)) << "16 answers of 8 tokens";
  config.rollout.prompts_per_step = 40'000;
  config.rollout.max_new_tokens = 256;
  EXPECT_FALSE(expected(Device::Cuda(0))) << "nothing is known of a GPU";
  const auto step = expected(Device::kCpu);
  ASSERT_TRUE(step);
  EXPECT_GT(step->time.train, kShortStep);
  EXPECT_GT(step->time.generate, 0);
  EXPECT_TRUE(step->line.starts_with("a step: about ")) << step->line;
}

TEST(TimePlanTest, AnExpectationSaysWhatItIsOf) {
  Config config = Recipe();
  config.run.steps = 20;
  EXPECT_EQ(
      ExpectationText(config, {.generate = 31, .train = 14, .publish = 1}, {.prompt = 8}, false),
      "a step: about 0:46 (generating 0:31, updating 0:14; answers as long as they may be; "
      "rewards come on top); 20 steps: about 15:20; `plumb plan` says what of it could be "
      "faster");
  config.algorithm.name = configs::AlgorithmName::kSft;
  config.run.steps = 1;
  EXPECT_EQ(ExpectationText(config, {.train = 75}, {.prompt = 8, .answer = 9}, true),
            "a step: about 1:15; the machine is busy now, alone it is faster; `plumb plan` says "
            "what of it could be faster");
}

TEST(TimePlanTest, TheVerbSaysIt) {
  const TempFolder temp;
  const std::vector<std::string> line = TrainLine(temp / "run", 2, {});
  std::vector<std::string> plan = {"plan", line[1]};
  plan.insert(plan.end(), line.begin() + 6, line.end());
  const CliOutput here = RunPlumb(plan);
  EXPECT_EQ(here.code, 0) << here.err;
  for (const char* piece : {"time a step", "generate ", "train ", "publish ",
                            "rewards are not known", "measured here in", "fastest that fits     "})
    EXPECT_TRUE(Has(here.out, piece)) << piece << ": " << here.out;
  plan.insert(plan.end(), {"--gpu", "h200", "--answer-tokens", "5"});
  const CliOutput card = RunPlumb(plan);
  EXPECT_EQ(card.code, 0) << card.err;
  for (const char* piece : {"h200, published", "of 5;", "free                  141 GB"})
    EXPECT_TRUE(Has(card.out, piece)) << piece << ": " << card.out;
  plan[plan.size() - 3] = "abacus";
  EXPECT_EQ(RunPlumb(plan).code, 2);
}

}  // namespace
}  // namespace plumb::run::testing
