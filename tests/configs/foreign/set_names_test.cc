// configs/foreign/set_names.h: what --set says of an option under two names.
#include "configs/foreign/set_names.h"

#include <gtest/gtest.h>

namespace plumb::configs {
namespace {

TEST(SetNames, TwoNamesOfAnOptionMayNotContradictEachOther) {
  SetNames names;
  const std::string option = "algorithm.aggregation";
  EXPECT_EQ(names.Give(option, "\"token\"", "algorithm.loss_type=bnpo"), "");
  EXPECT_EQ(names.Give(option, "\"token\"", "algorithm.loss_agg_mode=token-mean"), "");
  EXPECT_EQ(names.Give(option, "\"sequence\"", "algorithm.loss_agg_mode=seq-mean-token-mean"), "")
      << "the same name again: the last one counts";
  EXPECT_EQ(names.Give(option, "\"token\"", "algorithm.loss_type=bnpo"),
            "algorithm.aggregation is \"sequence\" by --set "
            "algorithm.loss_agg_mode=seq-mean-token-mean, and \"token\" here: keep one of them");
  EXPECT_EQ(names.Give("algorithm.epochs", "2", "algorithm={epochs=2}"), "");
  EXPECT_EQ(names.Give("algorithm.epochs", "3", " algorithm.epochs =3"), "") << "a table's key";
}

}  // namespace
}  // namespace plumb::configs
