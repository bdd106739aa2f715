// config.json of Qwen 3 Next, Qwen 3.5 and LFM 2: what files leave out, what is refused, and back.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/families/family.h"
#include "policy_model/families/model_config.h"
#include "policy_model/families/tensor_table.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

class HybridConfig : public ::testing::Test {
 protected:
  ModelShape Read(const Json& j) {
    RealFileSystem().WriteFileAtomic(temp_ / "config.json", j.dump());
    return ReadModelConfig(temp_.path());
  }
  void Refuses(Json j, const char* key, const Json& value, const std::string& says) {
    j[key] = value;
    try {
      Read(j);
      ADD_FAILURE() << "accepted " << key << " = " << value;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("config.json"), std::string::npos) << e.what();
    }
  }
  testing::TempFolder temp_;
  const Json text_ = {{"model_type", "qwen3_5_text"},
                      {"hidden_size", 64},
                      {"intermediate_size", 96},
                      {"num_hidden_layers", 8},
                      {"num_attention_heads", 4},
                      {"num_key_value_heads", 2},
                      {"head_dim", 32},
                      {"vocab_size", 100},
                      {"max_position_embeddings", 256},
                      {"linear_num_key_heads", 2},
                      {"linear_num_value_heads", 6},
                      {"rope_parameters",
                       {{"rope_type", "default"},
                        {"rope_theta", 1e7},
                        {"partial_rotary_factor", 0.25},
                        {"mrope_interleaved", true},
                        {"mrope_section", {2, 1, 1}}}}};
};

TEST_F(HybridConfig, WhatFilesLeaveOutIsWhatTransformersTakes) {
  const ModelShape s = Read(text_);
  EXPECT_EQ(s.hybrid.layers, (std::vector<uint8_t>{1, 1, 1, 0, 1, 1, 1, 0}));
  EXPECT_EQ(s.paged_layers(), 2);
  EXPECT_EQ(s.hybrid.k_dim, 128);
  EXPECT_EQ(s.hybrid.v_dim, 128);
  EXPECT_EQ(s.hybrid.taps, 4);
  EXPECT_EQ(s.rotated_dims(), 8);
  EXPECT_EQ(s.rope_theta, 1e7);
  EXPECT_TRUE(s.attention_gate);
  EXPECT_FALSE(s.tied);
  Json other = text_;
  other["full_attention_interval"] = 2;
  other.erase("rope_parameters");
  const ModelShape half = Read(other);
  EXPECT_EQ(half.hybrid.count(), 4);
  EXPECT_EQ(half.rotated_dims(), 8);
}

TEST_F(HybridConfig, WrappersAreReadAndTheirTextPartIsWritten) {
  Json wrapper = {{"model_type", "qwen3_5"},
                  {"architectures", {"Qwen3_5ForConditionalGeneration"}},
                  {"tie_word_embeddings", true},
                  {"text_config", text_}};
  const ModelShape s = Read(wrapper);
  EXPECT_EQ(s.family, "qwen3_5_text");
  EXPECT_TRUE(s.tied);
  testing::TempFolder copy;
  WriteModelConfig(s, copy.path(), "bfloat16");
  EXPECT_EQ(ReadModelConfig(copy.path()), s);
  const Json written = Json::parse(RealFileSystem().ReadFile(copy / "config.json", 1 << 20));
  EXPECT_EQ(written["architectures"][0], "Qwen3_5ForCausalLM");
  EXPECT_EQ(written["layer_types"].size(), 8u);
}

TEST_F(HybridConfig, WhatIsNotComputedIsRefusedByName) {
  Refuses(text_, "layer_types", Json::array({"mamba"}), "not a list of 8 names");
  Json types = Json::array();
  for (int l = 0; l < 8; ++l) types.push_back("mamba");
  Refuses(text_, "layer_types", types, "'mamba' is not computed here for qwen3_5_text");
  for (Json& type : types) type = "linear_attention";
  Refuses(text_, "layer_types", types, "without a layer of attention");
  Refuses(text_, "linear_num_value_heads", 5, "has to divide");
  Refuses(text_, "linear_num_value_heads", 0, "is not positive");
  Refuses(text_, "linear_conv_kernel_dim", 17, "1 to 16 are computed");
  Refuses(text_, "linear_value_head_dim", 2000, "1 to 1024 are computed");
  Refuses(text_, "full_attention_interval", 0, "not positive");
}

TEST_F(HybridConfig, ExpertsNeedNoDenseWidth) {
  Json moe = text_;
  moe["model_type"] = "qwen3_5_moe_text";
  moe.erase("intermediate_size");
  moe["moe_intermediate_size"] = 24;
  moe["num_experts"] = 4;
  moe["num_experts_per_tok"] = 2;
  moe["shared_expert_intermediate_size"] = 20;
  const ModelShape s = Read(moe);
  EXPECT_EQ(s.experts.count, 4);
  EXPECT_EQ(s.experts.shared_ffn, 20);
  EXPECT_TRUE(s.experts.shared_gate);
  EXPECT_TRUE(s.experts.renormalize);
  Json neither = text_;
  neither.erase("intermediate_size");
  Refuses(neither, "x", 0, "has no 'intermediate_size'");
}

TEST_F(HybridConfig, StatesAreCountedByTheirFormula) {
  const ModelPlan plan = PlanOf(Read(text_));
  // Three taps back of 2 x 2 x 128 + 6 x 128 channels, and 6 heads of 128 x 128.
  EXPECT_EQ(plan.layers[0].state(), 3 * (2 * 2 * 128 + 6 * 128) + 6 * 128 * 128);
  EXPECT_EQ(plan.layers[3].state(), 0);
  EXPECT_EQ(plan.state(), 6 * plan.layers[0].state());
  EXPECT_TRUE(plan.layers[3].KeepsPages());
  EXPECT_FALSE(plan.layers[4].KeepsPages());
}

TEST_F(HybridConfig, LfmTakesAThirdOffItsWidthAndListsItsAttention) {
  const Json lfm = {{"model_type", "lfm2"},
                    {"hidden_size", 64},
                    {"block_ff_dim", 12288},
                    {"num_hidden_layers", 4},
                    {"num_attention_heads", 4},
                    {"num_key_value_heads", 2},
                    {"vocab_size", 100},
                    {"max_position_embeddings", 256},
                    {"block_auto_adjust_ff_dim", true},
                    {"norm_eps", 1e-4},
                    {"full_attn_idxs", {1, 3}},
                    {"conv_L_cache", 3}};
  const ModelShape s = Read(lfm);
  EXPECT_EQ(s.ffn, 8192);
  EXPECT_EQ(s.norm_eps, 1e-4);
  EXPECT_EQ(s.rope_theta, 1e6);
  EXPECT_TRUE(s.tied);
  EXPECT_EQ(s.hybrid.layers, (std::vector<uint8_t>{1, 0, 1, 0}));
  EXPECT_EQ(PlanOf(s).state(), 2 * 2 * 64);
  WriteModelConfig(s, temp_.path(), "float32");
  EXPECT_EQ(ReadModelConfig(temp_.path()), s);
  Refuses(lfm, "conv_bias", true, "conv_bias");
  Json odd = lfm;
  odd["block_multiple_of"] = 100;
  EXPECT_EQ(Read(odd).ffn, 8200);
}

}  // namespace
}  // namespace plumb::policy_model
