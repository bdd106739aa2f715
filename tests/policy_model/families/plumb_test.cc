// config.json of models in Plumb's own form (policy_model/families/plumb.cc).
#include <gtest/gtest.h>

#include "common/base/error.h"
#include "common/base/file.h"
#include "policy_model/families/family.h"
#include "policy_model/families/model_config.h"
#include "policy_model/families/tensor_table.h"
#include "tests/testing/temp_folder.h"

namespace plumb::policy_model {
namespace {

ModelShape Mixed() {
  ModelShape s;
  s.family = "plumb";
  s.layers = 3, s.hidden = 32, s.heads = 4, s.kv_heads = 2, s.head_dim = 8, s.ffn = 64;
  s.vocab = 40, s.max_positions = 64, s.window = 8, s.global_every = 5;
  s.layer_norms = {1, 0, 1};
  s.final_layer_norm = true;
  s.sinks = true;
  return s;
}

std::string Write(const testing::TempFolder& folder, const ModelShape& shape) {
  WriteModelConfig(shape, folder.path(), "float32");
  return RealFileSystem().ReadFile(folder / "config.json", 1 << 20);
}

TEST(PlumbFamily, ConfigIsReadBackAndWrittenAgainByteForByte) {
  ModelShape plain = Mixed();
  plain.window = plain.global_every = 0;
  plain.layer_norms = {};
  plain.final_layer_norm = plain.sinks = false;
  ModelShape scaled = plain;
  scaled.window = 8;
  scaled.gate_top_k = 4;
  SetScales(std::vector<std::string>{"local", "global"}, "test", scaled);
  EXPECT_EQ(scaled.sliding, (std::vector<uint8_t>{1, 0, 1})) << "repeated from the first";
  for (const ModelShape& shape : {Mixed(), plain, scaled}) {
    const testing::TempFolder first, second;
    const std::string text = Write(first, shape);
    EXPECT_NE(text.find("\"model_type\": \"plumb\""), std::string::npos) << text;
    const ModelShape read = ReadModelConfig(first.path());
    EXPECT_EQ(read, shape);
    EXPECT_EQ(Write(second, read), text);
  }
}

TEST(PlumbFamily, EachLayerHasItsNormAndItsWindow) {
  const TensorTable table(Mixed());
  for (const int64_t l : {0, 1, 2}) {
    const LayerSpec& spec = table.plan().layers[static_cast<size_t>(l)];
    EXPECT_EQ(spec.norm, l == 1 ? NormKind::kRms : NormKind::kLayer);
    EXPECT_EQ(spec.window, 8);
    EXPECT_EQ(spec.global_every, 5);
    EXPECT_FALSE(spec.GivesPagesBack()) << "a global position is read for ever";
    EXPECT_EQ(table.layer(l).attention_norm_bias >= 0, l != 1);
    EXPECT_EQ(table.layer(l).ffn_norm_bias >= 0, l != 1);
  }
  EXPECT_GE(table.final_norm_bias(), 0);
  size_t biases = 0;
  for (const TensorEntry& e : table.entries()) {
    if (!e.parts[0].file_tensor.ends_with("norm.bias")) continue;
    ++biases;
    EXPECT_EQ(e.init, TensorInit::kZeros);
    EXPECT_FALSE(e.decay);
  }
  EXPECT_EQ(biases, 5u);
}

TEST(PlumbFamily, WhatItDoesNotComputeIsRefusedByName) {
  const testing::TempFolder folder;
  const std::string text = Write(folder, Mixed());
  const auto refuses = [&](const std::string& from, const std::string& to,
                           const std::string& says) {
    std::string changed = text;
    const size_t at = changed.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    RealFileSystem().WriteFileAtomic(folder / "config.json", changed.replace(at, from.size(), to));
    try {
      ReadModelConfig(folder.path());
      ADD_FAILURE() << "accepted " << to;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(says), std::string::npos) << e.what();
    }
  };
  refuses("\"rmsnorm\"", "\"batchnorm\"", "norms: 'batchnorm' is not computed here");
  refuses("\"rmsnorm\",", "", "'norms' is not a list of 4 names");
  refuses("\"window\": 8", "\"window\": 0", "global_every = 5");
  refuses("\"global_every\": 5", "\"global_every\": -1", "global_every = -1");
  const std::string every = "\"global_every\": 5";
  refuses(every, every + ", \"gate_top_k\": 3", "two ways to see beyond a window");
  refuses(every, "\"gate_top_k\": 5000", "gate_top_k = 5000 is out of range (0 to 1024)");
  refuses(every, every + ", \"scales\": [\"local\"]", "'scales' is not a list of 3 names");
  refuses(every, every + ", \"scales\": [\"local\", 1, \"global\"]", "scales: '?' is not known");
  refuses(every, every + ", \"scales\": [\"local\", \"memory\", \"global\"]",
          "layers ask a memory table, but there is none");
  const std::string digest = ", \"memory_digest\": \"" + std::string(64, 'a') + "\"";
  refuses(every, every + ", \"memory_table\": \"/etc/passwd\"", "names '/etc/passwd'");
  refuses(every,
          every + ", \"memory_table\": \"memory_table.safetensors\", \"memory_rows\": 0" + digest,
          "do not describe a table");
  refuses(every,
          every + ", \"memory_table\": \"memory_table.safetensors\", \"memory_rows\": 3" + digest,
          "no layer asks it");
}

TEST(PlumbFamily, LayersOfSeveralScalesHaveWhatTheyAreNamedFor) {
  ModelShape shape = Mixed();
  shape.global_every = 0;
  shape.gate_top_k = 3;
  shape.table = {"somewhere", 10, std::string(64, 'a')};
  SetScales(std::vector<std::string>{"local", "global", "memory"}, "test", shape);
  const TensorTable table(shape);
  for (const int64_t l : {0, 1, 2}) {
    const LayerSpec& spec = table.plan().layers[static_cast<size_t>(l)];
    EXPECT_EQ(spec.window, l == 1 ? 0 : 8);
    EXPECT_EQ(spec.gate_top_k, l == 1 ? 0 : 3);
    EXPECT_EQ(spec.table, l == 2);
    EXPECT_EQ(spec.state(), l == 1 ? 0 : 8 + 2 * 3);
    EXPECT_TRUE(spec.KeepsPages());
    EXPECT_FALSE(spec.GivesPagesBack()) << "any token may be chosen";
    EXPECT_EQ(table.layer(l).token_gate >= 0, l != 1);
  }
  ModelShape windowless = Mixed();
  windowless.window = windowless.global_every = 0;
  EXPECT_THROW(SetScales(std::vector<std::string>{"local"}, "test", windowless), Error);
}

}  // namespace
}  // namespace plumb::policy_model
