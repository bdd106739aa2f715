// configs/checks/loss_weights.h: weights that make a sum.
#include "configs/checks/loss_weights.h"

#include <gtest/gtest.h>

#include <cmath>

namespace plumb::configs {
namespace {

TEST(LossWeights, OfASumAreNotNegativeNorAllZeroNorEndless) {
  EXPECT_EQ(WrongLossWeights({}), "");
  EXPECT_EQ(WrongLossWeights({{"sigmoid", 0.8}, {"sft", 1}}), "");
  EXPECT_EQ(WrongLossWeights({{"sigmoid", 1}, {"sft", 0}}), "");
  EXPECT_EQ(WrongLossWeights({{"sigmoid", 0}, {"sft", 0}}),
            "gives every loss the weight 0: nothing would be learned");
  EXPECT_EQ(WrongLossWeights({{"sigmoid", 1}, {"sft", -1}}),
            "gives \"sft\" the weight -1: a weight is a finite number of 32 bits, 0 or more");
  for (const double weight : {1e300, std::nan("")})
    EXPECT_NE(WrongLossWeights({{"sft", weight}}).find("gives \"sft\" the weight"),
              std::string::npos)
        << weight;
  EXPECT_NE(WrongLossWeights({{"sft", 1e-300}}).find("every loss"), std::string::npos)
      << "which is 0 in 32 bits";
  EXPECT_EQ(WrongLossWeights({{"sft", 1}, {"sft", 2}}),
            "names \"sft\" twice: once is enough, with the sum of its weights");
}

}  // namespace
}  // namespace plumb::configs
