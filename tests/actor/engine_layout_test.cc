#include "actor/engine_layout.h"

#include <gtest/gtest.h>

#include "common/base/error.h"
#include "tests/actor/tiny.h"

namespace plumb::actor {
namespace {

TEST(EngineLayoutTest, OptionsThatCannotBeAreNamedAsTheRecipeHasThem) {
  const std::pair<const char*, int32_t EngineOptions::*> numbers[] = {
      {"rollout.max_batch", &EngineOptions::max_batch},
      {"rollout.page_tokens", &EngineOptions::page_tokens},
      {"rollout.prefill_tokens", &EngineOptions::prefill_tokens},
      {"rollout.max_new_tokens", &EngineOptions::max_new_tokens}};
  for (const auto& [name, number] : numbers) {
    EngineOptions options = TinyOptions();
    options.*number = 0;
    try {
      Checked(options, TinyShape());
      ADD_FAILURE() << name << " = 0 was taken";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
  }
  EngineOptions experts = TinyOptions();
  experts.record_experts = true;
  EXPECT_THROW(Checked(experts, TinyShape()), Error) << "the model has none";
  EXPECT_EQ(Checked(TinyOptions(), TinyShape()).max_batch, TinyOptions().max_batch);
}

TEST(EngineLayoutTest, OneKindOfLayersHasAllPages) {
  const auto pools = PoolsOf(TinyShape(), Device::kCpu, DType::kFloat32, TinyOptions());
  EXPECT_EQ(pools[0].layers, TinyShape().layers);
  EXPECT_GT(pools[0].pages, 0);
  EXPECT_EQ(pools[1].layers, 0);
  EXPECT_EQ(OfLayers(TinyShape(), pools[0]).layers, TinyShape().layers);
}

TEST(EngineLayoutTest, StatesOnAGpuLeaveAsManySlotsAsTheBudgetHolds) {
  policy_model::ModelShape states = TinyShape();
  states.family = "qwen3_5_text";
  states.hybrid = {
      .layers = {1, 0}, .taps = 4, .k_heads = 2, .v_heads = 4, .k_dim = 64, .v_dim = 64};
  EngineOptions options = TinyOptions();
  options.max_batch = 500;
  options.kv_budget_mb = 8;
  const EngineOptions on_gpu = WithRoomForStates(options, states, Device::Cuda(0), DType::kFloat32);
  EXPECT_GE(on_gpu.max_batch, 1);
  EXPECT_LE(2 * on_gpu.max_batch * StateBytes(states), options.kv_budget_mb << 20);
  EXPECT_LT(on_gpu.max_batch, 500);
  EXPECT_EQ(WithRoomForStates(options, states, Device::kCpu, DType::kFloat32).max_batch, 500);
  EXPECT_EQ(WithRoomForStates(options, TinyShape(), Device::Cuda(0), DType::kFloat32).max_batch,
            500);
}

TEST(EngineLayoutTest, AFilterIsWhatLeavesTokensOut) {
  EXPECT_FALSE(Filters({.temperature = 1}));
  EXPECT_TRUE(Filters({.temperature = 1, .top_k = 5}));
  EXPECT_TRUE(Filters({.temperature = 0.5f, .top_p = 0.9f}));
  EXPECT_FALSE(Filters({.temperature = 0, .top_k = 5})) << "greedy takes one token anyhow";
}

}  // namespace
}  // namespace plumb::actor
