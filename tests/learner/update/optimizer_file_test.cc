#include "learner/update/optimizer_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "common/base/error.h"
#include "common/base/file.h"
#include "common/base/rng.h"
#include "policy_model/files/safetensors.h"
#include "tests/learner/tiny_learner.h"
#include "tests/testing/temp_folder.h"

namespace plumb::learner {
namespace {

using plumb::testing::TempFolder;
using policy_model::FlatBuffer;
using policy_model::SafetensorsReader;
using policy_model::TensorToWrite;

std::vector<std::byte> Bytes(const FlatBuffer& flat) {
  std::vector<std::byte> out(flat.bytes());
  flat.CopyToHost(out);
  return out;
}

// A model whose optimizer has made three updates, with a gradient of its own everywhere.
struct Trained {
  policy_model::Weights weights;
  Optimizer optimizer;
  Trained(DType dtype, uint64_t seed)
      : weights(TinyShape(), Device::kCpu, dtype), optimizer(Drawn(weights, seed), {}) {
    RandomStream random(seed, 2);
    for (int i = 0; i < 3; ++i) {
      optimizer.ZeroGrad();
      for (const auto& e : weights.table().entries()) {
        for (int64_t k = 0; k < e.elements; ++k)
          optimizer.grad().f32()[e.offset + k] = random.NextNormal();
      }
      optimizer.Update(1e-3, 1.0);
    }
  }
  static policy_model::Weights& Drawn(policy_model::Weights& weights, uint64_t seed) {
    weights.Initialise(seed, 0.3);
    return weights;
  }
  Optimizer::SetState& state() { return optimizer.sets().front(); }
};

void CopyFlat(const FlatBuffer& from, FlatBuffer& to) { to.CopyFromHost(Bytes(from)); }

TEST(OptimizerFileTest, MastersAndMomentsComeBackBitForBit) {
  for (const DType dtype : {DType::kBFloat16, DType::kFloat32}) {
    const TempFolder folder;
    Trained saved(dtype, 1), read(dtype, 2);
    SaveOptimizer(folder / "o", saved.optimizer, /*moments=*/true);
    CopyFlat(saved.weights.flat(), read.weights.flat());  // as the model's own file does
    LoadOptimizer(folder / "o", read.optimizer, /*moments=*/true);
    EXPECT_EQ(Bytes(read.state().master()), Bytes(saved.state().master()));
    EXPECT_EQ(Bytes(read.state().m), Bytes(saved.state().m));
    EXPECT_EQ(Bytes(read.state().v), Bytes(saved.state().v));
    const auto size = static_cast<int64_t>(RealFileSystem().FileSize(folder / "o"));
    EXPECT_NEAR(static_cast<double>(size),
                static_cast<double>(OptimizerBytes(saved.optimizer, true)), 5000)
        << "but for the header";
    const auto reader = SafetensorsReader::OpenFile(folder / "o");
    EXPECT_EQ(reader->tensors().contains("low.embedding"), dtype == DType::kBFloat16);
    for (const auto& [name, view] : reader->tensors()) EXPECT_FALSE(name.starts_with("master."));
  }
}

TEST(OptimizerFileTest, WithoutMomentsTheyBeginAnew) {
  const TempFolder folder;
  Trained saved(DType::kBFloat16, 1), read(DType::kBFloat16, 2);
  SaveOptimizer(folder / "o", saved.optimizer, /*moments=*/false);
  CopyFlat(saved.weights.flat(), read.weights.flat());
  LoadOptimizer(folder / "o", read.optimizer, /*moments=*/false);
  EXPECT_EQ(Bytes(read.state().own_master), Bytes(saved.state().own_master));
  EXPECT_EQ(Bytes(read.state().m), std::vector<std::byte>(read.state().m.bytes()));
  EXPECT_EQ(read.optimizer.moment_steps(), 0);
  EXPECT_THROW(LoadOptimizer(folder / "o", read.optimizer, /*moments=*/true), Error);

  Trained whole(DType::kFloat32, 1);
  SaveOptimizer(folder / "none", whole.optimizer, /*moments=*/false);
  EXPECT_FALSE(RealFileSystem().Exists(folder / "none")) << "the model's file has it all";
  LoadOptimizer(folder / "none", whole.optimizer, /*moments=*/false);
  EXPECT_EQ(OptimizerBytes(whole.optimizer, false), 0);
}

// As files were written until December 2026, and where the halves do not say the masters.
TEST(OptimizerFileTest, WholeMastersAreReadAndWrittenWhereTheyAreNeeded) {
  const TempFolder folder;
  Trained saved(DType::kBFloat16, 1), read(DType::kBFloat16, 2);
  std::vector<TensorToWrite> tensors;
  for (const auto& [prefix, buffer] :
       {std::pair("m.", &saved.state().m), std::pair("v.", &saved.state().v),
        std::pair("master.", &saved.state().own_master)}) {
    for (const auto& e : saved.weights.table().entries()) {
      tensors.push_back({.name = prefix + e.name,
                         .dtype = DType::kFloat32,
                         .shape = e.shape,
                         .fill = [from = buffer, first = e.offset](std::span<std::byte> to) {
                           from->CopyToHost(to, first);
                         }});
    }
  }
  policy_model::WriteSafetensors(folder / "old", tensors, {{"format", "1"}});
  LoadOptimizer(folder / "old", read.optimizer, /*moments=*/true);
  EXPECT_EQ(Bytes(read.state().own_master), Bytes(saved.state().own_master));
  EXPECT_EQ(Bytes(read.state().v), Bytes(saved.state().v));

  saved.state().own_master.f32()[7] += 1.0f;  // its parameter is another one's
  SaveOptimizer(folder / "odd", saved.optimizer, /*moments=*/true);
  CopyFlat(saved.weights.flat(), read.weights.flat());
  LoadOptimizer(folder / "odd", read.optimizer, /*moments=*/true);
  EXPECT_EQ(Bytes(read.state().own_master), Bytes(saved.state().own_master));
}

TEST(OptimizerFileTest, TiesThatFitNothingAreDamage) {
  const TempFolder folder;
  Trained saved(DType::kBFloat16, 1);
  SaveOptimizer(folder / "o", saved.optimizer, /*moments=*/false);
  const auto reader = SafetensorsReader::OpenFile(folder / "o");
  for (const auto& places : std::vector<std::vector<int64_t>>{{-1}, {1 << 30}, {4, 3}, {3}}) {
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, view] : reader->tensors()) {
      if (name == "ties.embedding") continue;
      tensors.push_back({.name = name,
                         .dtype = view.dtype,
                         .shape = view.shape,
                         .fill = [from = view.bytes](std::span<std::byte> to) {
                           std::memcpy(to.data(), from.data(), to.size());
                         }});
    }
    tensors.push_back({.name = "ties.embedding",
                       .dtype = DType::kInt64,
                       .shape = {static_cast<int64_t>(places.size())},
                       .fill = [&places](std::span<std::byte> to) {
                         std::memcpy(to.data(), places.data(), to.size());
                       }});
    policy_model::WriteSafetensors(folder / "bad", tensors, {});
    try {
      LoadOptimizer(folder / "bad", saved.optimizer, /*moments=*/false);
      ADD_FAILURE() << places.front();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption);
      EXPECT_EQ(e.where(), folder / "bad");
    }
  }
}

}  // namespace
}  // namespace plumb::learner
