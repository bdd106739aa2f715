// The reference that moves towards the policy, and what a resumed run finds of it.
#include "learner/update/reference_policy.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>

#include "learner/update/checkpoint.h"
#include "learner/update/optimizer.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using policy_model::Weights;

struct Rig {
  policy_model::Transformer transformer;
  TrainStep train{transformer, 64};
  Weights weights;
  explicit Rig(DType dtype)
      : transformer(TinyShape(), Device::kCpu, dtype), weights(TinyShape(), Device::kCpu, dtype) {
    weights.Initialise(3, 0.2);
  }
};

TEST(ReferencePolicyTest, MixesEveryWeight) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Rig rig(dtype);
    ReferencePolicy reference(rig.weights, rig.train);
    Weights first(TinyShape(), Device::kCpu, dtype);
    first.Initialise(3, 0.2);
    rig.weights.Initialise(4, 0.2);
    reference.Mix(rig.weights, 0.6);
    const auto floats = [&](const Weights& of) {
      std::vector<std::byte> bytes(of.flat().bytes());
      of.flat().CopyToHost(bytes);
      std::vector<float> out(static_cast<size_t>(of.flat().elements()));
      policy_model::ConvertToFloat(bytes.data(), dtype, out);
      return out;
    };
    const auto old = floats(first), policy = floats(rig.weights), got = floats(reference.weights());
    for (size_t i = 0; i < got.size(); ++i) {
      const double want = 0.6 * static_cast<double>(policy[i]) + 0.4 * static_cast<double>(old[i]);
      EXPECT_NEAR(got[i], want, std::abs(want) * (dtype == DType::kFloat32 ? 1e-6 : 0.004) + 1e-9);
    }
    reference.Mix(rig.weights, 1);
    EXPECT_EQ(reference.weights().ComputeDigest(), rig.weights.ComputeDigest());
  }
}

// The mix that Mix is held to above is that of TRL 1.16's SyncRefModelCallback, step after step.
TEST(ReferencePolicyTest, TheMixIsTrls) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/peer_functions.json");
  const nlohmann::json c = nlohmann::json::parse(file)["synchronised"];
  const std::vector<double> policy = c["policy"];
  std::vector<double> reference = c["reference"];
  const double share = c["mix"];
  ASSERT_EQ(c["steps"].size(), 2u);
  // The first numbers of a model are the golden's, so that the product's own loop mixes them.
  Rig rig(DType::kFloat32);
  const auto with = [&](Weights& weights, const std::vector<double>& numbers) {
    const std::span<float> flat(static_cast<float*>(weights.flat().data()),
                                static_cast<size_t>(weights.flat().elements()));
    for (size_t i = 0; i < numbers.size(); ++i) flat[i] = static_cast<float>(numbers[i]);
    return flat;
  };
  with(rig.weights, reference);
  ReferencePolicy kept(rig.weights, rig.train);
  with(rig.weights, policy);
  for (const auto& step : c["steps"]) {
    kept.Mix(rig.weights, share);
    const auto got = with(kept.weights(), {});
    for (size_t i = 0; i < policy.size(); ++i)
      EXPECT_NEAR(got[i], step[i].get<double>(), 2e-7) << i;
  }
}

TEST(ReferencePolicyTest, AResumeFindsTheOneOfItsStep) {
  testing::TempFolder folder;
  Rig rig(DType::kFloat32);
  Optimizer optimizer(rig.weights, {});
  ReferencePolicy reference(rig.weights, rig.train);
  Checkpoints checkpoints(folder / "c", 1, "");
  checkpoints.KeepReference(false, reference.weights());
  const auto found = [&](int64_t step) {
    Rig fresh(DType::kFloat32);
    fresh.weights.Initialise(9, 0.2);
    ReferencePolicy other(fresh.weights, fresh.train);
    checkpoints.KeepReference(true, other.weights());
    checkpoints.LoadRenewedReference(step, other.weights());
    return other.weights().ComputeDigest();
  };
  std::vector<Digest> digests = {reference.weights().ComputeDigest()};
  for (const int64_t step : {2, 4}) {
    rig.weights.Initialise(static_cast<uint64_t>(20 + step), 0.2);
    reference.Mix(rig.weights, 0.5);
    checkpoints.KeepRenewedReference(step, reference.weights());
    digests.push_back(reference.weights().ComputeDigest());
  }
  EXPECT_EQ(found(1), digests[0]);
  EXPECT_EQ(found(2), digests[1]);
  EXPECT_EQ(found(3), digests[1]);
  EXPECT_EQ(found(9), digests[2]);

  // Behind a checkpoint of step 5 nobody goes back to the one of step 2.
  checkpoints.Save({.step = 5}, rig.weights, optimizer);
  rig.weights.Initialise(31, 0.2);
  reference.Mix(rig.weights, 0.5);
  checkpoints.KeepRenewedReference(6, reference.weights());
  EXPECT_FALSE(std::filesystem::exists(folder / "c/reference-00000002"));
  EXPECT_EQ(found(5), digests[2]);
  EXPECT_EQ(found(6), reference.weights().ComputeDigest());
}

}  // namespace
}  // namespace plumb::learner
