#include "run/report/load_map.h"

#include <gtest/gtest.h>

#include <cmath>

namespace plumb::run {
namespace {

size_t Count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; ++at) ++n;
  return n;
}

TEST(LoadMapTest, HasARowALayerAndDarkensWithTheLoad) {
  RunData data;
  EXPECT_EQ(LoadMapHtml(data), "");
  data.columns["moe/expert_load_max_over_mean"] = {{0, 1}, {3, 2}};
  EXPECT_EQ(LoadMapHtml(data), "") << "layers by themselves";
  data.columns["moe/layer_10/expert_load_max_over_mean"] = {{0, 1, 2}, {3, 2, 1}};
  data.columns["moe/layer_2/expert_load_max_over_mean"] = {{0, 1, 2}, {1, 1.5, std::nan("")}};
  data.columns["moe/layer_2/router_entropy"] = {{0}, {9}};
  const std::string map = LoadMapHtml(data);
  EXPECT_EQ(Count(map, "<rect"), 6u);
  EXPECT_LT(map.find("layer 2<"), map.find("layer 10<")) << "in the order of the model";
  EXPECT_NE(map.find("layer 10, step 0: 3.000"), std::string::npos) << map;
  EXPECT_NE(map.find("layer 2, step 2: not finite"), std::string::npos);
  EXPECT_NE(map.find("fill-opacity=\"1.000\"><title>layer 10, step 0"), std::string::npos);
  EXPECT_NE(map.find("fill-opacity=\"0.250\"><title>layer 2, step 1"), std::string::npos);
  EXPECT_NE(map.find("fill-opacity=\"0.000\"><title>layer 2, step 0"), std::string::npos);
  EXPECT_NE(map.find("the darkest is 3.00"), std::string::npos);
}

TEST(LoadMapTest, ManyStepsAreMeansOfBuckets) {
  RunData data;
  MetricColumn& column = data.columns["moe/layer_0/expert_load_max_over_mean"];
  for (int64_t s = 0; s < 1000; ++s) {
    column.step.push_back(s);
    column.value.push_back(s % 2 == 0 ? 1 : 3);
  }
  const std::string map = LoadMapHtml(data);
  EXPECT_EQ(Count(map, "<rect"), 100u);
  EXPECT_NE(map.find("steps 990 to 999: 2.000"), std::string::npos);
}

}  // namespace
}  // namespace plumb::run
