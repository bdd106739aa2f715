// configs/model_check.h: contradictions between options of what is trained. Experts and tasks have
// tests of their own (experts_config_test.cc, tasks_config_test.cc).
#include "configs/model_check.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/base/error.h"
#include "configs/config.h"

namespace plumb::configs {
namespace {

// What a recipe with these options is refused with; "": it is not.
std::string Refused(const std::vector<std::string>& set) {
  try {
    ParseRecipe("[data]\ntrain = \"arithmetic\"\n[[reward.parts]]\nkind = \"answer\"\n", "r.toml",
                set);
    return "";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(ModelCheck, AGpuTakesWhatTheCpuTakes) {
  for (const std::vector<std::string>& set : std::vector<std::vector<std::string>>{
           {"rollout.kv_type=int8"},
           {"rollout.kv_type=int4"},
           {"model.window=8", "model.global_every=4"},
           {"model.window=8", "model.gate_top_k=4"},
           {"experts.count=4", "experts.per_token=2", "experts.widths=[\"16\",\"8\"]"}}) {
    std::vector<std::string> there = set;
    there.push_back("run.device=cuda");
    EXPECT_EQ(Refused(set), "") << set[0];
    EXPECT_EQ(Refused(there), "") << set[0];
  }
}

TEST(ModelCheck, ProductsInEightBitsGoWithWholeModels) {
  for (const std::vector<std::string>& set : std::vector<std::vector<std::string>>{
           {"model.products=fp8"},
           {"model.products=fp8", "run.device=cuda", "model.dtype=bfloat16"},
           {"model.products=fp8", "run.parallel=dp=2", "run.roles=processes"}})
    EXPECT_EQ(Refused(set), "") << set.back();
}

TEST(ModelCheck, ProductsInFloat16GoWithWholeModelsAndAdapters) {
  for (const std::vector<std::string>& set : std::vector<std::vector<std::string>>{
           {"model.products=fp16"},
           {"model.products=fp16", "run.device=cuda"},
           {"model.products=fp16", "run.device=cuda", "model.dtype=bfloat16"},
           {"model.products=fp16", "model.path=m", "policy.adapter=lora"},
           {"model.products=fp16", "optimizer.loss_scale=1024", "optimizer.loss_scale_steps=10"},
           {"model.products=fp16", "run.parallel=dp=2", "run.roles=processes"}})
    EXPECT_EQ(Refused(set), "") << set.back();
}

TEST(ModelCheck, ContradictionsNameTheirOptions) {
  const struct {
    std::vector<std::string> set;
    const char* named;
  } kCases[] = {
      {{"model.scales=[\"local\"]"}, "set model.window"},
      {{"model.scales=[\"near\"]"}, "nothing else"},
      {{"model.scales=[\"memory\"]"}, "model.memory_table"},
      {{"model.memory_table=t.safetensors"}, "model.scales"},
      {{"model.gate_top_k=4"}, "set model.window"},
      {{"model.window=8", "model.gate_top_k=4", "model.global_every=2"}, "take one of them out"},
      {{"model.attention=latent", "model.sinks=true"}, "latent attention has none"},
      {{"model.kv_rank=8"}, "model.attention = \"latent\""},
      {{"model.global_every=4"}, "set model.window"},
      {{"model.norms=[\"batchnorm\"]"}, "one at least"},
      {{"model.products=fp8", "model.path=m", "policy.adapter=lora"}, "is of a whole model"},
      {{"model.products=fp8", "experts.count=4"}, "leaves experts out"},
      {{"model.products=fp8", "run.device=cuda"}, "set model.dtype to \"bfloat16\""},
      {{"model.products=fp8", "run.parallel=tp=2"}, "take tp, pp and ep out"},
      {{"model.products=fp16", "experts.count=4"}, "leaves experts out"},
      {{"model.products=fp16", "run.parallel=tp=2"}, "share the work as dp"},
      {{"model.products=fp16", "run.parallel=dp=2", "run.gradient_wire=int8"},
       "leave run.gradient_wire at \"float32\""},
      {{"model.products=fp16", "optimizer.loss_scale=1000"}, "is 1000, and a power of two"},
      {{"model.products=fp16", "optimizer.loss_scale=0.5"}, "optimizer.loss_scale"},
      {{"optimizer.loss_scale=1024"}, "set model.products = \"fp16\""},
      {{"model.products=fp8", "optimizer.loss_scale_steps=3"}, "set model.products = \"fp16\""},
      {{"model.path=m", "model.window=4"}, "says itself what it has"},
      {{"model.path=m", "policy.rank_pattern=[\"q=1.5\"]"}, "whole number from 1"},
      {{"policy.rslora=true"}, "policy.adapter = \"lora\""},
      {{"policy.adapter=lora"}, "name model.path"},
      {{"model.path=m", "policy.adapter=lora", "policy.targets=[]"}, "names no module"},
  };
  for (const auto& c : kCases)
    EXPECT_NE(Refused(c.set).find(c.named), std::string::npos)
        << c.set.front() << ": " << Refused(c.set);
}

TEST(ModelCheck, AScaleOutOfItsRangeIsOneProblem) {
  for (const char* products : {"dtype", "fp16"}) {
    for (const char* scale : {"0", "nan", "1e30"}) {
      const std::string said = Refused({std::string("model.products=") + products,
                                        std::string("optimizer.loss_scale=") + scale});
      const size_t first = said.find("has to be in [1, 16777216]");
      EXPECT_NE(first, std::string::npos) << said;
      EXPECT_EQ(said.find("2 problems"), std::string::npos) << said;
      EXPECT_EQ(said.find("power of two"), std::string::npos) << said;
    }
  }
}

TEST(ModelCheck, WhatGoesTogetherIsTaken) {
  EXPECT_EQ(Refused({"model.window=8", "model.scales=[\"local\",\"global\"]", "model.gate_top_k=4",
                     "model.layers=2"}),
            "");
  EXPECT_EQ(Refused({"model.attention=latent", "model.kv_rank=8", "model.rope_dim=4"}), "");
  EXPECT_EQ(Refused({"model.path=m", "policy.adapter=lora", "policy.rank_pattern=[\"q_proj=8\"]"}),
            "");
}

}  // namespace
}  // namespace plumb::configs
