// What is said of a model folder: numbers that loading it would give, and every fault at once.
#include "run/models/model_report.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/base/error.h"
#include "learner/update/optimizer.h"
#include "policy_model/families/model_config.h"
#include "policy_model/memory/load_check.h"
#include "tests/run/models/toy_model.h"
#include "tests/testing/temp_folder.h"

namespace plumb::run {
namespace {

bool Says(const std::vector<std::string>& problems, const std::string& part) {
  return std::any_of(problems.begin(), problems.end(),
                     [&](const std::string& p) { return p.find(part) != std::string::npos; });
}

TEST(ModelReport, TheNumbersAreThoseOfTheModelThatIsLoaded) {
  const plumb::testing::TempFolder temp;
  const std::string folder = temp / "model";
  testing::WriteToyModel(folder, {.chat_template = true});
  const ModelReport r = ReportOnModel(folder, {.rank = 4, .batch = 3, .length = 20});
  EXPECT_TRUE(r.problems.empty()) << r.problems.front();
  policy_model::Weights weights = testing::ToyWeights();
  EXPECT_EQ(r.parameters, weights.table().parameters());
  EXPECT_EQ(r.embedding, 26 * 32);
  EXPECT_EQ(r.head, 0) << "the embedding is the head";
  EXPECT_EQ(r.vocabulary, 26);
  EXPECT_TRUE(r.chat_template);
  EXPECT_FALSE(r.takes_tools);
  ASSERT_EQ(r.ends.size(), 1u);
  EXPECT_EQ(r.ends[0].second, "<eos>");
  EXPECT_EQ(r.kv_bytes_per_token, 2 * 2 * 2 * 8 * 4);
  EXPECT_GT(r.file_bytes, r.parameters * 4);
  EXPECT_LT(r.file_bytes, r.parameters * 4 + 8192);
  // What weights and optimizer really take, padding included.
  for (const DType type : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool lora : {false, true}) {
      policy_model::Weights model(testing::ToyShape(), Device::kCpu, type);
      if (lora) model.AddAdapter({.rank = 4}, 1);
      learner::Optimizer optimizer(model, {});
      learner::StateBytes held;
      for (const auto& set : model.sets()) held.weights += static_cast<int64_t>(set->flat.bytes());
      for (auto& state : optimizer.sets()) {
        held.masters += static_cast<int64_t>(state.own_master.bytes());
        held.gradients += static_cast<int64_t>(state.grad.bytes());
        held.moments += static_cast<int64_t>(state.m.bytes() + state.v.bytes());
      }
      const learner::StateBytes said = lora ? r.Lora(type) : r.Full(type);
      EXPECT_EQ(said.weights, held.weights);
      EXPECT_EQ(said.masters, held.masters);
      EXPECT_EQ(said.gradients, held.gradients);
      EXPECT_EQ(said.moments, held.moments);
      EXPECT_EQ(said.total(), held.total());
    }
  }
  const auto json = r.Json();
  EXPECT_EQ(json["generate_bytes"]["kv"], 3 * 20 * 256);
  EXPECT_EQ(json["lora"]["rank"], 4);
  EXPECT_EQ(json["loads"], true);
  EXPECT_EQ(json["context"], 64);
  for (const char* word : {"llama", "2 layers", "<eos>", "LoRA", "to generate", "to train", "yes"})
    EXPECT_NE(r.Text().find(word), std::string::npos) << word << "\n" << r.Text();
}

TEST(ModelReport, AnAdaptersFolderIsReadWithItsBase) {
  const plumb::testing::TempFolder temp;
  testing::WriteToyModel(temp / "model");
  policy_model::Weights weights = testing::ToyWeights();
  weights.AddAdapter({.rank = 2, .alpha = 4, .targets = {"q_proj"}}, 1);
  policy_model::SaveModelDirectory(weights, temp / "adapter", "", temp / "model");
  const ModelReport r = ReportOnModel(temp / "adapter", {});
  EXPECT_TRUE(r.problems.empty()) << r.problems.front();
  EXPECT_EQ(r.place.base, temp / "model");
  EXPECT_EQ(r.adapter_parameters, 2 * 2 * (32 + 32));
  EXPECT_EQ(r.WeightBytes(DType::kFloat32), 4 * (r.stored + r.adapter_stored));
  EXPECT_GE(r.stored, r.parameters);
}

TEST(ModelReport, OfExpertsSaysWhatATokenGoesThrough) {
  const plumb::testing::TempFolder temp;
  const std::string folder = temp / "model";
  testing::WriteToyModel(folder);
  EXPECT_EQ(ReportOnModel(folder, {}).active, ReportOnModel(folder, {}).parameters);
  policy_model::ModelShape shape = policy_model::ReadModelConfig(folder);
  shape.family = "qwen3_moe";
  shape.experts = {.count = 4, .widths = {16}, .per_token = 1};
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(1, 0.1);
  policy_model::SaveModelDirectory(weights, folder, "");
  const ModelReport r = ReportOnModel(folder, {});
  EXPECT_TRUE(r.problems.empty()) << r.problems.front();
  EXPECT_EQ(r.active, r.parameters - shape.layers * 3 * 3 * shape.hidden * 16);
  EXPECT_EQ(r.Json()["parameters"]["active"], r.active);
  EXPECT_EQ(r.Json()["experts"]["count"], 4);
  EXPECT_NE(r.Text().find("4 a layer of width 16, 1 a token"), std::string::npos) << r.Text();
  EXPECT_NE(r.Text().find(" a token), of it embedding"), std::string::npos) << r.Text();
}

TEST(ModelReport, OfLatentAttentionSaysWhatATokenTakesAndWouldTake) {
  const plumb::testing::TempFolder temp;
  const std::string folder = temp / "model";
  testing::WriteToyModel(folder);
  policy_model::ModelShape shape = policy_model::ReadModelConfig(folder);
  shape.family = "plumb";
  shape.kv_heads = shape.heads;
  shape.latent = {.kv_rank = 12, .query_rank = 10, .nope = 8, .rope = 4, .value = 8};
  shape.head_dim = shape.latent.head();
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(1, 0.1);
  policy_model::SaveModelDirectory(weights, folder, "");
  const ModelReport r = ReportOnModel(folder, {});
  EXPECT_TRUE(r.problems.empty()) << r.problems.front();
  EXPECT_EQ(r.kv_bytes_per_token, shape.layers * (12 + 4) * 4);
  EXPECT_EQ(r.Json()["latent"]["cached"], 16);
  EXPECT_EQ(r.Json()["latent"]["uncompressed"], shape.heads * (12 + 8));
  EXPECT_NE(r.Text().find("heads of 8 + 4 (values 8)"), std::string::npos) << r.Text();
  EXPECT_NE(r.Text().find("12 + 4 numbers a token and layer are kept, where keys and values of all "
                          "heads would be " +
                          std::to_string(shape.heads * 20) + "; queries through 10"),
            std::string::npos)
      << r.Text();
}

TEST(ModelReport, OfLayersWithStatesSaysWhatASequenceHolds) {
  const plumb::testing::TempFolder temp;
  const std::string folder = temp / "model";
  testing::WriteToyModel(folder);
  policy_model::ModelShape shape = policy_model::ReadModelConfig(folder);
  EXPECT_EQ(ReportOnModel(folder, {}).state_bytes, 0);
  shape.family = "qwen3_5_text";
  shape.attention_gate = true;
  shape.hybrid = {.layers = {1, 0}, .taps = 4, .k_heads = 1, .v_heads = 2, .k_dim = 8, .v_dim = 16};
  policy_model::Weights weights(shape, Device::kCpu, DType::kFloat32);
  weights.Initialise(1, 0.1);
  policy_model::SaveModelDirectory(weights, folder, "");
  const ModelReport r = ReportOnModel(folder, {.batch = 3});
  EXPECT_TRUE(r.problems.empty()) << r.problems.front();
  // Three inputs of 2 x 8 + 2 x 16 channels, and two heads of 8 x 16; keys and values of one layer.
  EXPECT_EQ(r.state_bytes, 4 * (3 * 48 + 2 * 8 * 16));
  EXPECT_EQ(r.kv_bytes_per_token, 2 * 2 * 8 * 4);
  EXPECT_EQ(r.Json()["generate_bytes"]["states"], 3 * r.state_bytes);
  EXPECT_NE(r.Text().find("states 5 kB (3 x 2 kB, whatever the length)"), std::string::npos)
      << r.Text();
}

TEST(ModelReport, EveryFaultIsNamedNotOnlyTheFirst) {
  const plumb::testing::TempFolder temp;
  const std::string folder = temp / "model";
  testing::WriteToyModel(folder);
  // A config that asks for another model than the weights are, no tokenizer, a broken template.
  policy_model::ModelShape shape = policy_model::ReadModelConfig(folder);
  shape.layers = 3;
  shape.ffn = 48;
  policy_model::WriteModelConfig(shape, folder, "float32");
  RealFileSystem().Remove(folder + "/tokenizer.json");
  testing::WriteFile(folder + "/chat_template.jinja", "{% for m in %}");
  const ModelReport r = ReportOnModel(folder, {});
  EXPECT_TRUE(Says(r.problems, "shape [64, 32], config.json asks for [48, 32]"));
  EXPECT_TRUE(Says(r.problems, "tensors are missing: model.layers.2."));
  EXPECT_TRUE(Says(r.problems, "tokenizer.json"));
  EXPECT_TRUE(Says(r.problems, "template"));
  EXPECT_NE(r.Text().find("loads         no"), std::string::npos) << r.Text();
  EXPECT_EQ(r.Json()["loads"], false);
  EXPECT_EQ(r.Json()["problems"].size(), r.problems.size());
}

TEST(ModelReport, AFamilyThatIsNotKnownHidesNoOtherFault) {
  const plumb::testing::TempFolder temp;
  testing::WriteFile(temp / "config.json", R"({"model_type": "rwkv7"})");
  const ModelReport r = ReportOnModel(temp.path(), {});
  EXPECT_TRUE(Says(r.problems, "rwkv7"));
  EXPECT_TRUE(Says(r.problems, "tokenizer.json"));
  EXPECT_FALSE(r.shape);
  EXPECT_FALSE(r.Json().contains("parameters"));
  EXPECT_THROW(ReportOnModel(temp / "nothing", {}), Error);
  EXPECT_NE(r.Text().find("end tokens    not known"), std::string::npos) << r.Text();
}

}  // namespace
}  // namespace plumb::run
