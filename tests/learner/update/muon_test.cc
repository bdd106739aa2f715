// learner/update/muon.h against a float64 script of the published formula (tests/golden/muon.py),
// and as the optimizer of a model: which tensors it updates, and that a checkpoint goes on exactly.
#include "learner/update/muon.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "learner/offline/sft.h"
#include "learner/update/optimizer.h"
#include "learner/update/optimizer_file.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using Json = nlohmann::json;
using policy_model::Weights;

TEST(MuonTest, EqualsThePublishedFormula) {
  std::ifstream file(PLUMB_SOURCE_DIR "/tests/golden/muon.json");
  const Stream stream(Device::kCpu);
  int steps = 0;
  for (const Json& c : Json::parse(file)) {
    std::vector<double> weight = c["begin"], momentum(weight.size(), 0.0);
    for (const Json& step : c["steps"]) {
      const std::vector<double> gradient = step["gradient"];
      MuonUpdate<double>(stream, c["rows"], c["columns"], weight.data(), momentum.data(),
                         gradient.data(),
                         {.learning_rate = c["rate"],
                          .momentum = c["momentum"],
                          .weight_decay = c["decay"],
                          .grad_scale = c["scale"]});
      for (size_t i = 0; i < weight.size(); ++i) {
        EXPECT_NEAR(weight[i], step["weight"][i].get<double>(), 1e-9);
        EXPECT_NEAR(momentum[i], step["momentum"][i].get<double>(), 1e-9);
      }
      ++steps;
    }
  }
  EXPECT_EQ(steps, 9);
}

configs::OptimizerConfig Options() {
  configs::OptimizerConfig options;
  options.name = configs::OptimizerName::kMuon;
  return options;
}

Weights Tiny(DType dtype) {
  Weights weights(TinyShape(), Device::kCpu, dtype);
  weights.Initialise(3, 0.2);
  return weights;
}

double Teach(Weights& weights, Optimizer& optimizer, int64_t steps) {
  policy_model::Transformer transformer(weights.shape(), Device::kCpu, weights.dtype());
  TrainStep train(transformer, 512);
  // Muon's rate follows: 0.02 here, as optimizer.muon_learning_rate over learning_rate says.
  configs::SftConfig sft{.steps = steps, .batch = 16, .learning_rate = 1e-6, .eval_every = 5};
  return RunSft(train, weights, optimizer, sft, 1, RandomDemonstrations(64, 1),
                RandomDemonstrations(16, 2), [](const SftStep&, const SftResult&) { return true; })
      .heldout_last;
}

TEST(MuonTest, UpdatesTheMatricesInsideTheLayersAndNothingElse) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    Weights weights = Tiny(dtype), before = Tiny(dtype);
    Optimizer optimizer(weights, Options());
    Teach(weights, optimizer, 2);
    Optimizer::SetState& state = optimizer.sets().front();
    int matrices = 0, others = 0;
    for (const auto& entry : weights.base().table->entries()) {
      const float* v = optimizer.v().f32() + state.PlaceOf(entry);
      const bool moved = std::any_of(v, v + entry.elements, [](float x) { return x != 0; });
      const bool muon = !MuonMatrices(entry).empty();
      EXPECT_EQ(moved, !muon) << entry.name;
      EXPECT_EQ(muon, entry.name.starts_with("layers.") && entry.shape.size() == 2) << entry.name;
      (muon ? matrices : others) += 1;
      if (entry.name.ends_with("qkv")) {
        EXPECT_EQ(MuonMatrices(entry).size(), 3u);
      }
    }
    EXPECT_EQ(matrices, 8);
    EXPECT_GT(others, 4);
    EXPECT_NE(weights.ComputeDigest(), before.ComputeDigest());
  }
}

TEST(MuonTest, LearnsAndGoesOnFromItsFileExactly) {
  testing::TempFolder folder;
  Weights weights = Tiny(DType::kFloat32), twin = Tiny(DType::kFloat32);
  Optimizer optimizer(weights, Options()), again(twin, Options());
  const double first = Teach(weights, optimizer, 5), later = Teach(weights, optimizer, 30);
  EXPECT_LT(later, 0.7 * first);  // with AdamW's rate of 1e-6 alone it would stand still

  SaveOptimizer(folder / "o.safetensors", optimizer, /*moments=*/true);
  std::vector<std::byte> bytes(weights.flat().bytes());
  weights.flat().CopyToHost(bytes);
  twin.flat().CopyFromHost(bytes);
  LoadOptimizer(folder / "o.safetensors", again, /*moments=*/true);
  again.Restore(optimizer.counters());
  again.set_moment_steps(optimizer.moment_steps());
  Teach(weights, optimizer, 4);
  Teach(twin, again, 4);
  EXPECT_EQ(twin.ComputeDigest(), weights.ComputeDigest());
  EXPECT_EQ(MomentsDigest(again), MomentsDigest(optimizer));
}

}  // namespace
}  // namespace plumb::learner
