// What becomes of the config.json files that transformers 5 writes for 56 model types
// (tests/golden/make_hf5_configs.py): read by model_config.h, or refused with an error that names
// what is not computed, and the file.
#include <gtest/gtest.h>

#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/families/family.h"
#include "policy_model/families/model_config.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::json;

// What is read, as which family; the types not named here are refused for the model_type that the
// second table says, or that is their own.
const std::map<std::string, std::string> kRead = {{"llama", "llama"},
                                                  {"mistral", "mistral"},
                                                  {"mistral3", "mistral"},
                                                  {"qwen2", "qwen2"},
                                                  {"ministral3", "ministral3"},
                                                  {"qwen3", "qwen3"},
                                                  {"smollm3", "smollm3"},
                                                  {"gemma3_text", "gemma3_text"},
                                                  {"gemma3", "gemma3_text"},
                                                  {"olmo3", "olmo3"},
                                                  {"phi3", "phi3"},
                                                  {"granite", "granite"},
                                                  {"qwen3_moe", "qwen3_moe"},
                                                  {"gpt_oss", "gpt_oss"},
                                                  {"minimax_m2", "minimax_m2"},
                                                  {"qwen3_5", "qwen3_5_text"},
                                                  {"qwen3_5_text", "qwen3_5_text"},
                                                  {"qwen3_5_moe", "qwen3_5_moe_text"},
                                                  {"qwen3_5_moe_text", "qwen3_5_moe_text"},
                                                  {"qwen3_next", "qwen3_next"},
                                                  {"lfm2", "lfm2"},
                                                  {"glm4", "glm4"},
                                                  {"deepseek_v2", "deepseek_v2"},
                                                  {"deepseek_v3", "deepseek_v3"},
                                                  {"kimi_k25", "deepseek_v3"},
                                                  {"glm4_moe", "glm4_moe"},
                                                  {"glm4_moe_lite", "glm4_moe_lite"}};

const Json& Configs() {
  static const Json configs = [] {
    std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/hf5_configs.json");
    EXPECT_TRUE(file.good());
    return Json::parse(file);
  }();
  return configs;
}

TEST(WrittenConfigs, AreReadOrRefusedByNameAndFile) {
  const testing::TempFolder folder;
  ASSERT_EQ(Configs().size(), 56u);
  size_t read = 0;
  for (const auto& [type, given] : Configs().items()) {
    Json config = given;
    // The class has no number by default, and no file of a model leaves it out.
    if (type == "deepseek_v2") config["num_experts_per_tok"] = 6;
    RealFileSystem().WriteFileAtomic(folder / "config.json", config.dump());
    const auto found = kRead.find(type);
    const Json& text = config.contains("text_config") ? config["text_config"] : config;
    try {
      const ModelShape s = ReadModelConfig(folder.path());
      ASSERT_NE(found, kRead.end()) << type << " is read: put it into the table, and test it";
      ++read;
      EXPECT_EQ(s.family, found->second) << type;
      EXPECT_EQ(s.layers, text["num_hidden_layers"]) << type;
      EXPECT_EQ(s.hidden, text["hidden_size"]) << type;
      EXPECT_EQ(s.vocab, text["vocab_size"]) << type;
      EXPECT_EQ(s.norm_eps, text[text.contains("norm_eps") ? "norm_eps" : "rms_norm_eps"]) << type;
      const Json& rope = text["rope_parameters"];
      EXPECT_EQ(s.rope_theta,
                (rope.contains("full_attention") ? rope["full_attention"] : rope)["rope_theta"])
          << type;
    } catch (const Error& e) {
      const std::string says = e.what();
      std::cout << type << ": " << says.substr(0, says.find("; known")) << "\n";
      EXPECT_EQ(found, kRead.end()) << type << ": " << says;
      EXPECT_EQ(e.code(), ErrorCode::kUnsupported) << type << ": " << says;
      EXPECT_NE(says.find("model_type '" + text.value("model_type", "?") + "'"), std::string::npos)
          << type << ": " << says;
      EXPECT_NE(says.find(folder / "config.json"), std::string::npos) << says;
    }
  }
  EXPECT_EQ(read, kRead.size());
}

}  // namespace
}  // namespace plumb::policy_model
