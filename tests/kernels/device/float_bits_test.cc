// kernels/device/float_bits.h: there and back, the sign of zero and what is no number included.
#include "kernels/device/float_bits.h"

#include <gtest/gtest.h>

namespace plumb::kernels {
namespace {

TEST(FloatBits, LeadThereAndBack) {
  EXPECT_EQ(BitsOf(1.5f), 0x3FC00000U);
  EXPECT_EQ(BitsOf(-0.0f), 0x80000000U);
  for (const uint32_t bits : {0U, 1U, 0x7F800000U, 0xC2F70000U})
    EXPECT_EQ(BitsOf(FloatOf(bits)), bits);
  EXPECT_NE(FloatOf(0x7FC00000U), FloatOf(0x7FC00000U)) << "no number equals itself";
}

}  // namespace
}  // namespace plumb::kernels
