#include "run/roles/step_time.h"

#include <gtest/gtest.h>

namespace plumb::run {
namespace {

using configs::Config;
using configs::Recompute;

policy_model::ModelShape Shape() {
  return {.family = "llama",
          .layers = 2,
          .hidden = 8,
          .heads = 2,
          .kv_heads = 1,
          .head_dim = 4,
          .ffn = 16,
          .vocab = 10,
          .max_positions = 4096,
          .tied = true,
          .eos_tokens = {2}};
}

Config Recipe() {
  Config config;
  config.rollout.prompts_per_step = 3;
  config.rollout.samples_per_prompt = 4;
  config.rollout.max_new_tokens = 20;
  config.rollout.max_batch = 6;
  config.data.max_prompt_tokens = 10;
  config.algorithm.kl_coef = 0;
  config.model.dtype = DType::kFloat32;
  return config;
}

// By hand: a layer has (8 x 16 + 8 x 8) + 3 x 8 x 16 = 576 parameters in products, and a token sees
// (10 + 20) / 2 others at 4 x 8 operations each.
TEST(StepTimeTest, CountsWhatAStepDoes) {
  const StepWork work = CountStep(Recipe(), Shape(), {}, Recompute::kNone);
  EXPECT_EQ(work.prompt, 10);
  EXPECT_EQ(work.answer, 20);
  EXPECT_EQ(work.rows, 6);
  const double layers = 2 * 2 * 576 + 2 * 32 * 15.0, tokens = 3 * (10 + 4 * 20);
  EXPECT_EQ(work.trained_tokens, tokens);
  EXPECT_EQ(work.train_layers, 3 * tokens * layers);
  EXPECT_EQ(work.train_head, 3 * (3 * 4 * 20) * 2.0 * 80);
  EXPECT_EQ(work.forward_layers, 0);
  EXPECT_EQ(work.decode_layers, 3 * 4 * 20 * (2 * 2 * 576 + 2 * 32 * 20.0));
  EXPECT_EQ(CountStep(Recipe(), Shape(), {}, Recompute::kLayer).train_layers, 4 * tokens * layers);
  Config config = Recipe();
  config.algorithm.epochs = 2;
  EXPECT_EQ(CountStep(config, Shape(), {}, Recompute::kNone).train_layers, 6 * tokens * layers);
  config = Recipe();
  config.optimizer.micro_batch_tokens = 50;  // two answers a micro-batch: the prompt is there twice
  EXPECT_EQ(CountStep(config, Shape(), {}, Recompute::kNone).trained_tokens, tokens + 3 * 10);
  config = Recipe();
  config.algorithm.kl_coef = 0.1;
  EXPECT_EQ(CountStep(config, Shape(), {}, Recompute::kNone).forward_layers, tokens * layers);
  EXPECT_EQ(CountStep(Recipe(), Shape(), {.prompt = 4, .answer = 6}, Recompute::kNone).answer, 6);
}

TEST(StepTimeTest, IsWorkOverSpeed) {
  StepWork work;
  work.train_layers = 100, work.train_head = 40, work.forward_layers = 6, work.update_bytes = 8;
  work.prefill = 9, work.decode_layers = 20, work.decode_head = 10, work.decode_bytes = 60;
  work.publish_bytes = 5;
  Speeds speeds;
  speeds.train_layers = 10, speeds.train_head = 20, speeds.forward_layers = 3;
  speeds.update_bytes = 4, speeds.decode_layers = 4, speeds.decode_head = 5;
  speeds.publish_bytes = 10;
  StepTime time = TimeOf(work, speeds);
  EXPECT_EQ(time.train, 10 + 2 + 2 + 2);
  EXPECT_EQ(time.generate, 3 + 5 + 2);
  EXPECT_EQ(time.publish, 0.5);
  EXPECT_EQ(time.total(), 16 + 10 + 0.5);
  speeds.decode_bytes = 2;
  EXPECT_EQ(TimeOf(work, speeds).generate, 3 + 30) << "memory is what it waits for";
}

// A page of 16 tokens takes 16 x 2 x 4 x 4 x 2 = 1,024 bytes in two layers, so 1 MiB has 1,024 of
// them. An answer of 40 tokens behind a prompt of 20 has one page of the prompt, which 4 share, and
// 3 of its own.
TEST(StepTimeTest, AsManyAnswersRunAsThereArePagesFor) {
  Config config = Recipe();
  config.rollout.kv_budget_mb = 1;
  config.rollout.prompts_per_step = 1000;
  config.rollout.max_batch = 4000;
  config.rollout.max_new_tokens = 40;
  config.data.max_prompt_tokens = 20;
  const StepWork work = CountStep(config, Shape(), {}, Recompute::kNone);
  EXPECT_EQ(work.rows, 315) << 1024 / 3.25;
  const double steps = 1000 * 4 * 40 / 315.0;
  EXPECT_NEAR(work.decode_layer_steps, 2 * steps, 1e-6);
  EXPECT_NEAR(work.decode_bytes, steps * 4 * (2 * 576 + 80), 1);
  // A group's prompt is read once for its answers; logits are written and read again.
  EXPECT_NEAR(work.decode_row_bytes, 1000 * 4 * 40 * ((20 / 4.0 + 20) * 2 * 4 * 2 * 4 + 16.0 * 10),
              1);
  config.rollout.max_batch = 100;
  EXPECT_EQ(CountStep(config, Shape(), {}, Recompute::kNone).rows, 100);
}

TEST(StepTimeTest, AStepOfACardTakesItsProductsReadsAndLayers) {
  StepWork work;
  work.decode_layers = 20, work.decode_bytes = 60, work.decode_row_bytes = 8;
  work.decode_layer_steps = 5;
  Speeds speeds;
  speeds.decode_layers = 1, speeds.decode_bytes = 4, speeds.decode_layer_s = 0.5;
  EXPECT_EQ(TimeOf(work, speeds).generate, 20 + 2 + 2.5) << "weights come beside products";
  speeds.decode_layers = 100;
  EXPECT_EQ(TimeOf(work, speeds).generate, 15 + 2 + 2.5);
}

TEST(StepTimeTest, AReferenceIsOnePassMore) {
  Config config = Recipe();
  config.algorithm.name = configs::AlgorithmName::kDpo;
  config.preference.batch = 5;
  config.preference.max_tokens = 40;
  const StepWork dpo = CountStep(config, Shape(), {}, Recompute::kNone);
  EXPECT_EQ(3 * dpo.forward_layers, dpo.train_layers);
  EXPECT_EQ(3 * dpo.forward_head, dpo.train_head);
  config.preference.loss = configs::PreferenceLossKind::kSimpo;
  EXPECT_EQ(CountStep(config, Shape(), {}, Recompute::kNone).forward_layers, 0);
}

TEST(StepTimeTest, OfflineNobodyGenerates) {
  Config config = Recipe();
  config.algorithm.name = configs::AlgorithmName::kSft;
  config.sft.batch = 5;
  config.sft.max_tokens = 40;
  const StepWork work = CountStep(config, Shape(), {}, Recompute::kNone);
  EXPECT_EQ(work.trained_tokens, 5 * 40);
  EXPECT_EQ(work.decode_layers, 0);
  EXPECT_EQ(work.publish_bytes, 0);
}

}  // namespace
}  // namespace plumb::run
