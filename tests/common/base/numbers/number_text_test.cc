// common/base/numbers/number_text.h: what is a number, and what is not one to its end.
#include "common/base/numbers/number_text.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace plumb {
namespace {

TEST(ParseNumber, TakesWholeTextsOnly) {
  EXPECT_EQ(ParseNumber<int64_t>("-12"), -12);
  EXPECT_EQ(ParseNumber<double>("1e-3"), 1e-3);
  EXPECT_EQ(ParseNumber<uint64_t>("18446744073709551615"), UINT64_MAX);
  for (const char* text : {"", " 1", "1 ", "+1", "1x", "0x1", "1.5"})
    EXPECT_EQ(ParseNumber<int64_t>(text), std::nullopt) << text;
  EXPECT_EQ(ParseNumber<uint64_t>("-1"), std::nullopt);
  EXPECT_EQ(ParseNumber<int64_t>("9223372036854775808"), std::nullopt);
  EXPECT_EQ(ParseNumber<double>("1e999"), std::nullopt);
}

}  // namespace
}  // namespace plumb
