// Models with experts that cannot work: a router that gives no numbers, files without a router.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "common/base/error.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/transformer.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

ModelShape Shape() {
  SetThreads(1);
  ModelShape s;
  s.family = "plumb";
  s.layers = 2, s.hidden = 16, s.heads = 2, s.kv_heads = 1, s.head_dim = 8, s.ffn = 12;
  s.vocab = 30, s.max_positions = 64;
  s.experts = {.count = 4, .widths = {12}, .per_token = 2};
  return s;
}

std::string WarningsOfAPass(const Weights& weights, float* logprob) {
  const std::vector<int32_t> tokens = {1, 2};
  PackedBatch batch;
  batch.Clear();
  batch.Append(tokens, std::vector<uint8_t>(2, 1));
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  ::testing::internal::CaptureStderr();
  model.Forward(weights, batch, {.entropy = false}, true, std::span(logprob, 1), {});
  return ::testing::internal::GetCapturedStderr();
}

TEST(BrokenExperts, ARouterThatIsNotFiniteIsNamedByItsLayer) {
  Weights weights(Shape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.2);
  float logprob = 0;
  EXPECT_EQ(WarningsOfAPass(weights, &logprob), "");
  EXPECT_TRUE(std::isfinite(logprob));
  for (const TensorEntry& e : weights.table().entries()) {
    if (e.name == "layers.1.router") weights.flat().f32()[e.offset + 5] = NAN;
  }
  const std::string said = WarningsOfAPass(weights, &logprob);
  EXPECT_NE(said.find("layer 1: the router's scores of the experts are not finite"),
            std::string::npos)
      << said;
  EXPECT_FALSE(std::isfinite(logprob)) << "the guards of updates see it";
}

TEST(BrokenExperts, FilesWithoutARouterAreRefusedByItsName) {
  Weights weights(Shape(), Device::kCpu, DType::kFloat32);
  weights.Initialise(3, 0.2);
  const testing::TempFolder folder;
  SaveModelDirectory(weights, folder.path(), "");
  const std::string path = folder / "model.safetensors";
  std::vector<TensorToWrite> kept;
  const auto reader = SafetensorsReader::OpenFile(path);
  for (const auto& [name, view] : reader->tensors()) {
    if (name == "model.layers.1.mlp.gate.weight") continue;
    kept.push_back({name, view.dtype, view.shape, [view = view](std::span<std::byte> to) {
                      std::copy(view.bytes.begin(), view.bytes.end(), to.begin());
                    }});
  }
  EXPECT_EQ(kept.size() + 1, reader->tensors().size());
  WriteSafetensors(path, kept, {});
  try {
    weights.Load(folder.path());
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tensors are missing: model.layers.1.mlp.gate.weight"),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace plumb::policy_model
