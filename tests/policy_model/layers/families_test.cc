// Every family of policy_model/families/family.h through layers/: config, names, log-probs,
// gradients and paged steps against what transformers computes
// (tests/golden/make_families_golden.py).
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/families/model_config.h"
#include "policy_model/files/safetensors.h"
#include "policy_model/memory/stacked_tensor.h"
#include "policy_model/transformer.h"
#include "tests/policy_model/layers/families_golden.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

using Json = nlohmann::json;

const Json& Golden() { return FamiliesGolden(); }

class FamiliesTest : public ::testing::TestWithParam<std::string> {
 protected:
  const Json& golden() const { return Golden()["families"][GetParam()]; }

  void WriteFolder() { WriteFamilyFolder(GetParam(), temp_.path()); }

  ModelShape Shape() const { return ReadModelConfig(temp_.path(), LongestOf(GetParam())); }

  Weights Load(DType dtype = DType::kFloat32) {
    Weights weights(Shape(), Device::kCpu, dtype);
    weights.Load(temp_.path());
    return weights;
  }

  PackedBatch Batch() const {
    PackedBatch batch;
    batch.Clear();
    for (const Json& s : Golden()["sequences"]) {
      const auto tokens = s.get<std::vector<int32_t>>();
      batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
    }
    return batch;
  }

  testing::TempFolder temp_;
};

TEST_P(FamiliesTest, LogProbsAndGradientsAreTransformers) {
  WriteFolder();
  const Weights weights = Load();
  Transformer model(weights.shape(), Device::kCpu, DType::kFloat32);
  const PackedBatch batch = Batch();
  std::vector<float> logprob(batch.rows.size()), entropy(batch.rows.size()), g;
  model.Forward(weights, batch, {}, true, logprob, entropy);
  // At most 4 times the reference's own fp32 error, and an eps for the log-probs' size.
  const double tolerance = 4 * golden()["gap"].get<double>() + 2e-6;
  ASSERT_EQ(logprob.size(), golden()["logprobs"].size());
  for (size_t i = 0; i < logprob.size(); ++i)
    EXPECT_NEAR(logprob[i], golden()["logprobs"][i].get<double>(), tolerance) << i;
  for (size_t s = 0; s < Golden()["sequences"].size(); ++s) {
    for (size_t i = 0; i + 1 < Golden()["sequences"][s].size(); ++i) {
      g.push_back(std::cos(static_cast<float>(i) + static_cast<float>(s)));
    }
  }
  FlatBuffer grad(Device::kCpu, DType::kFloat32, weights.flat().elements());
  model.Backward(weights, batch, g, {}, grad);
  size_t checked = 0;
  for (const TensorEntry& e : weights.table().entries()) {
    if (e.name.ends_with("router_bias")) {  // moved by the load, outside the gradient
      for (int64_t i = 0; i < e.elements; ++i) EXPECT_EQ(grad.f32()[e.offset + i], 0) << e.name;
      continue;
    }
    for (const TensorPart& part : e.parts) {
      if (part.file_row > 0) continue;  // seen with the first part of its file tensor
      ASSERT_TRUE(golden()["gradients"].contains(part.file_tensor)) << part.file_tensor;
      const Json& want = golden()["gradients"][part.file_tensor];
      const float* at = grad.f32() + e.offset + part.row_begin * e.columns();
      std::vector<float> in_file;
      if (IsStacked(part)) {
        in_file.resize(static_cast<size_t>(e.elements));
        WriteStacked(e, part, 4, std::as_bytes(std::span(at, in_file.size())),
                     std::as_writable_bytes(std::span(in_file)));
        at = in_file.data();
      }
      const auto stride = want["stride"].get<int64_t>();
      double diff = 0, norm = 0;
      for (int64_t i = 0; i < part.file_rows * e.columns(); ++i)
        norm += std::pow(static_cast<double>(at[i]), 2);
      for (size_t k = 0; k < want["values"].size(); ++k) {
        diff += std::pow(static_cast<double>(at[static_cast<int64_t>(k) * stride]) -
                             want["values"][k].get<double>(),
                         2);
      }
      // The inputs g were rounded to float: eps times the norm.
      const double allowed = 4 * want["gap"].get<double>() + 3e-7 * want["norm"].get<double>();
      EXPECT_LE(std::sqrt(diff), allowed) << part.file_tensor;
      EXPECT_NEAR(std::sqrt(norm), want["norm"].get<double>(), allowed) << part.file_tensor;
      ++checked;
    }
  }
  EXPECT_EQ(checked, golden()["gradients"].size());
}

TEST_P(FamiliesTest, Bfloat16IsAsNearAsTransformersOwn) {
  WriteFolder();
  const Weights weights = Load(DType::kBFloat16);
  Transformer model(weights.shape(), Device::kCpu, DType::kBFloat16);
  PackedBatch batch = Batch();
  if (weights.shape().experts.count > 0) {
    // Where two experts are nearly as good, a rounding decides; another one is another function.
    Transformer exact(weights.shape(), Device::kCpu, DType::kFloat32);
    std::vector<float> ignored(batch.rows.size());
    exact.Forward(Load(), batch, {.entropy = false}, false, ignored, {});
    batch.experts.assign(exact.experts().begin(), exact.experts().end());
  }
  std::vector<float> logprob(batch.rows.size());
  model.Forward(weights, batch, {.entropy = false}, false, logprob, {});
  double largest = 0, squares = 0;
  for (size_t i = 0; i < logprob.size(); ++i) {
    const double gap = std::abs(logprob[i] - golden()["logprobs"][i].get<double>());
    largest = std::max(largest, gap);
    squares += gap * gap;
  }
  const Json& theirs = golden()["bfloat16"];
  EXPECT_LE(largest, 2 * theirs["largest"].get<double>());
  EXPECT_LE(std::sqrt(squares / static_cast<double>(logprob.size())),
            2 * theirs["rms"].get<double>());
}

TEST_P(FamiliesTest, PagedStepsAreThePackedForward) {
  WriteFolder();
  const Weights weights = Load();
  const ModelShape& shape = weights.shape();
  Transformer model(shape, Device::kCpu, DType::kFloat32);
  const auto tokens = Golden()["sequences"][0].get<std::vector<int32_t>>();
  PackedBatch batch;
  batch.Clear();
  batch.Append(tokens, std::vector<uint8_t>(tokens.size(), 1));
  const auto v = static_cast<size_t>(shape.vocab);
  std::vector<float> packed(batch.rows.size() * v);
  model.Logits(weights, batch, packed);
  kernels::PagedKv kv{.dtype = DType::kFloat32,
                      .layers = static_cast<int32_t>(shape.layers),
                      .num_pages = 8,
                      .page_tokens = 4,
                      .kv_heads = static_cast<int32_t>(shape.cache_heads()),
                      .head_dim = static_cast<int32_t>(shape.cache_dim()),
                      .keys_only = shape.latent.there()};
  std::vector<float> memory(static_cast<size_t>(kv.bytes() / 4), NAN);
  kv.pages = memory.data();
  const std::vector<int32_t> table = {7, 6, 5, 4, 3, 2, 1, 0};
  std::vector<float> states(static_cast<size_t>(PlanOf(shape).state()), NAN);
  const kernels::SequenceStates view{states.data(), static_cast<int64_t>(states.size())};
  // Sums of at most 48 products in another order, through up to 7 layers; where a model makes more
  // of an error, as the reference's own shows.
  const double allowed = 2e-5 + 4 * golden()["gap"].get<double>();
  // A prompt of 9 in one call, then token by token.
  for (size_t begin = 0, end = 9; begin + 1 < tokens.size(); begin = end, ++end) {
    std::vector<int32_t> slot(end - begin, 0), position, all;
    for (size_t i = begin; i < end; ++i) {
      position.push_back(static_cast<int32_t>(i));
      all.push_back(static_cast<int32_t>(i - begin));
    }
    const kernels::PagedRows rows{static_cast<int32_t>(slot.size()), slot.data(), position.data(),
                                  table.data(), 8};
    const float* logits = model.ForwardPaged(weights, std::span(tokens).subspan(begin, end - begin),
                                             rows, kv, all, nullptr, &view);
    for (size_t i = begin; i < end && i + 1 < tokens.size(); ++i) {
      for (size_t j = 0; j < v; ++j) {
        const double want = packed[i * v + j];
        ASSERT_NEAR(logits[(i - begin) * v + j], want, allowed * std::max(1.0, std::abs(want)))
            << "position " << i;
      }
    }
  }
}

TEST_P(FamiliesTest, FolderAndBackIsTheSame) {
  WriteFolder();
  const Weights weights = Load();
  testing::TempFolder copy;
  SaveModelDirectory(weights, copy.path(), "");
  EXPECT_EQ(ReadModelConfig(copy.path(), LongestOf(GetParam())), weights.shape());
  const auto before = SafetensorsReader::OpenDirectory(temp_.path()),
             after = SafetensorsReader::OpenDirectory(copy.path());
  ASSERT_EQ(before->tensors().size(), after->tensors().size());
  for (const auto& [name, view] : before->tensors()) {
    ASSERT_TRUE(after->tensors().count(name)) << name;
    const TensorView& again = after->tensors().at(name);
    EXPECT_EQ(view.shape, again.shape) << name;
    ASSERT_EQ(view.bytes.size(), again.bytes.size());
    EXPECT_EQ(0, std::memcmp(view.bytes.data(), again.bytes.data(), view.bytes.size())) << name;
  }
}

TEST_P(FamiliesTest, EveryRankHoldsItsShareOfEveryPart) {
  const ModelShape shape = [&] {
    WriteFolder();
    return Shape();
  }();
  const TensorTable table(shape);
  for (const int ranks : {1, 2}) {
    for (const TensorEntry& e : table.entries()) {
      if (e.elements % ranks != 0 || shape.vocab % ranks != 0) continue;
      std::vector<int> holders(static_cast<size_t>(e.elements), 0);
      for (int rank = 0; rank < ranks; ++rank) {
        for (const ElementRange& range : RankShare(e, rank, ranks)) {
          for (int64_t i = range.begin; i < range.end; ++i)
            ++holders[static_cast<size_t>(i - e.offset)];
        }
      }
      const bool cut = e.parts[0].split != SplitAxis::kNone;
      for (const int n : holders) ASSERT_EQ(n, cut ? 1 : ranks) << e.name;
    }
  }
}

// The names of transformers 5 and of 4, with an eye and a multi-token head beside the text model.
TEST_P(FamiliesTest, WrappersAndWhatLiesBesideAreRead) {
  WriteFolder();
  const Weights plain = Load();
  RealFileSystem().WriteFileAtomic(
      temp_ / "config.json",
      Json({{"model_type", "some_eye"}, {"text_config", golden()["config"]}}).dump());
  for (const bool older : {false, true}) {
    std::filesystem::remove(temp_ / "model.safetensors");
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, dims] : golden()["shapes"].items()) {
      const std::string wrapped = older ? "language_model." + name
                                  : name.starts_with("model.")
                                      ? "model.language_model." + name.substr(6)
                                      : name;
      tensors.push_back(FilledTensor(GetParam(), name, dims.get<std::vector<int64_t>>(), wrapped));
    }
    const std::vector<std::string> beside =
        older ? std::vector<std::string>{"vision_tower.patch.weight",
                                         "multi_modal_projector.linear_1.weight"}
              : std::vector<std::string>{"model.visual.patch.weight", "mtp.layers.0.fc.weight"};
    for (const std::string& name : beside)
      tensors.push_back(FilledTensor(GetParam(), name, {3}, name));
    WriteSafetensors(temp_ / "model.safetensors", tensors, {});
    ::testing::internal::CaptureStderr();
    const Weights inner = Load();
    Load();
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find(older ? "1 of multi_modal_projector.*, 1 of vision_tower.*"
                              : "1 of model.visual.*, 1 of mtp.*"),
              std::string::npos)
        << said;
    EXPECT_EQ(said.find("left out"), said.rfind("left out")) << "once: " << said;
    EXPECT_EQ(inner.shape(), plain.shape());
    EXPECT_EQ(0, std::memcmp(inner.flat().data(), plain.flat().data(), plain.flat().bytes()));
  }
}

TEST_P(FamiliesTest, TensorsLeftOverOrMissingAreNamed) {
  WriteFolder();
  const ModelShape shape = Shape();
  const auto refuses = [&](const std::string& dropped, const std::string& added,
                           const std::string& says) {
    std::filesystem::remove(temp_ / "model.safetensors");
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, dims] : golden()["shapes"].items()) {
      if (name != dropped)
        tensors.push_back(FilledTensor(GetParam(), name, dims.get<std::vector<int64_t>>(), name));
    }
    if (!added.empty()) tensors.push_back(FilledTensor(GetParam(), added, {3}, added));
    WriteSafetensors(temp_ / "model.safetensors", tensors, {});
    try {
      Weights(shape, Device::kCpu, DType::kFloat32).Load(temp_.path());
      ADD_FAILURE() << "accepted without " << dropped << " and with " << added;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(temp_.path()), std::string::npos) << e.what();
    }
  };
  std::string down;  // of a feed-forward part or an expert
  for (const auto& [name, dims] : golden()["shapes"].items()) {
    if (name.starts_with("model.layers.1.") &&
        (name.find("down_proj") != std::string::npos || name.find(".w2.") != std::string::npos))
      down = name;
  }
  refuses(down, "", down);
  refuses("", "model.layers.1.mlp.other.weight", "model.layers.1.mlp.other.weight");
}

INSTANTIATE_TEST_SUITE_P(All, FamiliesTest, ::testing::ValuesIn(FamilyCases()),
                         [](const auto& info) { return info.param; });

// Other systems keep it in float32 in a model of bfloat16: it tells scores apart.
TEST(BalancingBiasTest, IsFloat32InAModelOfBfloat16AndComesBackBitForBit) {
  for (const std::string family : {"deepseek_v3", "glm4_moe_fused"}) {
    const testing::TempFolder temp, copy;
    WriteFamilyFolder(family, temp.path());
    const ModelShape shape = ReadModelConfig(temp.path());
    Weights weights(shape, Device::kCpu, DType::kBFloat16);
    weights.Load(temp.path());
    SaveModelDirectory(weights, copy.path(), "");
    const auto before = SafetensorsReader::OpenDirectory(temp.path()),
               after = SafetensorsReader::OpenDirectory(copy.path());
    for (const auto& [name, view] : before->tensors()) {
      const bool bias = name.ends_with("e_score_correction_bias");
      const TensorView& again = after->tensors().at(name);
      EXPECT_EQ(again.dtype, bias ? DType::kFloat32 : DType::kBFloat16) << name;
      if (!bias) continue;
      EXPECT_EQ(0, std::memcmp(view.bytes.data(), again.bytes.data(), view.bytes.size()));
    }
    // It counts once, as the file has it.
    int64_t parameters = 0;
    for (const auto& [name, view] : before->tensors())
      parameters += static_cast<int64_t>(view.bytes.size()) / 4;
    EXPECT_EQ(weights.table().parameters(), parameters);
  }
}

// Layers behind the last, which DeepSeek V3 and GLM 4.5 predict further tokens with.
TEST(LayersBeyondTest, AreLeftOutByNameOnceAndOnlyWhereAFamilyHasThem) {
  for (const std::string family : {"deepseek_v3", "glm4_moe", "glm4_moe_lite", "deepseek_v2"}) {
    const testing::TempFolder temp, copy;
    WriteFamilyFolder(family, temp.path());
    Weights plain(ReadModelConfig(temp.path()), Device::kCpu, DType::kFloat32);
    plain.Load(temp.path());
    std::vector<TensorToWrite> tensors;
    for (const auto& [name, dims] : Golden()["families"][family]["shapes"].items())
      tensors.push_back(FilledTensor(family, name, dims.get<std::vector<int64_t>>(), name));
    for (const char* name : {"model.layers.4.eh_proj.weight", "model.layers.4.mlp.gate.weight"})
      tensors.push_back(FilledTensor(family, name, {3}, name));
    std::filesystem::remove(temp / "model.safetensors");
    WriteSafetensors(temp / "model.safetensors", tensors, {});
    Weights weights(plain.shape(), Device::kCpu, DType::kFloat32);
    if (family == "deepseek_v2") {
      EXPECT_THROW(weights.Load(temp.path()), Error);
      continue;
    }
    ::testing::internal::CaptureStderr();
    weights.Load(temp.path());
    weights.Load(temp.path());
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_NE(said.find("2 of model.layers.4.*"), std::string::npos) << said;
    EXPECT_EQ(said.find("left out"), said.rfind("left out")) << "once: " << said;
    EXPECT_EQ(weights.ComputeDigest(), plain.ComputeDigest());
    SaveModelDirectory(weights, copy.path(), "");
    const Json config = Json::parse(RealFileSystem().ReadFile(copy / "config.json", 1 << 20));
    EXPECT_EQ(config["num_nextn_predict_layers"], 0) << "nobody shall look for them";
  }
}

TEST(RankShareTest, AShareIsAPieceOfQAndOfKAndOfV) {
  const TensorTable table({.layers = 1,
                           .hidden = 8,
                           .heads = 4,
                           .kv_heads = 2,
                           .head_dim = 4,
                           .ffn = 12,
                           .vocab = 8,
                           .max_positions = 8});
  for (const TensorEntry& e : table.entries()) {
    if (e.name == "layers.0.qkv") {  // rows: 16 of q, 8 of k, 8 of v, of 8 columns
      const auto share = RankShare(e, 1, 2);
      ASSERT_EQ(share.size(), 3u);
      const int64_t rows[3][2] = {{8, 16}, {20, 24}, {28, 32}};
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(share[i].begin, e.offset + rows[i][0] * 8);
        EXPECT_EQ(share[i].end, e.offset + rows[i][1] * 8);
      }
      EXPECT_EQ(RankShare(e, 3, 4)[0].begin, e.offset + 12 * 8);
      EXPECT_THROW(RankShare(e, 0, 3), Error);
    }
    if (e.name == "layers.0.down") {  // [8, 12], columns are cut
      const auto share = RankShare(e, 1, 4);
      ASSERT_EQ(share.size(), 8u);
      EXPECT_EQ(share[1].begin, e.offset + 12 + 3);
      EXPECT_EQ(share[1].end, e.offset + 12 + 6);
    }
  }
}

}  // namespace
}  // namespace plumb::policy_model
