#include "kernels/update/moment_codes.h"

#include <gtest/gtest.h>

#include <cmath>

namespace plumb::kernels {
namespace {

// Without chance, each code is what its own value becomes.
template <class Code>
void ExpectRoundTrip() {
  for (uint32_t c = 0; c <= Code::kMost; ++c) {
    EXPECT_EQ(Code::Value(c), Code::kValues[c]);
    EXPECT_TRUE(c == 0 || Code::Value(c) > Code::Value(c - 1));
    // half a step up, so that an error in the last place does not count
    EXPECT_EQ(Code::Round(Code::Value(c), 1u << (kCodeDraw - 1)), c);
  }
  EXPECT_EQ(Code::Value(Code::kMost), 1.0f);
}

TEST(MomentCodesTest, EveryCodeIsItsValue) {
  ExpectRoundTrip<CodeM>();
  ExpectRoundTrip<CodeV>();
}

TEST(MomentCodesTest, SignsAndZeros) {
  EXPECT_EQ(StoredM(-2.0f, 1.0f, 0), kCodeSign | CodeM::kMost);
  EXPECT_EQ(StoredM(2.0f, 1.0f, 0), CodeM::kMost);
  EXPECT_EQ(StoredM(0.0f, 0.0f, 0x7FFFF), 0);
  EXPECT_EQ(StoredV(0.0f, 0.0f, 0x7FFFF), 0);
  EXPECT_EQ(StoredV(1e-12f, 1e-12f, 0), 1) << "a step divides by it";
}

TEST(MomentCodesTest, ADrawServesAnElementOnce) {
  const ElementDraws d = DrawsOf(0xFFFFE000u, 0x00000000u);
  EXPECT_EQ(d.of_m, (1u << kCodeDraw) - 1);
  EXPECT_EQ(d.of_v, 0u);
  EXPECT_EQ(d.of_weight, 0u) << "of the bits that the moments leave";
  EXPECT_EQ(DrawsOf(0x1FFFu, 7u).of_weight, 0xFFFFu);
  EXPECT_EQ(FloatOf(BitsOf(1.5f)), 1.5f);
  EXPECT_EQ(ToFloat(RoundAtRandom(3.39e38f, 0xFFFF)), ToFloat(RoundAtRandom(3.39e38f, 0)));
}

}  // namespace
}  // namespace plumb::kernels
