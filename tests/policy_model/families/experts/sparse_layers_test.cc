// Steps and lists of layers, together and alone, and what is no list.
#include "policy_model/families/experts/sparse_layers.h"

#include <gtest/gtest.h>

#include "common/base/error.h"

namespace plumb::policy_model {
namespace {

std::vector<uint8_t> DenseOf(const char* json, int64_t experts = 4) {
  const ConfigJson config = ConfigJson::parse(json);
  ModelShape shape{.layers = 4};
  shape.experts.count = experts;
  ReadSparseLayers(ConfigKeys(config, "c.json"), shape);
  return shape.experts.dense;
}

TEST(SparseLayersTest, StepsAndListsSayWhichLayersAreDense) {
  using Dense = std::vector<uint8_t>;
  EXPECT_EQ(DenseOf("{}"), Dense{}) << "all have experts";
  EXPECT_EQ(DenseOf("{}", 0), (Dense{1, 1, 1, 1}));
  EXPECT_EQ(DenseOf(R"({"decoder_sparse_step": 2})"), (Dense{1, 0, 1, 0}));
  EXPECT_EQ(DenseOf(R"({"mlp_only_layers": [1, 9]})"), (Dense{0, 1, 0, 0})) << "9 is no layer";
  EXPECT_EQ(DenseOf(R"({"decoder_sparse_step": 2, "mlp_only_layers": [3]})"), (Dense{1, 0, 1, 1}));
}

TEST(SparseLayersTest, WhatIsNoListOrStepIsNamed) {
  for (const auto& [json, key] : {std::pair(R"({"decoder_sparse_step": 0})", "decoder_sparse_step"),
                                  std::pair(R"({"mlp_only_layers": 1})", "mlp_only_layers"),
                                  std::pair(R"({"mlp_only_layers": ["a"]})", "mlp_only_layers")}) {
    try {
      DenseOf(json);
      ADD_FAILURE() << "no error: " << json;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kCorruption);
      EXPECT_NE(std::string(e.what()).find(key), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find("c.json"), std::string::npos) << e.what();
    }
  }
}

}  // namespace
}  // namespace plumb::policy_model
