// learner/algorithms/critic.h: which models may be a critic of their own.
#include "learner/algorithms/critic.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/text/tokenizer/tokenizer.h"
#include "policy_model/memory/scalar_head.h"
#include "tests/learner/algorithms/ppo_rig.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using policy_model::Transformer;
using policy_model::Weights;

TEST(CriticTest, RefusesAModelThatCannotBeItsCritic) {
  testing::TempFolder folder;
  configs::Config config = PpoConfig("own");
  policy_model::ModelShape other = TinyShape();
  other.vocab = 23;
  Weights wrong(other, Device::kCpu, DType::kFloat32),
      headless(TinyShape(), Device::kCpu, DType::kFloat32);
  wrong.Initialise(1, 0.1);
  headless.Initialise(1, 0.1);
  policy_model::SaveModelDirectory(wrong, folder.path() + "/vocab", "");
  policy_model::SaveModelDirectory(headless, folder.path() + "/headless", "");
  const std::pair<const char*, const char*> cases[] = {
      {"/vocab", "share a tokenizer"}, {"/headless", "scalar head"}, {"/nowhere", "config.json"}};
  for (const auto& [name, expected] : cases) {
    config.critic.path = folder.path() + name;
    try {
      Rig rig(config);
      FAIL() << name;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(expected), std::string::npos) << e.what();
    }
  }
}

TEST(CriticTest, StartsFromAModelWithAScalarHeadAndTheSameTokenizer) {
  testing::TempFolder folder;
  const auto tokenizer = Tokenizer::BuiltIn("arithmetic");
  policy_model::ModelShape shape = TinyShape();
  shape.vocab = tokenizer->size();
  Weights policy(shape, Device::kCpu, DType::kFloat32);
  policy.Initialise(6, 0.1);
  const Weights saved = policy_model::ScalarHeadFrom(policy, 8);
  const std::string critic_path = folder.path() + "/critic",
                    policy_path = folder.path() + "/policy";
  policy_model::SaveModelDirectory(saved, critic_path, "");
  policy_model::SaveModelDirectory(policy, policy_path, "");
  RealFileSystem().WriteFileAtomic(policy_path + "/tokenizer.json", tokenizer->json());
  RealFileSystem().WriteFileAtomic(critic_path + "/tokenizer.json", tokenizer->json());
  configs::Config config = PpoConfig("own");
  config.model.path = policy_path;
  config.critic.path = critic_path;
  Transformer transformer(shape, Device::kCpu, DType::kFloat32);
  TrainStep train(transformer, 64);
  Critic critic(config, policy, train);
  // the head too: it knows something already
  EXPECT_EQ(critic.weights().ComputeDigest(), saved.ComputeDigest());

  // The same size, two tokens exchanged: numbers would mean other texts.
  std::string other = tokenizer->json();
  const std::string a(tokenizer->TokenBytes(tokenizer->Find("3"))),
      b(tokenizer->TokenBytes(tokenizer->Find("4")));
  nlohmann::json j = nlohmann::json::parse(other);
  auto& vocabulary = j["model"]["vocab"];
  ASSERT_TRUE(vocabulary.contains(a) && vocabulary.contains(b));
  std::swap(vocabulary[a], vocabulary[b]);
  RealFileSystem().WriteFileAtomic(critic_path + "/tokenizer.json", j.dump());
  try {
    Critic wrong(config, policy, train);
    FAIL() << "another tokenizer has to be refused";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tokenizer is not the policy's"), std::string::npos)
        << e.what();
  }
}
}  // namespace
}  // namespace plumb::learner
