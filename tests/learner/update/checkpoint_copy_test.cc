#include "learner/update/checkpoint_copy.h"

#include <gtest/gtest.h>

#include "common/base/file.h"
#include "common/base/rng.h"
#include "learner/update/optimizer_file.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using plumb::testing::TempFolder;

void MakeUpdate(Optimizer& optimizer, uint64_t seed) {
  RandomStream random(seed, 2);
  optimizer.ZeroGrad();
  for (Optimizer::SetState& state : optimizer.sets()) {
    for (const auto& e : state.set->table->entries()) {
      for (int64_t k = 0; k < e.elements; ++k)
        state.grad.f32()[state.PlaceOf(e) + k] = random.NextNormal();
    }
  }
  ASSERT_TRUE(optimizer.Update(1e-2, 1.0).applied);
}

// What is written of a model, as one text.
std::string Files(const TempFolder& folder, const policy_model::Weights& weights,
                  std::span<Optimizer::SetState> sets, bool moments) {
  RealFileSystem().RemoveAll(folder / "m");
  policy_model::SaveModelDirectory(weights, folder / "m", "");
  SaveOptimizer(folder / "m/o", sets, /*optimizer=*/nullptr, moments);
  std::string text;
  for (const std::string& name : RealFileSystem().List(folder / "m"))
    text += name + RealFileSystem().ReadFile(folder / ("m/" + name), 1 << 24);
  return text;
}

// An update of the live model leaves the copy what it was; the next Take sees it.
TEST(CheckpointCopyTest, IsOfTheMomentItWasTaken) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    for (const bool lora : {false, true}) {
      for (const bool small : {false, true}) {
        const TempFolder folder;
        policy_model::Weights weights(TinyShape(), Device::kCpu, dtype);
        weights.Initialise(1, 0.3);
        if (lora) weights.AddAdapter({.rank = 4}, 1);
        configs::OptimizerConfig options;
        if (small) options.moments = configs::Moments::kInt8;
        Optimizer optimizer(weights, options);
        CheckpointCopy copy;
        for (uint64_t update = 1; update <= 2; ++update) {
          MakeUpdate(optimizer, update);
          const std::string live = Files(folder, weights, optimizer.sets(), true);
          copy.Take(weights, optimizer, /*masters=*/true, /*moments=*/true);
          MakeUpdate(optimizer, 7);
          EXPECT_NE(Files(folder, weights, optimizer.sets(), true), live);
          EXPECT_EQ(Files(folder, copy.weights(), copy.sets(), true), live)
              << update << lora << small;
        }
        int64_t held = 0;
        for (Optimizer::SetState& state : optimizer.sets()) {
          held += static_cast<int64_t>(state.set->flat.bytes() + state.own_master.bytes());
          for (const auto* moment : state.moments()) held += static_cast<int64_t>(moment->bytes());
        }
        EXPECT_EQ(copy.bytes(), held);
      }
    }
  }
}

TEST(CheckpointCopyTest, TakesOnlyWhatIsAskedFor) {
  policy_model::Weights weights(TinyShape(), Device::kCpu, DType::kBFloat16);
  weights.Initialise(1, 0.3);
  Optimizer optimizer(weights, {});
  CheckpointCopy copy;
  copy.Take(weights, optimizer, /*masters=*/false, /*moments=*/false);
  EXPECT_EQ(copy.bytes(), static_cast<int64_t>(weights.flat().bytes()));
  EXPECT_EQ(copy.weights().ComputeDigest(), weights.ComputeDigest());
}

}  // namespace
}  // namespace plumb::learner
