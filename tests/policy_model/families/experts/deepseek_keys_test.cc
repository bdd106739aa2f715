// What DeepSeek's and GLM's configs say, beside the numbers that the families' golden tests check.
#include "policy_model/families/experts/deepseek_keys.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/families/model_config.h"
#include "policy_model/families/tensor_table.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::json;

Json Written(const std::string& type) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/hf5_configs.json");
  EXPECT_TRUE(file.good());
  Json config = Json::parse(file)[type];
  if (type == "deepseek_v2") config["num_experts_per_tok"] = 6;
  return config;
}

class DeepseekKeys : public ::testing::Test {
 protected:
  ModelShape Read(const Json& config) {
    RealFileSystem().WriteFileAtomic(temp_ / "config.json", config.dump());
    return ReadModelConfig(temp_.path());
  }
  void Refuses(Json config, const std::function<void(Json&)>& change, const std::string& says,
               ErrorCode code = ErrorCode::kUnsupported) {
    change(config);
    try {
      Read(config);
      ADD_FAILURE() << "no error: " << says;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(temp_ / "config.json"), std::string::npos) << e.what();
    }
  }
  testing::TempFolder temp_;
};

TEST_F(DeepseekKeys, R1IsReadWithItsSizes) {
  const ModelShape s = Read(Written("deepseek_v3"));
  EXPECT_EQ(
      s.latent,
      (LatentShape{.kv_rank = 512, .query_rank = 1536, .nope = 128, .rope = 64, .value = 128}));
  EXPECT_EQ(s.head_dim, 192);
  EXPECT_EQ(s.kv_heads, 128);
  EXPECT_EQ(s.rotated_dims(), 64);
  EXPECT_EQ(s.cache_width(), 576) << "numbers a token and layer";
  EXPECT_EQ(s.experts.count, 256);
  EXPECT_EQ(s.experts.per_token, 8);
  EXPECT_EQ(s.experts.groups, 8);
  EXPECT_EQ(s.experts.groups_per_token, 4);
  EXPECT_EQ(s.experts.scale, 2.5);
  EXPECT_EQ(s.experts.shared_ffn, 2048);
  EXPECT_TRUE(s.experts.sigmoid && s.experts.bias && s.experts.renormalize);
  EXPECT_FALSE(s.experts.of(2));
  EXPECT_TRUE(s.experts.of(3));
  const TensorTable table(s);
  // As its model card counts them: 671 billion, 37 of them a token.
  EXPECT_NEAR(static_cast<double>(table.parameters()) / 1e9, 671, 0.5);
  EXPECT_NEAR(static_cast<double>(table.active_parameters()) / 1e9, 37.5, 0.7);
}

TEST_F(DeepseekKeys, KimiIsDeepseekUnderItsNames) {
  Json k2 = Written("deepseek_v3");
  k2["model_type"] = "kimi_k2";
  k2["n_group"] = k2["topk_group"] = 1;
  const ModelShape s = Read(k2);
  EXPECT_EQ(s.family, "deepseek_v3");
  EXPECT_EQ(s.experts.groups, 1);
  Json k25 = Written("kimi_k25");
  k25["text_config"] = k2;
  EXPECT_EQ(Read(k25).family, "deepseek_v3");
  k25["text_config"].erase("model_type");
  ModelShape wrapped = Read(k25);
  EXPECT_TRUE(wrapped.tied) << "the wrapper's word counts";
  wrapped.tied = false;
  EXPECT_EQ(wrapped, s);
  // The files that people have hold weights of four bits, which the text part says.
  Refuses(
      k25,
      [](Json& c) {
        c["text_config"]["quantization_config"] = {{"quant_method", "compressed-tensors"}};
      },
      "compressed-tensors");
}

TEST_F(DeepseekKeys, QueriesWithoutAVectorOfTheirOwn) {
  for (const char* type : {"deepseek_v2", "deepseek_v3", "glm4_moe_lite"}) {
    Json config = Written(type);
    config["q_lora_rank"] = nullptr;
    EXPECT_EQ(Read(config).latent.query_rank, 0) << type << ": null";
    config.erase("q_lora_rank");
    EXPECT_EQ(Read(config).latent.query_rank, Written(type)["q_lora_rank"])
        << type << ": what the class takes";
  }
}

TEST_F(DeepseekKeys, StretchedPositionsScaleTheScores) {
  Json config = Written("deepseek_v3");
  EXPECT_EQ(ScoreStretch(Read(config).rope), 1);
  config["rope_scaling"] = {{"type", "yarn"},
                            {"factor", 40},
                            {"mscale", 1.0},
                            {"mscale_all_dim", 1.0},
                            {"beta_fast", 32},
                            {"beta_slow", 1},
                            {"original_max_position_embeddings", 4096}};
  config["rope_theta"] = 10000;
  config.erase("rope_parameters");
  const ModelShape s = Read(config);
  const double m = 0.1 * std::log(40.0) + 1;
  EXPECT_NEAR(ScoreStretch(s.rope), m * m, 1e-12);
  const ModelPlan plan = PlanOf(s);
  EXPECT_NEAR(plan.layers[0].attention_scale, m * m / std::sqrt(192.0), 1e-12);
  EXPECT_EQ(plan.rotary[0].factor, 1) << "mscale over mscale_all_dim";
  EXPECT_TRUE(plan.rotary[0].interleaved);
  EXPECT_EQ(plan.rotary[0].frequencies.size(), 32u);
}

TEST_F(DeepseekKeys, WhatIsComputedOtherwiseIsRefusedByName) {
  const Json v3 = Written("deepseek_v3"), v2 = Written("deepseek_v2"),
             lite = Written("glm4_moe_lite");
  Refuses(
      v3, [](Json& c) { c["attention_bias"] = true; }, "attention_bias");
  Refuses(
      v3, [](Json& c) { c["num_key_value_heads"] = 8; }, "num_key_value_heads = 8");
  Refuses(
      v3, [](Json& c) { c["scoring_func"] = "softmax"; }, "scoring_func 'softmax'");
  Refuses(
      v3, [](Json& c) { c["moe_layer_freq"] = 2; }, "moe_layer_freq");
  Refuses(
      v2, [](Json& c) { c["topk_method"] = "noaux_tc"; }, "topk_method 'noaux_tc'");
  Refuses(
      v2, [](Json& c) { c["norm_topk_prob"] = true; }, "norm_topk_prob");
  Refuses(
      v2, [](Json& c) { c["mlp_bias"] = true; }, "mlp_bias");
  Refuses(
      lite, [](Json& c) { c["mlp_layer_types"][3] = "other"; }, "mlp_layer_types: 'other'");
  const auto corrupt = ErrorCode::kCorruption;
  Refuses(
      v2, [](Json& c) { c.erase("num_experts_per_tok"); }, "num_experts_per_tok", corrupt);
  Refuses(
      v3, [](Json& c) { c["kv_lora_rank"] = -1; }, "'kv_lora_rank' = -1", corrupt);
  Refuses(
      v3, [](Json& c) { c["v_head_dim"] = int64_t{1} << 60; }, "'v_head_dim'", corrupt);
  Refuses(
      v3, [](Json& c) { c["first_k_dense_replace"] = -3; }, "first_k_dense_replace", corrupt);
  Refuses(
      lite, [](Json& c) { c["mlp_layer_types"] = {"dense"}; }, "not a list of 47", corrupt);
}

}  // namespace
}  // namespace plumb::policy_model
