#include "configs/number_list.h"

#include <gtest/gtest.h>

namespace plumb::configs {
namespace {

TEST(NumberListTest, ReadsSoManyNumbersAndNothingElse) {
  EXPECT_EQ(ReadNumbers({"2", "-3.5"}, 2, "a.b"), (std::vector<double>{2, -3.5}));
  EXPECT_THROW(ReadNumbers({"2"}, 2, "a.b"), Error);
  EXPECT_THROW(ReadNumbers({"2", ""}, 2, "a.b"), Error);
  EXPECT_THROW(ReadNumbers({"2", "3x"}, 2, "a.b"), Error);
  EXPECT_THROW(ReadNumbers({"2", "inf"}, 2, "a.b"), Error);
  try {
    ReadNumbers({"2", "three"}, 2, "algorithm.vespo");
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("\"three\""), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("algorithm.vespo"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace plumb::configs
