// The reference that moves towards the policy, and what a resumed run finds of it.
#include "learner/update/reference_policy.h"

#include <gtest/gtest.h>

#include <filesystem>

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
