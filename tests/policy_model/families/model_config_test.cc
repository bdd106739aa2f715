// config.json of Hugging Face model folders: round trips, defaults, and refusals by name.
#include "policy_model/families/model_config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/families/family.h"
#include "policy_model/files/safetensors.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::ordered_json;

class ModelConfig : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const Json& j, const char* name = "config.json") {
    RealFileSystem().WriteFileAtomic(folder_ + "/" + name, j.dump());
  }
  void Refuses(const char* key, const Json& value, ErrorCode code, const std::string& what) {
    Json j = llama_;
    j[key] = value;
    Write(j);
    try {
      ReadModelConfig(folder_);
      ADD_FAILURE() << "accepted " << key << " = " << value;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("config.json"), std::string::npos) << e.what();
    }
  }
  const std::string folder_ = ::testing::TempDir() + "/model_config_" + std::to_string(getpid());
  const Json llama_ = {
      {"model_type", "llama"},    {"hidden_act", "silu"},   {"hidden_size", 64},
      {"intermediate_size", 128}, {"num_hidden_layers", 2}, {"num_attention_heads", 4},
      {"num_key_value_heads", 2}, {"vocab_size", 100},      {"max_position_embeddings", 256},
      {"rms_norm_eps", 1e-5},     {"rope_theta", 100000.0}, {"tie_word_embeddings", true},
      {"bos_token_id", 1},        {"eos_token_id", 2}};
};

TEST_F(ModelConfig, RoundTripsBothFamilies) {
  for (const char* family : {"llama", "qwen2"}) {
    ModelShape s;
    s.family = family;
    s.attention_bias = s.family == "qwen2";
    s.layers = 3, s.hidden = 60, s.heads = 6, s.kv_heads = 3, s.head_dim = 16, s.ffn = 99,
    s.vocab = 26, s.max_positions = 512;
    s.rope_theta = 1e6, s.norm_eps = 1e-6, s.tied = false, s.bos_token = 1, s.pad_token = 0,
    s.eos_tokens = {2, 7};
    WriteModelConfig(s, folder_, "bfloat16");
    EXPECT_EQ(ReadModelConfig(folder_), s);
    s.eos_tokens = {2};
    s.tied = true;
    s.bos_token = s.pad_token = -1;
    WriteModelConfig(s, folder_, "float32");
    EXPECT_EQ(ReadModelConfig(folder_), s);
  }
}

TEST_F(ModelConfig, WritesTheClassNamesThatTransformersLoads) {
  Write(llama_);
  WriteModelConfig(ReadModelConfig(folder_), folder_, "float32");
  const Json j = Json::parse(RealFileSystem().ReadFile(folder_ + "/config.json", 1 << 16));
  EXPECT_EQ(j["architectures"], Json::array({"LlamaForCausalLM"}));
  EXPECT_EQ(j["head_dim"], 16);
  EXPECT_EQ(j["torch_dtype"], "float32");
}

// Its class in transformers 5 takes nothing else.
TEST_F(ModelConfig, WritesGemmasQueryScalarAsTheWholeNumberThatItWas) {
  Json j = llama_;
  j["model_type"] = "gemma3_text";
  j["hidden_act"] = "gelu_pytorch_tanh";
  for (const int64_t scalar : {24, 168, 256}) {
    j["query_pre_attn_scalar"] = scalar;
    Write(j);
    WriteModelConfig(ReadModelConfig(folder_), folder_, "float32");
    const Json written = Json::parse(RealFileSystem().ReadFile(folder_ + "/config.json", 1 << 16));
    EXPECT_TRUE(written["query_pre_attn_scalar"].is_number_integer());
    EXPECT_EQ(written["query_pre_attn_scalar"], scalar);
  }
}

TEST_F(ModelConfig, FillsInWhatOlderFilesLeaveOut) {
  Json j = llama_;
  for (const char* key : {"num_key_value_heads", "rope_theta", "max_position_embeddings",
                          "bos_token_id", "eos_token_id"})
    j.erase(key);
  Write(j);
  const ModelShape s = ReadModelConfig(folder_);
  EXPECT_EQ(s.kv_heads, 4);
  EXPECT_EQ(s.head_dim, 16);
  EXPECT_EQ(s.rope_theta, 10000);
  EXPECT_EQ(s.bos_token, -1);
  EXPECT_TRUE(s.eos_tokens.empty());
}

TEST_F(ModelConfig, TakesTheDefaultsOfTheFamilysClass) {
  struct Row {
    const char* type;
    int64_t kv_heads, max_positions;
  };
  for (const Row& row : {Row{"llama", 64, 2048}, Row{"mistral", 8, 131072}, Row{"qwen2", 32, 32768},
                         Row{"qwen3", 32, 32768}, Row{"olmo3", 64, 2048}, Row{"phi3", 64, 4096},
                         Row{"granite", 64, 2048}, Row{"glm4", 2, 131072}}) {
    Json j = llama_;
    for (const char* key :
         {"num_key_value_heads", "max_position_embeddings", "tie_word_embeddings"})
      j.erase(key);
    j["model_type"] = row.type;
    j["num_attention_heads"] = 64;
    j["head_dim"] = 2;
    Write(j);
    const ModelShape s = ReadModelConfig(folder_);
    EXPECT_EQ(s.kv_heads, row.kv_heads) << row.type;
    EXPECT_EQ(s.max_positions, row.max_positions) << row.type;
    EXPECT_FALSE(s.tied) << row.type;
    j["num_key_value_heads"] = nullptr;
    Write(j);
    EXPECT_EQ(ReadModelConfig(folder_).kv_heads, 64) << row.type << ": null means as many as heads";
  }
}

TEST_F(ModelConfig, AnotherHeadInTheWeightsUntiesIt) {
  Write(llama_);
  const auto tensor = [](const char* name, int value, DType dtype = DType::kFloat32) {
    return TensorToWrite{name, dtype, {3, 2}, [value](std::span<std::byte> out) {
                           for (std::byte& b : out) b = static_cast<std::byte>(value);
                         }};
  };
  const auto tied_with = [&](std::vector<TensorToWrite> tensors) {
    WriteSafetensors(folder_ + "/model.safetensors", tensors, {});
    return ReadModelConfig(folder_).tied;
  };
  EXPECT_TRUE(tied_with({tensor("model.embed_tokens.weight", 7)}));
  EXPECT_TRUE(tied_with({tensor("lm_head.weight", 7)}));
  EXPECT_TRUE(tied_with({tensor("model.embed_tokens.weight", 7), tensor("lm_head.weight", 7)}));
  EXPECT_FALSE(tied_with({tensor("model.embed_tokens.weight", 7), tensor("lm_head.weight", 8)}));
  EXPECT_FALSE(tied_with({tensor("language_model.model.embed_tokens.weight", 7),
                          tensor("language_model.lm_head.weight", 8)}));
  EXPECT_FALSE(tied_with(
      {tensor("model.embed_tokens.weight", 7), tensor("lm_head.weight", 7, DType::kBFloat16)}));
}

// transformers 5 writes mistral3 around a text part of its own, untied class.
TEST_F(ModelConfig, AWrapperSaysWhetherTheHeadIsTied) {
  Json text = llama_;
  text["tie_word_embeddings"] = false;
  Write({{"model_type", "mistral3"}, {"text_config", text}});
  EXPECT_FALSE(ReadModelConfig(folder_).tied);
  Write({{"model_type", "mistral3"}, {"tie_word_embeddings", true}, {"text_config", text}});
  EXPECT_TRUE(ReadModelConfig(folder_).tied);
  text["tie_word_embeddings"] = true;
  Write({{"model_type", "mistral3"}, {"tie_word_embeddings", false}, {"text_config", text}});
  EXPECT_FALSE(ReadModelConfig(folder_).tied);
}

TEST_F(ModelConfig, JoinsTheEndTokensOfBothFiles) {
  Write(llama_);
  Write({{"eos_token_id", {2, 5, 9}}}, "generation_config.json");
  EXPECT_EQ(ReadModelConfig(folder_).eos_tokens, (std::vector<int32_t>{2, 5, 9}));
}

TEST_F(ModelConfig, ReadsTheRotaryBaseOfNewerFiles) {
  Json j = llama_;
  j.erase("rope_theta");
  j["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500000.0}};
  Write(j);
  EXPECT_EQ(ReadModelConfig(folder_).rope_theta, 500000);
}

TEST_F(ModelConfig, RefusesByName) {
  const ErrorCode unsupported = ErrorCode::kUnsupported, corrupt = ErrorCode::kCorruption,
                  invalid = ErrorCode::kInvalidArgument;
  Refuses("model_type", "gpt_neox", unsupported, "gpt_neox");
  Refuses("hidden_act", "gelu", unsupported, "gelu");
  Refuses("rope_scaling", Json{{"rope_type", "proportional"}, {"factor", 8.0}}, unsupported,
          "proportional");
  Refuses("rope_scaling", Json{{"rope_type", "longrope"}, {"factor", 8.0}}, corrupt,
          "short_factor");
  Refuses("rope_scaling", Json{{"type", 3}}, corrupt, "type");
  Refuses("rope_scaling", Json{{"rope_type", "llama3"}}, corrupt, "factor");
  Refuses("rope_scaling", Json{{"rope_type", "yarn"}, {"factor", 0.5}}, corrupt, "stretch nothing");
  Refuses("rope_scaling", Json{{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 4.0}},
          corrupt, "stretch nothing");
  Refuses("quantization_config", Json{{"quant_method", "fp8"}}, unsupported, "'fp8'");
  Refuses("partial_rotary_factor", 1.5, invalid, "partial_rotary_factor");
  Refuses("hidden_size", "64", corrupt, "hidden_size");
  Refuses("hidden_size", nullptr, corrupt, "hidden_size");
  Refuses("hidden_size", 1e9, corrupt, "hidden_size");
  Refuses("num_attention_heads", 0, corrupt, "num_attention_heads");
  Refuses("num_hidden_layers", -1, invalid, "layers");
  Refuses("vocab_size", int64_t{1} << 40, invalid, "vocab");
  Refuses("num_key_value_heads", 3, invalid, "kv_heads");
  Refuses("head_dim", 15, invalid, "head_dim");
  Refuses("rms_norm_eps", 0.0, invalid, "norm_eps");
  Refuses("eos_token_id", 100, invalid, "100");
  Refuses("eos_token_id", "x", corrupt, "eos_token_id");
  Refuses("bos_token_id", int64_t{1} << 33, corrupt, "bos_token_id");
}

TEST_F(ModelConfig, ReadsSlidingLayersAndRefusesKindsItDoesNotKnow) {
  Json j = llama_;
  j["model_type"] = "olmo3";
  j["sliding_window"] = 7;
  j["layer_types"] = {"full_attention", "sliding_attention"};
  Write(j);
  const ModelShape s = ReadModelConfig(folder_);
  EXPECT_FALSE(s.slides(0));
  EXPECT_TRUE(s.slides(1));
  EXPECT_EQ(s.window, 7);
  j["layer_types"] = {"full_attention", "linear_attention"};
  Write(j);
  EXPECT_THROW(ReadModelConfig(folder_), Error);
  j["layer_types"] = {"full_attention"};
  Write(j);
  EXPECT_THROW(ReadModelConfig(folder_), Error);
}

TEST(ModelShapeTest, AScoreStandsAtTheLastTokenThatIsNoPadding) {
  ModelShape shape;
  const std::vector<int32_t> tokens = {5, 2, 7, 2, 2};
  EXPECT_EQ(shape.ScoredPosition(tokens), 4);
  shape.pad_token = 2;
  EXPECT_EQ(shape.ScoredPosition(tokens), 2);
  shape.pad_token = 5;
  EXPECT_EQ(shape.ScoredPosition(tokens), 4);
  shape.pad_token = 2;
  EXPECT_EQ(shape.ScoredPosition(std::vector<int32_t>{2, 2}), 0);
}

TEST_F(ModelConfig, AScalarHeadIsSaidByTheArchitecture) {
  ModelShape shape{.layers = 2,
                   .hidden = 32,
                   .heads = 4,
                   .kv_heads = 2,
                   .head_dim = 8,
                   .ffn = 40,
                   .vocab = 31,
                   .max_positions = 64,
                   .eos_tokens = {2}};
  shape.scalar_head = true;
  WriteModelConfig(shape, folder_, "float32");
  EXPECT_TRUE(ReadModelConfig(folder_).scalar_head);
  Json j = Json::parse(RealFileSystem().ReadFile(folder_ + "/config.json", 1 << 20));
  EXPECT_EQ(j["architectures"][0], "LlamaForSequenceClassification");
  EXPECT_EQ(j["id2label"].size(), 1u);
  j["id2label"]["1"] = "LABEL_1";
  RealFileSystem().WriteFileAtomic(folder_ + "/config.json", j.dump());
  EXPECT_THROW(ReadModelConfig(folder_), Error);
  shape.scalar_head = false;
  WriteModelConfig(shape, folder_, "float32");
  EXPECT_FALSE(ReadModelConfig(folder_).scalar_head);
  shape.scalar_head = true;
  shape.family = "gemma3_text";
  shape.attention_scale = 0.25;
  WriteModelConfig(shape, folder_, "float32");
  j = Json::parse(RealFileSystem().ReadFile(folder_ + "/config.json", 1 << 20));
  EXPECT_EQ(j["architectures"][0], "Gemma3TextForSequenceClassification") << "not the wrapper's";
  Refuses("architectures", "LlamaForCausalLM", ErrorCode::kCorruption, "architectures");
  Refuses("num_hidden_layers", 0, ErrorCode::kInvalidArgument, "layers");
}

TEST_F(ModelConfig, TurnsToTheLongFactorsWhereSequencesAreLonger) {
  Json j = llama_;
  j["model_type"] = "phi3";
  j["original_max_position_embeddings"] = 64;
  std::vector<double> one(8, 1.0), more(8, 4.0);
  j["rope_scaling"] = {{"type", "longrope"}, {"short_factor", one}, {"long_factor", more}};
  Write(j);
  const ModelShape s = ReadModelConfig(folder_), within = ReadModelConfig(folder_, 64),
                   beyond = ReadModelConfig(folder_, 65);
  EXPECT_EQ(s.max_positions, 64);
  EXPECT_EQ(within, s);
  EXPECT_EQ(beyond.max_positions, 256);
  EXPECT_EQ(PlanOf(s).rotary[0].frequencies[1], 4 * PlanOf(beyond).rotary[0].frequencies[1]);
  EXPECT_DOUBLE_EQ(PlanOf(s).rotary[0].factor, std::sqrt(1 + std::log(4.0) / std::log(64.0)));
  EXPECT_DOUBLE_EQ(PlanOf(beyond).rotary[0].factor, PlanOf(s).rotary[0].factor);
  WriteModelConfig(s, folder_, "float32");
  EXPECT_EQ(ReadModelConfig(folder_, 65), beyond) << "the long factors are not lost";
  more.pop_back();
  j["rope_scaling"]["long_factor"] = more;
  Write(j);
  try {
    ReadModelConfig(folder_);
    ADD_FAILURE() << "a factor is missing";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("long_factor"), std::string::npos) << e.what();
  }
}

TEST_F(ModelConfig, RefusesAnOmittedRotaryBaseThatHasNoDefault) {
  Json j = llama_;
  j["model_type"] = "ministral3";
  j.erase("rope_theta");
  const auto refuses = [&](const char* what) {
    Write(j);
    try {
      ReadModelConfig(folder_);
      ADD_FAILURE() << "accepted without " << what;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption) << e.what();
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("config.json"), std::string::npos) << e.what();
    }
  };
  refuses("rope_theta");
  j["rope_theta"] = 1e6;
  refuses("rope_parameters");
  j["rope_parameters"] = {{"rope_type", "default"}};
  refuses("llama_4_scaling_beta");
  j["rope_parameters"]["llama_4_scaling_beta"] = 0.1;
  refuses("original_max_position_embeddings");
  j["rope_parameters"]["original_max_position_embeddings"] = 0;
  refuses("original_max_position_embeddings");
  j["rope_parameters"]["original_max_position_embeddings"] = 128;
  Write(j);
  EXPECT_EQ(ReadModelConfig(folder_).rope.query_beta, 0.1);
}

TEST_F(ModelConfig, MultipliersArePositive) {
  Json j = llama_;
  j["model_type"] = "granite";
  for (const char* key :
       {"embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling"}) {
    Json wrong = j;
    wrong[key] = 0;
    Write(wrong);
    try {
      ReadModelConfig(folder_);
      ADD_FAILURE() << "accepted " << key << " = 0";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
    }
  }
}

TEST_F(ModelConfig, BrokenFilesAreErrors) {
  EXPECT_THROW(ReadModelConfig(folder_), Error);  // no file
  const std::string whole = llama_.dump();
  for (size_t n = 0; n < whole.size(); n += 5) {
    RealFileSystem().WriteFileAtomic(folder_ + "/config.json", whole.substr(0, n));
    EXPECT_THROW(ReadModelConfig(folder_), Error) << n;
  }
  RealFileSystem().WriteFileAtomic(folder_ + "/config.json",
                                   whole.substr(0, whole.size() - 1) + R"(,"vocab_size":5})");
  EXPECT_THROW(ReadModelConfig(folder_), Error);  // a key twice
}

}  // namespace
}  // namespace plumb::policy_model
