#include "policy_model/row_readout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace plumb::policy_model {
namespace {

TEST(RowReadoutTest, TheLikeliestTokensOfEachRow) {
  const std::vector<float> logits = {0, 3, -INFINITY, 1, 7, 2, 5, -INFINITY};
  std::vector<int32_t> ids(6);
  LikeliestTokens({}, logits.data(), 2, 4, 3, ids.data());
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 3, 0, 0, 2, 1}));
  LikeliestTokens({}, logits.data(), 1, 4, 4, ids.data());
  EXPECT_EQ(ids[3], -1);
}

TEST(RowReadoutTest, AMapOfHiddenStates) {
  const std::vector<float> hidden = {1, 2, 3, 4}, map = {1, 0, 0, 1, 1, 1};
  std::vector<float> out(6);
  MapHidden({}, hidden.data(), map.data(), 2, 2, 3, out.data());
  EXPECT_EQ(out, (std::vector<float>{1, 2, 3, 3, 4, 7}));
}

}  // namespace
}  // namespace plumb::policy_model
